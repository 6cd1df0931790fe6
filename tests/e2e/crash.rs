//! memfrag killed, its file cut, its disk full: the target lives on and what was recorded can be read.

use crate::attach::{Service, attached, state, works};
use anyhow::{Context, Result, ensure};
use memfrag_common::{Event, Op};
use memfrag_tests::case::long;
use memfrag_tests::memfrag::{Backend, Report, memfrag, require_root, trace, traced};
use memfrag_tests::process::{self, Running, since_boot, text_restored, until};
use memfrag_tests::{events, place, tests, tests_on_both};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

tests!(killed_while_attached);
tests_on_both!(killed_while_it_runs_a_command, cut_anywhere, full_disk);

/// Numbers that need not be good, only different; from the clock, and shown, so that a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn new() -> Result<Self> {
        let seed = match std::env::var("MEMFRAG_SEED") {
            Ok(seed) => seed.parse().context("MEMFRAG_SEED is no number")?,
            Err(_) => since_boot()?,
        };
        eprintln!("MEMFRAG_SEED={seed}");
        Ok(Self(seed | 1))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

const MARK: u64 = 1 << 20;

/// Milliseconds between the last mark in the events and the moment `at`, by the sizes of the target's marks.
fn missing(events: &[Event], at: u64) -> Result<u64> {
    let mark = events.iter().rev().find_map(|event| match event.op {
        Op::Alloc { size, .. } if (MARK..2 * MARK).contains(&size) => Some(size - MARK),
        _ => None,
    });
    let mark = mark.context("no mark was recorded")?;
    let missing = (at % MARK + MARK - mark) % MARK;
    // The clock is read while the signal is on its way: a mark may still be made and recorded after that.
    Ok(if missing > MARK / 2 { 0 } else { missing })
}

/// At most the last second is lost; writing and reading the clocks take a little as well.
fn at_most_a_second_short(recording: &Path, killed: u64) -> Result<()> {
    let report = Report::of(recording).context("the recording of a killed memfrag")?;
    ensure!(report.0["recording"]["complete"] == false, "a killed memfrag's recording claims to be complete");
    ensure!(report.number("/events/lost")? == 0, "{}", report.0["events"]);
    let events = events::read(recording)?;
    let missing = missing(&events, killed)?;
    eprintln!("{} events, {missing} ms missing", events.len());
    ensure!(missing < 1_200, "the last {missing} ms are missing");
    Ok(())
}

fn rounds() -> u64 {
    if long() { 50 } else { 10 }
}

fn killed_while_attached() -> Result<()> {
    Backend::Ebpf.require()?;
    let mut chance = Chance::new()?;
    let dir = place::scratch()?;
    let mut service = Service::start(dir.path(), "status")?;
    let pid = service.running.pid();
    for round in 0..rounds() {
        let recording = dir.path().join(format!("{round}.mfrag"));
        let memfrag = attached(pid, &recording, &[])?;
        let delay = chance.below(2500);
        std::thread::sleep(Duration::from_millis(delay));
        memfrag.signal(libc::SIGKILL)?;
        let killed = since_boot()?;
        memfrag.wait(Duration::from_secs(10))?;
        text_restored(pid, Duration::from_secs(10)).with_context(|| format!("killed after {delay} ms"))?;
        service.works().with_context(|| format!("killed after {delay} ms"))?;
        // Before the first second is over there may be nothing on disk yet.
        if delay >= 1_200 {
            at_most_a_second_short(&recording, killed).with_context(|| format!("killed after {delay} ms"))?;
        }
        // It may also be struck at any moment of its attaching.
        let memfrag = Running::start(&mut memfrag_tests::memfrag::attach(&recording, pid, &[])?)?;
        std::thread::sleep(Duration::from_millis(chance.below(300)));
        memfrag.signal(libc::SIGKILL)?;
        memfrag.wait(Duration::from_secs(10))?;
        text_restored(pid, Duration::from_secs(10))?;
        service.works()?;
    }
    service.end()?;
    Ok(())
}

/// Ends the service when dropped: it was memfrag's child, and nobody else would.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        if process::exists(self.0) {
            // It may have ended in between; there is nobody to tell about it.
            let _ = process::send(self.0, libc::SIGKILL);
        }
    }
}

