//! `memfrag trace`: record every allocation of a process, a command, or the machine.

use super::args::TraceArgs;
use super::backend::{self, Backend, Started};
use super::checkpointer::Checkpointer;
use super::dashboard::Dashboard;
use super::progress::Progress;
use super::tally::Tally;
use super::walks::Walks;
use anyhow::{Context, Result};
use memfrag::capture::launch::{Child, Held, exit_code};
use memfrag::recording::{Header, Status, Writer};
use memfrag::report::units;
use memfrag::server::import;
use memfrag::target::process;
use memfrag_common::loss::Counter;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long one look at the ring waits.
const LOOK: Duration = Duration::from_millis(5);
/// How often counters go into the recording.
const COUNT: Duration = Duration::from_secs(1);
/// How long events may wait for the disk while somebody looks.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long the command may take to end after Ctrl-C, which it gets too, while it is still traced.
const GRACE: Duration = Duration::from_millis(500);

/// Runs the verb and returns the exit status.
pub(super) fn run(args: &TraceArgs) -> Result<u8> {
    let stop = on_signals()?;
    let mut tally = Tally::default();
    let Started { backend, mut capture, held, target, notes } = backend::start(args, &mut tally)?;
    let pid = held.as_ref().map_or_else(|| args.pid.first().copied().unwrap_or(0), Held::pid);
    let output = (!args.no_record).then(|| args.output.clone().unwrap_or_else(|| default_name(args, pid)));
    let mut dashboard = match record(args, output.as_deref(), &header(backend, args), &mut tally) {
        Ok(dashboard) => dashboard,
        Err(error) => {
            if let Some(held) = held {
                held.abandon();
            }
            return Err(error);
        }
    };
    let say = |text: &str| {
        if !args.quiet {
            eprintln!("memfrag: {text}");
        }
    };
    for note in &notes {
        say(note);
    }
    let mut walks = Walks::new(args);
    walks.begin(capture.as_mut(), &mut tally, &say)?;
    let mut child = match held {
        Some(held) => Some(backend::release(held, args).inspect_err(|_| {
            if let Some(path) = &output {
                let _ = std::fs::remove_file(path);
            }
        })?),
        None => None,
    };
    if let Some(child) = &child {
        walks.launched(child.pid());
    }
    say(&format!("tracing {target}; Ctrl-C ends the trace"));

    let mut progress = Progress::new(!args.quiet);
    let begin = Instant::now();
    let mut last_count = begin;
    let mut status = None;
    let mut asked = None;
    loop {
        capture.poll(&mut tally, LOOK)?;
        let now = capture.now();
        tally.tick(now);
        walks.after_losses(capture.as_mut(), &mut tally, &say);
        if last_count.elapsed() >= COUNT {
            tally.counters(&capture.counters());
            last_count = Instant::now();
        }
        progress.show(&tally, begin.elapsed());
        dashboard.as_mut().map(Dashboard::check);
        if let Some(child) = &mut child {
            status = child.try_wait().context("waiting for the command")?;
            if let Some(status) = status {
                capture.exited(child.pid(), status);
                break;
            }
        } else if !args.system && args.pid.iter().all(|&pid| has_ended(pid)) {
            break;
        }
        if args.duration.is_some_and(|duration| begin.elapsed() >= duration) {
            break;
        }
        if stop.load(Ordering::Relaxed) && asked.is_none() {
            asked = Some(Instant::now());
        }
        if asked.is_some_and(|asked: Instant| child.is_none() || asked.elapsed() >= GRACE) {
            break;
        }
    }
    progress.finish();
    if status.is_none() {
        walks.end(capture.as_mut(), &mut tally);
    }
    let end = capture.now();
    let stopped = capture.stop(&mut tally);
    let counters = capture.counters();
    tally.counters(&counters);
    drop(capture);
    tell_of_nobody(args, &tally, &say);
    summarize(&mut tally, output.as_deref(), end, status, &counters, backend, &say)?;
    stopped?;
    let failure = tally.failure();
    if let Some(path) = output.as_deref().filter(|_| args.json) {
        super::report::print_json(path, None)?;
    }
    if let Some(dashboard) = dashboard {
        dashboard.stay("trace", &stop, &say);
    }
    let status = wait_for(child, status, &say)?;
    match (failure, status) {
        (Some(reason), None) => Err(anyhow::anyhow!("{reason}")),
        (Some(reason), Some(status)) => {
            eprintln!("memfrag: {reason}");
            Ok(status)
        }
        (None, status) => Ok(status.unwrap_or(0)),
    }
}

