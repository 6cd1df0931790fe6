//! A recording says of every call what the program itself says.

use anyhow::{Context, Result, ensure};
use memfrag_common::{Function, Op};
use memfrag_tests::ledger::{self, Call};
use memfrag_tests::memfrag::{Backend, Report, traced};
use memfrag_tests::{events, place, tests, tests_on_both};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

tests_on_both!(
    every_function,
    failing_calls,
    random_calls,
    threads_free_each_others_blocks,
    threads_come_and_go,
    threads_whose_ids_end_alike,
    forks,
    forks_among_busy_threads,
    jumps_out_of_signal_handlers,
    jumps_out_of_the_allocator,
    exec_of_itself,
    a_library_that_comes_and_goes,
);
tests!(both_backends_say_the_same, both_backends_see_the_segment_grow);

/// Runs the stages under the backend and compares books and recording; gives the number of calls and of abandoned
/// ones.
fn ledger(backend: Backend, stages: &str, calls: usize) -> Result<ledger::Agreement> {
    let dir = place::scratch()?;
    let books = dir.path().join("books");
    std::fs::create_dir(&books)?;
    let recording = dir.path().join("ledger.mfrag");
    let mut target = Command::new(place::program("ledger")?);
    target.arg(&books).arg(stages).args(["7", &calls.to_string()]);
    let (ended, report) = traced(backend, &recording, &target)?;
    ensure!(ended.code() == 0 && ended.text() == "ledger: ok\n", "the program itself failed:\n{}", ended.stderr);
    report.every_free_matched()?;
    let agreement = ledger::compare(&ledger::read(&books)?, &events::read(&recording)?)?;
    eprintln!("{agreement:?}");
    Ok(agreement)
}

fn every_function(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "basic", 0)?;
    ensure!(agreement.calls > 800, "{agreement:?}");
    Ok(())
}

fn failing_calls(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "fail", 0)?;
    ensure!(agreement.calls >= 260, "{agreement:?}");
    Ok(())
}

fn random_calls(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "seeded", 100_000)?;
    ensure!(agreement.calls > 60_000, "{agreement:?}");
    Ok(())
}

fn threads_free_each_others_blocks(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "threads", 20_000)?;
    ensure!(agreement.threads == 5, "{agreement:?}");
    Ok(())
}

fn threads_come_and_go(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "churn", 0)?;
    ensure!(agreement.threads > 100, "{agreement:?}");
    Ok(())
}

/// The BPF programs keep what a thread is at by the lowest bits of its id, as long as no other one has these.
fn threads_whose_ids_end_alike(backend: Backend) -> Result<()> {
    const ROUNDS: usize = 20_000;
    let dir = place::scratch()?;
    let recording = dir.path().join("alike.mfrag");
    let mut target = Command::new(place::program("same_place")?);
    let (ended, report) = traced(backend, &recording, target.arg(ROUNDS.to_string()))?;
    ensure!(ended.code() == 0, "the program itself failed:\n{}", ended.stderr);
    report.every_free_matched()?;
    let tids: Vec<u32> = ended.text().split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(tids.len() == 2 && (tids[0] ^ tids[1]).is_multiple_of(4096), "{tids:?}");
    let mut made: HashMap<(u32, u64), usize> = HashMap::new();
    for event in events::read(&recording)? {
        if let Op::Alloc { size, addr, .. } | Op::ReallocEnd { size, addr, .. } = event.op
            && [1001, 2002, 10010, 20020].contains(&size)
        {
            ensure!(addr != 0, "{event:?}");
            *made.entry((event.tid, size)).or_default() += 1;
        }
    }
    let expected = [(tids[0], 1001), (tids[0], 10010), (tids[1], 2002), (tids[1], 20020)];
    ensure!(made == expected.map(|key| (key, ROUNDS)).into(), "{made:?}");
    Ok(())
}

fn forks(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "basic,fork", 0)?;
    ensure!(agreement.threads == 5, "{agreement:?}");
    Ok(())
}

fn forks_among_busy_threads(backend: Backend) -> Result<()> {
    ledger(backend, "forkbusy", 20_000)?;
    Ok(())
}

fn jumps_out_of_signal_handlers(backend: Backend) -> Result<()> {
    ledger(backend, "jump,seeded", 2_000)?;
    Ok(())
}

fn jumps_out_of_the_allocator(backend: Backend) -> Result<()> {
    let agreement = ledger(backend, "mapjump,basic,seeded", 2_000)?;
    ensure!(agreement.abandoned > 0, "the timer never struck inside a call: {agreement:?}");
    Ok(())
}

fn exec_of_itself(backend: Backend) -> Result<()> {
    ledger(backend, "seeded,exec,basic,fork,exec,seeded,threads", 2_000)?;
    Ok(())
}

fn a_library_that_comes_and_goes(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let plugin = place::compile("dlopen_alloc", "plugin.so", &["-DPLUGIN", "-shared", "-fPIC"])?;
    let mut target = Command::new(place::program("dlopen_alloc")?);
    target.arg(plugin);
    let recording = dir.path().join("r.mfrag");
    let (ended, report) = traced(backend, &recording, &target)?;
    ensure!(ended.code() == 0 && ended.text() == "1000 blocks\n", "{ended:?}");
    report.every_free_matched()?;
    let blocks = |op: Op| matches!(op, Op::Alloc { function: Function::Calloc, size: 100..150, .. });
    let found = events::read(&recording)?.iter().filter(|event| blocks(event.op)).count();
    ensure!(found >= 1000, "{found} of the library's 1000 blocks were recorded");
    Ok(())
}

