//! One recording under glibc, replayed under other allocators, comes to what the program comes to when it is really run
//! under each: growth of the anonymous memory that malloc owns, within a twentieth.

use anyhow::{Context as _, Result, ensure};
use memfrag_tests::memfrag::{Backend, memfrag, number, trace, traced};
use memfrag_tests::process::{self, Running};
use memfrag_tests::redis::Redis;
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

tests!(python, threads_that_free_each_others_blocks, node, redis);

/// Many blocks, of which few survive; prints by how much its anonymous memory has grown over them.
const PYTHON: &str = "
import time
def anonymous():
    for line in open('/proc/self/status'):
        if line.startswith('RssAnon'):
            return int(line.split()[1]) * 1024
time.sleep(0.6)
before = anonymous()
burst, kept = [], []
for n in range(60000):
    burst.append(bytes(700 + n * 37 % 1200))
    if n % 25 == 0:
        kept.append(bytes(560))
burst = None
time.sleep(0.8)
print(anonymous() - before)
";

/// Buffers, of which every tenth survives, then larger ones. Prints growth, and how much of it is the heap of objects,
/// which is none of malloc's; and ends before anything is taken down.
const NODE: &str = "
const fs = require('fs'), v8 = require('v8');
const anonymous = () => Number(/RssAnon:\\s+(\\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]) * 1024;
const objects = () => v8.getHeapStatistics().total_physical_size;
const wait = (ms) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
const kept = new Array(60000).fill(null);
const add = (size) => Buffer.allocUnsafeSlow(size).fill(1);
gc(); wait(600);
const before = [anonymous(), objects()];
for (let i = 0; i < 60000; i++) kept[i] = add(400 + (i * 7919) % 4400);
for (let i = 0; i < 60000; i++) if (i % 10) kept[i] = null;
gc(); wait(300);
for (let i = 0; i < 8000; i++) kept.push(add(6000 + (i * 31) % 4000));
gc(); wait(800);
fs.writeSync(1, `${anonymous() - before[0]} ${objects() - before[1]}\\n`);
wait(300);
process.kill(process.pid, 'SIGKILL');
";

/// What these allocators give back by the clock or at times of their own. A replay has other time than a program, and both
/// have less of the processor when the machine is busy, so where the two are compared they are told not to.
const KEEP: [(&str, &str); 4] = [
    ("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1"),
    ("MIMALLOC_ALLOW_DECOMMIT", "0"),
    ("MIMALLOC_PAGE_RESET", "0"),
    ("TCMALLOC_RELEASE_RATE", "0"),
];

/// How a program's anonymous memory has grown.
#[derive(Clone, Copy, Debug)]
struct Grown {
    /// All of it.
    all: u64,
    /// What malloc owns of that.
    mallocs: u64,
}

impl Grown {
    /// What a program has printed: growth, and what is none of malloc's.
    fn printed(text: &str) -> Result<Self> {
        let numbers: Vec<u64> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(text.to_owned())?;
        let &all = numbers.first().context("the program has printed nothing")?;
        Ok(Self { all, mallocs: all.saturating_sub(numbers.get(1).copied().unwrap_or(0)) })
    }
}

/// The library that is loaded before the program's own.
fn library(name: &str) -> Result<&'static str> {
    Ok(match name {
        "glibc" => "libc.so.6",
        "jemalloc" => "libjemalloc.so.2",
        "mimalloc" => "libmimalloc.so.2",
        "tcmalloc" => "libtcmalloc_minimal.so.4",
        _ => anyhow::bail!("an allocator that nobody knows: {name}"),
    })
}

/// Growth from a reading to the last one.
fn growth(readings: &[Value], from: u64) -> Result<u64> {
    let before = readings.iter().find(|reading| reading["number"] == from).context("the reading before the work")?;
    let last = readings.last().context("no reading")?;
    Ok(number(last, "rss_bytes")?.saturating_sub(number(before, "rss_bytes")?))
}

/// Replays, each of which may come to something else: where threads wait for a processor, they share other memory.
const REPLAYS: usize = 3;

