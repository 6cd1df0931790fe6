//! Checkpoints of long recordings: what is read from them is what is read without, and nothing depends on them.

use crate::crash::SmallDisk;
use anyhow::{Context, Result, ensure};
use memfrag::recording::Reader;
use memfrag::report::checkpoint;
use memfrag_tests::dashboard::Dashboard;
use memfrag_tests::memfrag::{Backend, memfrag, require_root, trace};
use memfrag_tests::process::{self, Ended, Running, until};
use memfrag_tests::{place, tests, tests_on_both};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

tests_on_both!(any_moment_is_the_same_from_a_checkpoint, a_killed_trace_leaves_its_checkpoints_and_nobody_behind);

tests!(
    a_file_cut_within_a_checkpoint_is_as_good_as_without,
    a_trace_goes_on_without_its_maker,
    the_maker_has_no_rights,
    a_full_disk_costs_no_more_than_what_did_not_fit,
    a_busy_machine_is_told,
    none_are_made_where_none_are_wanted,
);

/// Calls of one wave of `programs/waves.c`: more events than are between two checkpoints.
const CALLS: u64 = 10_500_000;
/// What is waited for takes a build without optimisation a minute, with others at work.
const LIMIT: Duration = Duration::from_mins(4);

/// A trace of the program, that can be told what to do.
struct Waves {
    memfrag: Running,
    dir: PathBuf,
    recording: PathBuf,
}

impl Waves {
    fn start(backend: Backend, dir: &Path, recording: &Path, words: &[&str]) -> Result<Self> {
        let mut target = Command::new(place::program("waves")?);
        target.arg(dir).arg(CALLS.to_string());
        let traced = trace(backend, recording, &target)?;
        let mut command = Command::new(traced.get_program());
        let mut given: Vec<_> = traced.get_args().collect();
        // Behind the verb.
        given.splice(1..1, words.iter().map(AsRef::as_ref));
        let memfrag = Running::start(command.args(given))?;
        Ok(Self { memfrag, dir: dir.to_path_buf(), recording: recording.to_path_buf() })
    }

    fn wait_for(&mut self, what: &str, mut ready: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        until(what, LIMIT, || {
            ensure!(self.memfrag.alive()?, "memfrag ended early: {}", self.memfrag.stderr()?);
            ready(self)
        })
    }

    /// Waits until all calls of a wave are made.
    fn wave(&mut self, number: u32) -> Result<()> {
        let done = self.dir.join(format!("done.{number}"));
        self.wait_for("a wave is over", |_| Ok(done.exists()))
    }

    /// Waits until the recording has a whole checkpoint, whatever else this machine does.
    fn checkpoint(&mut self) -> Result<()> {
        let maker = self.maker()?;
        self.wait_for("there is a checkpoint", |waves| {
            process::run_as_others(maker);
            std::thread::sleep(Duration::from_millis(100));
            Ok(!whole_checkpoints(&waves.recording)?.is_empty())
        })
    }

    /// The process that makes checkpoints, once there is one.
    fn maker(&mut self) -> Result<u32> {
        let mut maker = None;
        let memfrag = self.memfrag.pid();
        self.wait_for("checkpoints are made", |_| {
            maker = maker_of(memfrag)?;
            Ok(maker.is_some())
        })?;
        maker.context("nobody makes checkpoints")
    }

    fn tell(&self, word: &str) -> Result<()> {
        File::create(self.dir.join(word))?;
        Ok(())
    }

    /// Has the program end, and waits for memfrag.
    fn end(self) -> Result<Ended> {
        self.tell("end")?;
        self.memfrag.wait(LIMIT)
    }
}

fn maker_of(memfrag: u32) -> Result<Option<u32>> {
    let children = fs::read_to_string(format!("/proc/{memfrag}/task/{memfrag}/children"))?;
    let mut children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    let makes = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("checkpoint-inherited"))
    };
    Ok(children.find(makes))
}

/// Events before the places of the checkpoints that can be gone on from, and their times; the last one first.
fn whole_checkpoints(recording: &Path) -> Result<Vec<(u64, u64)>> {
    let reader = Reader::follow(File::open(recording)?, recording)?;
    let found = reader.checkpoints_before(u64::MAX, u64::MAX);
    let whole = found.filter(|found| checkpoint::restore(&reader, found).is_some());
    Ok(whole.map(|found| (found.mark().event(), found.mark().latest())).collect())
}