/// Says so where the trace was limited to processes that there were not.
fn tell_of_nobody(args: &TraceArgs, tally: &Tally, say: &dyn Fn(&str)) {
    if let Some(wanted) = args.wanted().filter(|_| tally.processes() == 0) {
        say(&format!("no process ran a program named {wanted}, so nothing was recorded"));
    }
}

/// Begins the recording and, if that was asked for, the dashboard that follows it.
fn record(args: &TraceArgs, output: Option<&Path>, header: &Header, tally: &mut Tally) -> Result<Option<Dashboard>> {
    let Some(path) = output else {
        let Some(wanted) = args.serving.serve else { return Ok(None) };
        let file = import::nameless().context("making a file for the dashboard to follow")?;
        // Opened anew, since who follows it must not be able to write.
        let read = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).context("opening that file again")?;
        let writer = Writer::on(file, Path::new("a file without a name"), header)?;
        let dashboard = Dashboard::start(wanted, &args.serving, &read, "live".to_owned())?;
        tally.record(followed(writer), Checkpointer::default());
        return Ok(Some(dashboard));
    };
    let writer = Writer::create(path, header)
        .map_err(|error| anyhow::anyhow!("{error}; -o FILE records to another place, --no-record not at all"))?;
    let checkpointer = Checkpointer::new(args, path, writer.checkpoints());
    let Some(wanted) = args.serving.serve else {
        tally.record(writer, checkpointer);
        return Ok(None);
    };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let dashboard = File::open(path)
        .with_context(|| format!("opening {} again", path.display()))
        .and_then(|read| Dashboard::start(wanted, &args.serving, &read, name))
        // Nothing is in it, and nothing will be.
        .inspect_err(|_| drop(std::fs::remove_file(path)))?;
    tally.record(followed(writer), checkpointer);
    Ok(Some(dashboard))
}

/// Somebody looks at what is written, as it is written.
fn followed(mut writer: Writer) -> Writer {
    writer.set_patience(PATIENCE);
    writer
}

/// Waits for a command that outlives its trace, so that its status can be passed on.
fn wait_for(child: Option<Child>, status: Option<i32>, say: &dyn Fn(&str)) -> Result<Option<u8>> {
    let Some(mut child) = child else { return Ok(None) };
    if let Some(status) = status {
        return Ok(Some(exit_code(status)));
    }
    say(&format!("the command (process {}) goes on untraced; Ctrl-C gives up waiting for it", child.pid()));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(exit_code(status)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ctrl-C and SIGTERM ask for the end; a second one gives up at once. What comes together with the first is the same
/// wish: `timeout` signals a process and then its group.
pub(super) fn on_signals() -> Result<Arc<AtomicBool>> {
    const SAME_WISH: Duration = Duration::from_millis(300);
    let stop = Arc::new(AtomicBool::new(false));
    let gives_up = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(super::FAILED), Arc::clone(&gives_up))
            .context("installing a signal handler")?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("installing a signal handler")?;
    }
    let asked = Arc::clone(&stop);
    std::thread::Builder::new()
        .name("memfrag-signals".to_owned())
        .spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(SAME_WISH / 6);
            }
            std::thread::sleep(SAME_WISH);
            gives_up.store(true, Ordering::Relaxed);
        })
        .context("starting a thread")?;
    Ok(stop)
}

fn has_ended(pid: u32) -> bool {
    process::Stat::read(pid).map_or(true, |stat| stat.has_ended())
}