/// A call with everything that changes from run to run taken out: blocks are numbered as they come, and sites are
/// counted from the start of the program's code.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    function: Function,
    input: Option<usize>,
    output: Option<usize>,
    size: u64,
    site: u64,
}

/// The program's own calls and its blocks alive at the end, and the report's totals.
fn plain(backend: Backend, dir: &Path) -> Result<(Vec<Plain>, Vec<usize>, serde_json::Value)> {
    let books = dir.join(backend.name());
    std::fs::create_dir(&books)?;
    let recording = dir.join(backend.name()).with_extension("mfrag");
    let mut target = Command::new(place::program("ledger")?);
    target.arg(&books).arg("basic,seeded").args(["11", "20000"]);
    let (ended, report) = traced(backend, &recording, &target)?;
    ensure!(ended.code() == 0, "{ended:?}");
    let books = ledger::read(&books)?;
    let [book] = &books[..] else { anyhow::bail!("one thread kept {} books", books.len()) };
    let mut threads = ledger::calls(&events::read(&recording)?, |_, site| book.text.contains(&site))?;
    let calls: Vec<Call> = threads.remove(&book.thread).context("no calls")?;
    let mut numbers: HashMap<u64, usize> = HashMap::new();
    let mut made = 0;
    let mut list = Vec::new();
    for call in calls {
        let failed = call.function == Function::Realloc && call.output == 0 && call.size != 0;
        let input = if failed { numbers.get(&call.input).copied() } else { numbers.remove(&call.input) };
        let output = (call.output != 0).then(|| {
            made += 1;
            numbers.insert(call.output, made);
            made
        });
        list.push(Plain { function: call.function, input, output, size: call.size, site: call.site - book.text.start });
    }
    let mut alive: Vec<usize> = numbers.into_values().collect();
    alive.sort_unstable();
    Ok((list, alive, process_totals(&report)?))
}

fn process_totals(report: &Report) -> Result<serde_json::Value> {
    let processes = report.processes("ledger");
    ensure!(processes.len() == 1, "{} processes are named ledger", processes.len());
    Ok(processes[0].clone())
}

fn both_backends_say_the_same() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let (ebpf, ebpf_alive, ebpf_report) = plain(Backend::Ebpf, dir.path())?;
    let (preload, preload_alive, preload_report) = plain(Backend::Preload, dir.path())?;
    ensure!(ebpf.len() == preload.len(), "{} calls by probes, {} by the library", ebpf.len(), preload.len());
    if let Some(at) = (0..ebpf.len()).find(|&at| ebpf[at] != preload[at]) {
        anyhow::bail!("call {at} is {:x?} by probes and {:x?} by the library", ebpf[at], preload[at]);
    }
    ensure!(ebpf_alive == preload_alive, "other blocks are alive at the end");
    for path in ["/totals/allocations", "/totals/frees", "/totals/reallocations", "/end/live_blocks"] {
        let (left, right) = (ebpf_report.pointer(path), preload_report.pointer(path));
        ensure!(left.is_some() && left == right, "{path} is {left:?} by probes and {right:?} by the library");
    }
    Ok(())
}

/// A program whose segment grows, is cut by frees and by `malloc_trim`, and grows again; and another program after it.
const GROWS: &str = "
import ctypes, os, sys
for turn in range(3):
    blocks = [bytes(1000 + i % 7000) for i in range(4000)]
    kept = blocks[::50]
    del blocks
    ctypes.CDLL(None).malloc_trim(0)
    del kept
if len(sys.argv) == 1:
    os.execv(sys.executable, [sys.executable, '-c', open('/proc/self/cmdline').read().split(chr(0))[2], 'again'])
";

fn both_backends_see_the_segment_grow() -> Result<()> {
    Backend::Ebpf.require()?;
    let dir = place::scratch()?;
    let seen = Backend::ALL.map(|backend| -> Result<(i64, [u64; 3])> {
        let recording = dir.path().join(backend.name());
        let mut target = Command::new(place::tool("python3")?);
        target.args(["-c", GROWS]).env("PYTHONMALLOC", "malloc").env("PYTHONHASHSEED", "0");
        let (ended, report) = traced(backend, &recording, &target)?;
        ensure!(ended.code() == 0, "{ended:?}");
        let process = &report.0["processes"][0];
        let growth = process["mapped"]["brk_growth_bytes"].as_i64().context("no growth of the segment")?;
        let number = |name| report.number(&format!("/processes/0/end/metrics/avoidable_growth/{name}"));
        Ok((growth, [number("growths")?, number("count")?, number("bytes")?]))
    });
    let [ebpf, preload] = seen;
    let ((ebpf, ebpf_growths), (preload, preload_growths)) = (ebpf?, preload?);
    eprintln!("{ebpf} bytes, {ebpf_growths:?} by probes; {preload} bytes, {preload_growths:?} by the library");
    ensure!(ebpf > 1 << 20 && ebpf.abs_diff(preload) <= 1 << 18, "{ebpf} bytes by probes, {preload} by the library");
    // A cut that no call of the program's stands behind is seen at its next call, together with what that one did.
    let close = ebpf_growths.iter().zip(preload_growths).take(2).all(|(left, right)| left.abs_diff(right) <= 12);
    ensure!(close && ebpf_growths[0] > 300, "{ebpf_growths:?} by probes, {preload_growths:?} by the library");
    Ok(())
}