/// The chunks of checkpoints, as FORMAT.md describes them.
fn checkpoint_chunks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    const START: &[u8] = b"\xf6MFchunk\x04\0\0\0";
    let word =
        |at: usize| bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap_or([0; 4])));
    let starts = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(START));
    starts.map(|at| at..at + 64 + word(at + 16) as usize + word(at + 20) as usize).collect()
}

/// A recording twice, under the same name: as it is, and with its checkpoints spoilt, so that nobody can use them.
struct Both {
    dir: tempfile::TempDir,
}

impl Both {
    fn of(bytes: &[u8]) -> Result<Self> {
        let dir = place::scratch()?;
        for name in ["with", "without"] {
            fs::create_dir(dir.path().join(name))?;
        }
        fs::write(dir.path().join("with/r.mfrag"), bytes)?;
        let mut bytes = bytes.to_vec();
        for chunk in checkpoint_chunks(&bytes) {
            if let Some(last) = bytes.get_mut(chunk.end - 1) {
                *last ^= 0x55;
            }
        }
        fs::write(dir.path().join("without/r.mfrag"), bytes)?;
        let both = Self { dir };
        ensure!(whole_checkpoints(&both.path("without"))?.is_empty(), "a spoilt checkpoint counts as whole");
        Ok(both)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("r.mfrag")
    }

    fn checkpoints(&self) -> Result<Vec<(u64, u64)>> {
        whole_checkpoints(&self.path("with"))
    }

    /// What memfrag prints about both, which must be the same.
    fn same(&self, words: &[&str]) -> Result<Vec<u8>> {
        let run = |name: &str| {
            let mut command = memfrag(words)?;
            command.arg("r.mfrag").current_dir(self.dir.path().join(name));
            anyhow::Ok(process::run(&mut command)?.success()?.stdout)
        };
        let (with, without) = (run("with")?, run("without")?);
        if with != without {
            let (with, without) = (String::from_utf8_lossy(&with), String::from_utf8_lossy(&without));
            let differ = with.lines().zip(without.lines()).find(|(with, without)| with != without);
            anyhow::bail!("{words:?} is not the same from a checkpoint: {differ:?}");
        }
        ensure!(!with.is_empty(), "{words:?} prints nothing");
        Ok(with)
    }

    /// What is told at a moment, in nanoseconds since the trace began.
    fn same_at(&self, at: u64) -> Result<Value> {
        let at = format!("{at}ns");
        Ok(serde_json::from_slice(&self.same(&["report", "--json", "--at", &at])?)?)
    }
}

fn any_moment_is_the_same_from_a_checkpoint(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut waves = Waves::start(backend, dir.path(), &dir.path().join("r.mfrag"), &[])?;
    waves.wave(0)?;
    waves.checkpoint()?;
    let (recording, ended) = (waves.recording.clone(), waves.end()?);
    ensure!(ended.code() == 0, "{ended:?}");
    ensure!(ended.stderr.contains("checkpoint") && ended.stderr.contains("of memory"), "{}", ended.stderr);
    let both = Both::of(&fs::read(&recording)?)?;
    let checkpoints = both.checkpoints()?;
    let (event, time) = *checkpoints.last().context("no checkpoint")?;
    let whole: Value = serde_json::from_slice(&both.same(&["report", "--json"])?)?;
    let total = whole["events"]["total"].as_u64().context("no events")?;
    let end = whole["recording"]["duration_ns"].as_u64().context("no end")?;
    ensure!(event <= total && time <= end, "{checkpoints:?} of {total} events in {end} ns");
    eprintln!("{} checkpoints of {total} events: {checkpoints:?}", checkpoints.len());
    let mut moments = vec![0, time / 2, time - 1, time, time + 1, end - 1, end, end * 2];
    moments.extend((1..8).map(|part| time + (end - time) * part / 8));
    let mut before = 0;
    moments.sort_unstable();
    for at in moments {
        let report = both.same_at(at)?;
        let events = report["events"]["total"].as_u64().context("no events")?;
        ensure!(events >= before && events <= total, "{events} events at {at}");
        before = events;
    }
    ensure!(before == total, "{before} of {total} events at the end");
    both.same(&["report"])?;
    both.same(&["blame", "--json"])?;
    // At its end the program holds as little as the process that it started.
    let pid = whole["processes"][0]["pid"].as_u64().context("no process")?;
    served(&both, pid, time, end)
}