fn header(backend: Backend, args: &TraceArgs) -> Header {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Header {
        backend: backend.name().to_owned(),
        started_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        clock: "CLOCK_MONOTONIC".to_owned(),
        memfrag_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: read("/proc/sys/kernel/osrelease"),
        machine: std::env::consts::ARCH.to_owned(),
        hostname: read("/proc/sys/kernel/hostname"),
        command: args.command.clone(),
        page_size: 4096,
    }
}

/// `memfrag.NAME.PID.mfrag` in the current folder.
fn default_name(args: &TraceArgs, pid: u32) -> PathBuf {
    let name = match args.command.first() {
        Some(command) => Path::new(command).file_name().unwrap_or(command).to_string_lossy().into_owned(),
        None if args.system => return PathBuf::from("memfrag.system.mfrag"),
        None => process::Stat::read(pid).map(|stat| stat.comm).unwrap_or_default(),
    };
    let name = name.replace(['/', ' '], "_");
    PathBuf::from(format!("memfrag.{name}.{pid}.mfrag"))
}

fn summarize(
    tally: &mut Tally,
    output: Option<&Path>,
    end: u64,
    status: Option<i32>,
    counters: &[(Option<u32>, memfrag::capture::Counters)],
    backend: Backend,
    say: &dyn Fn(&str),
) -> Result<()> {
    let seconds = end as f64 / 1e9;
    // Gaps and counters tell of the same events; neither may know of all.
    let counted: u64 = Counter::ALL.iter().filter(|counter| counter.is_loss()).map(|&one| total(counters, one)).sum();
    let lost = tally.lost().max(counted);
    let summary = tally.finish(end, status)?;
    let lost = lost + summary.as_ref().map_or(0, |summary| summary.not_recorded);
    let losses = if lost == 0 { "none lost".to_owned() } else { format!("{} LOST", units::count(lost)) };
    say(&format!(
        "{} of {} in {seconds:.1} s, {losses}",
        units::plural(tally.events(), "event", "events"),
        match tally.processes() {
            1 => "one process".to_owned(),
            processes => format!("{processes} processes"),
        }
    ));
    for counter in [
        Counter::Dropped,
        Counter::ThreadMapFull,
        Counter::Waited,
        Counter::StackCut,
        Counter::StackLost,
        Counter::MappingsLost,
    ] {
        let total = total(counters, counter);
        if total > 0 {
            say(&format!("{} {}", units::count(total), counter.describe()));
        }
    }
    if backend == Backend::Ebpf && tally.events() as f64 / seconds.max(0.1) > 200_000.0 {
        say("at this rate probes are felt: --backend preload costs a launched command several times less");
    }
    let (Some(path), Some(summary)) = (output, summary) else { return Ok(()) };
    let each = match summary.events {
        // The file's own parts would weigh more than the events.
        0..1000 => String::new(),
        events => format!(", {:.1} bytes an event", summary.bytes as f64 / events as f64),
    };
    say(&format!(
        "recorded in {} ({}{each}); see it with: memfrag report {}",
        path.display(),
        units::bytes(summary.bytes),
        path.display()
    ));
    tally.checkpoints(&summary).iter().for_each(|line| say(line));
    Ok(())
}

/// What was counted in all processes together. A backend that also counts for each process gives both.
fn total(counters: &[(Option<u32>, memfrag::capture::Counters)], counter: Counter) -> u64 {
    counters.iter().filter(|(pid, _)| pid.is_none()).map(|(_, values)| values[counter as usize]).sum()
}

/// Why the recording stopped early, if it did.
pub(super) fn failure_of(status: &Status) -> Option<String> {
    match status {
        Status::Recording => None,
        Status::Stopped { reason, not_recorded } => {
            let missing = units::plural(*not_recorded, "event is", "events are");
            Some(format!("{reason}; {missing} not in the recording, which is valid up to there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_counted_a_second_time() {
        let counted = |waits: u64| {
            let mut counters = [0; memfrag_common::loss::COUNTERS];
            counters[Counter::Waited as usize] = waits;
            counters
        };
        let counters = [(None, counted(10)), (Some(7), counted(4)), (Some(8), counted(6))];
        assert_eq!(total(&counters, Counter::Waited), 10);
        assert_eq!(total(&counters, Counter::Dropped), 0);
    }
}