fn killed_while_it_runs_a_command(backend: Backend) -> Result<()> {
    let mut chance = Chance::new()?;
    let dir = place::scratch()?;
    let mut sessions = Vec::new();
    for round in 0..rounds() {
        let status = dir.path().join(format!("status{round}"));
        let recording = dir.path().join(format!("{round}.mfrag"));
        let mut target = Command::new(place::program("loop_forever")?);
        target.arg(&status).arg("2");
        let mut memfrag = Running::start(&mut trace(backend, &recording, &target)?)?;
        until("the target works", Duration::from_secs(30), || {
            ensure!(memfrag.alive()?, "memfrag ended at once: {}", memfrag.stderr()?);
            Ok(state(&status).is_ok_and(|state| state.1 > 0))
        })?;
        let orphan = Orphan(state(&status)?.0);
        let delay = chance.below(2500);
        std::thread::sleep(Duration::from_millis(delay));
        // Only memfrag itself: its group holds the target as well.
        memfrag.signal(libc::SIGKILL)?;
        let killed = since_boot()?;
        // The kernel takes the probes off first, library by library; where the processors are busy that takes seconds.
        until("memfrag is dead", Duration::from_secs(30), || Ok(!memfrag.alive()?))?;
        works(&status).with_context(|| format!("killed after {delay} ms"))?;
        if backend == Backend::Ebpf {
            text_restored(orphan.0, Duration::from_secs(10))?;
        }
        if delay >= 1_200 {
            at_most_a_second_short(&recording, killed).with_context(|| format!("killed after {delay} ms"))?;
        }
        process::send(orphan.0, libc::SIGTERM)?;
        until("the target has ended", Duration::from_secs(20), || Ok(!process::exists(orphan.0)))?;
        ensure!(state(&status)?.2 == "ok", "the target found its blocks broken");
        sessions.push(format!("memfrag-{}-", memfrag.pid()));
    }
    // The next session finds what they left.
    let recording = dir.path().join("next.mfrag");
    process::run(&mut trace(Backend::Preload, &recording, &Command::new("true"))?)?.success()?;
    for entry in std::fs::read_dir("/dev/shm")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!sessions.iter().any(|session| name.starts_with(session)), "/dev/shm/{name} was left behind");
    }
    Ok(())
}

fn cut_anywhere(backend: Backend) -> Result<()> {
    let mut chance = Chance::new()?;
    let dir = place::scratch()?;
    let recording = dir.path().join("whole.mfrag");
    let mut target = Command::new(place::program("stress16")?);
    target.arg("3000");
    let (ended, _) = traced(backend, &recording, &target)?;
    ensure!(ended.code() == 0, "{ended:?}");
    let bytes = std::fs::read(&recording)?;
    let whole = events::read(&recording)?;
    let cut = dir.path().join("cut.mfrag");
    let mut lengths: Vec<u64> = (0..200).map(|_| chance.below(bytes.len() as u64)).collect();
    lengths.extend([0, 1, bytes.len() as u64 - 1]);
    lengths.sort_unstable();
    let mut before = 0;
    let mut opened = 0;
    for length in lengths {
        std::fs::write(&cut, &bytes[..usize::try_from(length)?])?;
        // Where even the header is cut, an error is right; where events were read from shorter files, it is not.
        let Ok(events) = events::read(&cut) else {
            ensure!(before == 0 && length < 4096, "cut to {length} bytes, the recording does not open");
            continue;
        };
        ensure!(whole.starts_with(&events), "cut to {length} bytes, the recording has other events");
        ensure!(events.len() >= before, "cut to {length} bytes, it has less than when cut shorter");
        before = events.len();
        opened += 1;
    }
    ensure!(opened > 150 && before > whole.len() / 2, "{opened} opened, {before} of {} events", whole.len());
    // The command as well, where a chunk is cut.
    std::fs::write(&cut, &bytes[..bytes.len() * 2 / 3])?;
    let report = Report::of(&cut)?;
    ensure!(report.0["recording"]["complete"] == false, "a cut recording claims to be complete");
    let mut command = memfrag(&["report"])?;
    process::run(command.arg(&cut))?.success()?;
    Ok(())
}

/// A small file system in memory, unmounted when dropped.
pub(crate) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub(crate) fn mount(at: &Path, size: &str) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "memfrag-e2e"]).arg(at);
        process::run(&mut mount)?.success().context("mount")?;
        Ok(Self(at.to_path_buf()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(ended) = process::run(Command::new("umount").arg(&self.0))
            && ended.code() != 0
        {
            eprintln!("cannot unmount {}: {}", self.0.display(), ended.stderr);
        }
    }
}

fn full_disk(backend: Backend) -> Result<()> {
    require_root()?;
    let dir = place::scratch()?;
    let disk = SmallDisk::mount(&dir.path().join("disk"), "512k")?;
    let recording = disk.0.join("r.mfrag");
    let mut target = Command::new(place::program("stress16")?);
    target.arg("30000");
    let bare = process::run(&mut target)?.success()?;
    let ended = process::run(&mut trace(backend, &recording, &target)?)?;
    ensure!(ended.stdout == bare.stdout, "the target wrote something else");
    ensure!(ended.code() == 0, "status {} instead of the target's; it wrote:\n{}", ended.code(), ended.stderr);
    let message = ended.stderr.to_lowercase();
    ensure!(message.contains("no space left") || message.contains("full"), "not a word of the disk: {message}");
    ensure!(message.contains("r.mfrag"), "the message does not name the file: {message}");
    let events = events::read(&recording)?;
    ensure!(events.len() > 1000, "only {} events in a file of {:?}", events.len(), std::fs::metadata(&recording)?);
    let report = Report::of(&recording)?;
    let lost = report.number("/events/lost")?;
    let told = report.0["recording"]["complete"] == false || lost > 0;
    ensure!(told, "the report hides that the recording stopped: {} {}", report.0["recording"], report.0["events"]);
    Ok(())
}