/// Seeks in both to the same moments, and compares what is told there.
fn served(both: &Both, pid: u64, time: u64, end: u64) -> Result<()> {
    let told = |name: &str| {
        let dashboard = Dashboard::start(memfrag(&["serve", "--addr", "0"])?.arg(both.path(name)))?;
        let (mut client, hello) = dashboard.connect()?;
        client.say(&json!({ "type": "watch", "source": 0, "pid": pid }))?;
        let at_its_end =
            |status: &Value| status["pid"] == pid && status["state"] == "ended" && status["behind"] == false;
        let status = client.wait("status", at_its_end)?;
        let mut told = vec![hello["sources"][0]["events"].clone(), pick(&status)];
        for (id, at) in (1..).zip([time + (end - time) / 2, time, time / 2, end - 1]) {
            client.say(&json!({ "type": "cursor", "command": "seek", "at_ns": at }))?;
            let there =
                |status: &Value| status["state"] == "paused" && status["behind"] == false && status["at_ns"] == at;
            told.push(pick(&client.wait("status", there)?));
            told.push(client.ask(id * 2, "report", json!({}))?);
            told.push(client.ask(id * 2 + 1, "distributions", json!({}))?);
        }
        let ended = dashboard.stop()?;
        ensure!(ended.code() == 0, "{ended:?}");
        Ok(told)
    };
    let (with, without) = (told("with")?, told("without")?);
    let differ = with.iter().zip(&without).find(|(with, without)| with != without);
    ensure!(differ.is_none(), "the dashboard tells something else from a checkpoint: {differ:?}");
    Ok(())
}

/// What a status says of the heap; the rest is of the server.
fn pick(status: &Value) -> Value {
    let of_heap =
        ["at_ns", "end_ns", "events", "live_blocks", "live_bytes", "peak_bytes", "lost", "rss_bytes", "taken_bytes"];
    of_heap.iter().map(|&name| status[name].clone()).collect()
}

/// Ends a program whose tracer was killed.
struct Orphan(PathBuf);

impl Drop for Orphan {
    fn drop(&mut self) {
        // It looks for this.
        let _ = File::create(self.0.join("end"));
    }
}

fn a_killed_trace_leaves_its_checkpoints_and_nobody_behind(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let mut waves = Waves::start(backend, dir.path(), &dir.path().join("r.mfrag"), &[])?;
    let _orphan = Orphan(dir.path().to_path_buf());
    let maker = waves.maker()?;
    waves.wave(0)?;
    waves.checkpoint()?;
    // While it goes through more.
    waves.tell("go.0")?;
    std::thread::sleep(Duration::from_millis(300));
    waves.memfrag.signal(libc::SIGKILL)?;
    until("the process that makes checkpoints ends", Duration::from_secs(5), || Ok(!process::exists(maker)))?;
    until("memfrag is dead", Duration::from_secs(5), || Ok(!waves.memfrag.alive()?))?;
    let both = Both::of(&fs::read(&waves.recording)?)?;
    let (_, time) = *both.checkpoints()?.first().context("no checkpoint is left")?;
    let report: Value = serde_json::from_slice(&both.same(&["report", "--json"])?)?;
    ensure!(report["recording"]["complete"] == false, "{}", report["recording"]);
    both.same_at(time + 1)?;
    Ok(())
}

fn a_file_cut_within_a_checkpoint_is_as_good_as_without() -> Result<()> {
    let dir = place::scratch()?;
    let mut waves = Waves::start(Backend::Preload, dir.path(), &dir.path().join("r.mfrag"), &[])?;
    waves.wave(0)?;
    waves.checkpoint()?;
    let (recording, ended) = (waves.recording.clone(), waves.end()?);
    ensure!(ended.code() == 0, "{ended:?}");
    let bytes = fs::read(&recording)?;
    let chunks = checkpoint_chunks(&bytes);
    let first = chunks.first().context("no checkpoint")?.clone();
    for length in [first.start, first.start + 1, first.start + 64, first.end - 1, first.end, first.end + 100] {
        let both = Both::of(&bytes[..length])?;
        let whole = both.checkpoints()?.len();
        ensure!(
            whole == usize::from(length >= first.end && chunks.len() == 1) || chunks.len() > 1,
            "{whole} at {length}"
        );
        let report: Value = serde_json::from_slice(&both.same(&["report", "--json"])?)?;
        ensure!(report["recording"]["complete"] == false, "cut to {length}: {}", report["recording"]);
        ensure!(report["events"]["total"].as_u64() > Some(1 << 23), "cut to {length}: {}", report["events"]);
    }
    Ok(())
}