/// Replays the recording of a program that has grown so, and has the program run under each allocator.
fn compare(recording: &Path, words: &[&str], grown: Grown, really: impl Fn(&str) -> Result<Grown>) -> Result<()> {
    let replay = || -> Result<Value> {
        let keep = KEEP.into_iter().flat_map(|(name, value)| ["--env".to_owned(), format!("{name}={value}")]);
        let mut command = memfrag(&["replay", "--json"])?;
        let ended = process::run(command.arg(recording).args(words).args(keep))?.success()?;
        serde_json::from_slice(&ended.stdout).context("no JSON")
    };
    let reports = (0..REPLAYS).map(|_| replay()).collect::<Result<Vec<_>>>()?;
    let list = |value: &Value| value.as_array().cloned().context("no list");
    let original = &reports[0]["original"];
    // What memory was before the work, up to what a tired machine may have changed.
    let at_rest = number(original, "final_rss_bytes")?.saturating_sub(grown.all) + (1 << 20);
    let readings = list(&original["readings"])?;
    let small = |reading: &&Value| reading["rss_bytes"].as_u64().is_some_and(|bytes| bytes <= at_rest);
    let from = number(readings.iter().rev().find(small).context("nothing was read before the work")?, "number")?;
    for (at, run) in list(&reports[0]["runs"])?.iter().enumerate() {
        let name = run["allocator"].as_str().context("no name")?;
        if name == "musl" {
            // It cannot be loaded into a program that was built for glibc.
            continue;
        }
        let replayed = |report: &Value| -> Result<u64> {
            let run = &report["runs"][at];
            ensure!(run["allocator"] == name && run["outcome"] == "completed", "{run}");
            growth(&list(&run["readings"])?, from)
        };
        let mut replayed = reports.iter().map(replayed).collect::<Result<Vec<_>>>()?;
        replayed.sort_unstable();
        let real = really(name)?.mallocs;
        eprintln!("{name}: {real} really, {} replayed", replayed[REPLAYS / 2]);
        let nearest = real.clamp(replayed[0], replayed[REPLAYS - 1]);
        ensure!(real.abs_diff(nearest) * 20 <= real, "{name}: {real} really, replayed {replayed:?}");
    }
    Ok(())
}

/// A command that prints how it has grown.
fn of_command(name: &str, command: &dyn Fn() -> Result<Command>) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join(format!("{name}.mfrag"));
    let (ended, _) = traced(Backend::Preload, &recording, &command()?)?;
    compare(&recording, &[], Grown::printed(&ended.text())?, |allocator| {
        let mut program = command()?;
        program.envs(KEEP);
        if allocator != "glibc" {
            program.env("LD_PRELOAD", library(allocator)?);
        }
        Grown::printed(&process::run(&mut program)?.text())
    })
}

/// The burst in python3, with all its blocks from malloc.
pub(super) fn burst() -> Result<Command> {
    let mut command = Command::new(place::tool("python3")?);
    command.args(["-c", PYTHON]).env("PYTHONMALLOC", "malloc");
    Ok(command)
}

fn python() -> Result<()> {
    of_command("python", &burst)
}

fn threads_that_free_each_others_blocks() -> Result<()> {
    of_command("baskets", &|| Ok(Command::new(place::program("baskets")?)))
}

fn node() -> Result<()> {
    of_command("node", &|| {
        let mut command = Command::new(place::tool("node")?);
        command.args(["--expose-gc", "-e", NODE]);
        Ok(command)
    })
}

/// A server whose values become larger, from when it was ready; and for how long it had run when it had grown.
fn shifted(redis: &Redis, mut command: Command) -> Result<(Grown, Duration)> {
    const STEPS: [&str; 3] = [
        "for i = 1, 150000 do redis.call('SET', 'k' .. i, string.rep('a', 100 + i % 64)) end",
        "for i = 1, 150000 do if i % 8 ~= 0 then redis.call('DEL', 'k' .. i) end end",
        "for i = 1, 40000 do redis.call('SET', 'n' .. i, string.rep('b', 600 + (i * 37) % 300)) end",
    ];
    let begun = Instant::now();
    let mut server = Running::start(&mut command)?;
    redis.ready(&mut server)?;
    let info = redis.ask(&["INFO", "server"])?;
    let pid = info.lines().find_map(|line| line.trim().strip_prefix("process_id:")).context(info.clone())?;
    let anonymous = || -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next());
        Ok(kib.context("no RssAnon")?.parse::<u64>()? * 1024)
    };
    std::thread::sleep(Duration::from_millis(600));
    let before = anonymous()?;
    for step in STEPS {
        redis.ask(&["EVAL", step, "0"])?;
    }
    std::thread::sleep(Duration::from_millis(800));
    let all = anonymous()?.saturating_sub(before);
    let at = begun.elapsed();
    std::thread::sleep(Duration::from_millis(400));
    redis.shutdown()?;
    server.wait(Duration::from_secs(30))?;
    Ok((Grown { all, mallocs: all }, at))
}

fn redis() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("redis.mfrag");
    let server = |allocator: &str| -> Result<(Redis, Command, tempfile::TempDir)> {
        let own = place::scratch()?;
        let redis = Redis::new(own.path())?;
        let mut command = redis.server()?;
        command.env("LD_PRELOAD", library(allocator)?).envs(KEEP);
        Ok((redis, command, own))
    };
    let (redis, command, _own) = server("glibc")?;
    let (grown, at) = shifted(&redis, trace(Backend::Preload, &recording, &command)?)?;
    let until = format!("{}ms", at.as_millis());
    compare(&recording, &["--at", &until], grown, |allocator| {
        let (redis, command, _own) = server(allocator)?;
        Ok(shifted(&redis, command)?.0)
    })
}