fn a_trace_goes_on_without_its_maker() -> Result<()> {
    let dir = place::scratch()?;
    let mut waves = Waves::start(Backend::Preload, dir.path(), &dir.path().join("r.mfrag"), &[])?;
    let maker = waves.maker()?;
    process::send(maker, libc::SIGKILL)?;
    waves.wave(0)?;
    let (recording, ended) = (waves.recording.clone(), waves.end()?);
    ensure!(ended.code() == 0, "{ended:?}");
    ensure!(ended.stderr.contains("has died"), "nobody says that it was killed: {}", ended.stderr);
    ensure!(!process::exists(maker) && whole_checkpoints(&recording)?.is_empty(), "it made one all the same");
    memfrag_tests::memfrag::Report::of(&recording)?.nothing_lost()
}

fn the_maker_has_no_rights() -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let mut waves = Waves::start(Backend::Preload, dir.path(), &dir.path().join("r.mfrag"), &[])?;
    let maker = waves.maker()?;
    let mut status = String::new();
    let read = |what: &str| fs::read_to_string(format!("/proc/{maker}/{what}"));
    waves.wait_for("it has given up its rights", |_| {
        status = read("status")?;
        Ok(status.lines().any(|line| line.starts_with("NoNewPrivs:") && line.ends_with('1')))
    })?;
    for line in status.lines().filter(|line| line.starts_with("Cap")) {
        ensure!(line.ends_with("0000000000000000"), "{line}");
    }
    let uid = status.lines().find(|line| line.starts_with("Uid:")).context("no user")?;
    ensure!(uid.split_ascii_whitespace().skip(1).all(|id| id != "0"), "{uid}");
    // Field 41, counted behind the name in brackets: SCHED_IDLE.
    waves.wait_for("it runs while a processor is idle", |_| {
        let stat = read("stat")?;
        let policy = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(38));
        Ok(policy == Some("5"))
    })?;
    waves.wave(0)?;
    ensure!(waves.end()?.code() == 0, "the trace failed");
    Ok(())
}

fn a_full_disk_costs_no_more_than_what_did_not_fit() -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let disk = SmallDisk::mount(&dir.path().join("disk"), "110m")?;
    let mut waves = Waves::start(Backend::Preload, dir.path(), &disk.path().join("r.mfrag"), &[])?;
    waves.wave(0)?;
    waves.checkpoint()?;
    let maker = waves.maker()?;
    let mut number = 0;
    while !waves.memfrag.stderr()?.contains("No space left") && number < 8 {
        waves.tell(&format!("go.{number}"))?;
        number += 1;
        waves.wave(number)?;
    }
    let (recording, ended) = (waves.recording.clone(), waves.end()?);
    ensure!(ended.code() == 0, "{ended:?}");
    ensure!(ended.stderr.to_lowercase().contains("no space left"), "not a word of the disk: {}", ended.stderr);
    ensure!(!process::exists(maker), "somebody makes checkpoints still");
    let both = Both::of(&fs::read(&recording)?)?;
    ensure!(!both.checkpoints()?.is_empty(), "the checkpoint has gone");
    both.same(&["report", "--json"])?;
    Ok(())
}

/// Somebody who wants a processor all the time; ended when dropped.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_busy_machine_is_told() -> Result<()> {
    let dir = place::scratch()?;
    let processors = std::thread::available_parallelism()?.get();
    let spin = || Command::new("/bin/sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().map(Busy);
    let _busy: Vec<Busy> = (0..processors).map(|_| spin()).collect::<Result<_, _>>()?;
    let mut waves = Waves::start(Backend::Preload, dir.path(), &dir.path().join("r.mfrag"), &[])?;
    waves.wave(0)?;
    let (recording, ended) = (waves.recording.clone(), waves.end()?);
    ensure!(ended.code() == 0, "{ended:?}");
    let (made, told) = (whole_checkpoints(&recording)?.len(), ended.stderr.contains("without a checkpoint"));
    eprintln!("{made} made; memfrag wrote:\n{}", ended.stderr);
    ensure!(made > 0 || told, "there is no checkpoint, and nobody says so: {}", ended.stderr);
    memfrag_tests::memfrag::Report::of(&recording)?.nothing_lost()
}

fn none_are_made_where_none_are_wanted() -> Result<()> {
    let dir = place::scratch()?;
    let mut waves =
        Waves::start(Backend::Preload, dir.path(), &dir.path().join("r.mfrag"), &["--checkpoints", "none"])?;
    waves.wave(0)?;
    ensure!(maker_of(waves.memfrag.pid())?.is_none(), "somebody makes checkpoints");
    let (recording, ended) = (waves.recording.clone(), waves.end()?);
    ensure!(ended.code() == 0 && !ended.stderr.contains("checkpoint"), "{ended:?}");
    ensure!(checkpoint_chunks(&fs::read(&recording)?).is_empty(), "there are some");
    Ok(())
}
