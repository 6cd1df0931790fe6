//! The process that makes checkpoints of a recording while it is written.
//!
//! It is one of its own, and without rights, like the dashboard's: it runs only while a processor is idle, and in the
//! tracing process whatever lock it then held, the allocator's for one, would hold up the capture. What it makes comes
//! over a pipe. If it dies, or no processor is ever idle, the recording has fewer checkpoints, and the trace says so.

use super::args::{CheckpointsChoice, InheritArgs, TraceArgs};
use super::dashboard::{self, ENVIRONMENT};
use anyhow::{Context, Result};
use memfrag::capture::idle::{self, Costs};
use memfrag::recording::{Checkpoints, Summary};
use memfrag::report::{checkpoint, units};
use memfrag::server::privilege;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// With so many events it is worth a process. Most recordings remain shorter.
const MANY: u64 = 2 << 20;
/// How long the end of a trace waits for a last checkpoint.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks then.
const LOOK: Duration = Duration::from_millis(2);
/// So many events without a checkpoint are worth a word.
const WORTH_A_WORD: u64 = checkpoint::SPACING;

/// Has the process go through what is left, and end. When its standard input ends instead, the trace is dead or waits
/// no longer, and it ends at once.
const FINISH: &[u8] = b".";

/// Makes checkpoints, once that is worth it.
#[derive(Debug, Default)]
pub(super) struct Checkpointer {
    plan: Option<Plan>,
    running: Option<Running>,
    ended: Option<Ended>,
}

/// How the process ended.
#[derive(Debug)]
struct Ended {
    costs: Costs,
    /// Why, unless it had done all that it could or said itself what was in its way.
    early: Option<Early>,
}

#[derive(Debug)]
enum Early {
    /// It was still at work when the trace had ended.
    AtWork,
    Died(ExitStatus),
}

/// What the process will be started with.
#[derive(Debug)]
struct Plan {
    recording: File,
    checkpoints: Checkpoints,
    quiet: bool,
}

/// The process, and the thread that takes what it makes.
#[derive(Debug)]
struct Running {
    child: Child,
    /// See [`FINISH`].
    stdin: Option<ChildStdin>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// For a recording, if it is to have checkpoints.
    pub(super) fn new(args: &TraceArgs, recording: &Path, checkpoints: Checkpoints) -> Self {
        if args.checkpoints == CheckpointsChoice::None {
            return Self::default();
        }
        // Opened anew, since who follows it must not be able to write.
        let plan = match File::open(recording) {
            Ok(recording) => Some(Plan { recording, checkpoints, quiet: args.quiet }),
            Err(error) => {
                say(args.quiet, &format!("the recording gets no checkpoints: it cannot be read: {error}"));
                None
            }
        };
        Self { plan, running: None, ended: None }
    }

    /// Starts the process when there are enough events. Without it the recording is as good, and opens more slowly.
    pub(super) fn tick(&mut self, events: u64) {
        if let Some(plan) = self.plan.take_if(|_| events >= MANY) {
            let quiet = plan.quiet;
            let started = Running::start(plan);
            let started =
                started.inspect_err(|error| say(quiet, &format!("the recording gets no checkpoints: {error:#}")));
            self.running = started.ok();
        }
    }

    /// Gives it a moment to make a last one, when everything has been given to the writer, and ends it.
    pub(super) fn finish(&mut self) {
        self.plan = None;
        self.ended = self.running.take().map(Running::finish);
    }

    /// What is to be said of the checkpoints of a recording that has ended.
    pub(super) fn told(&self, summary: &Summary) -> Vec<String> {
        self.ended.as_ref().map_or_else(Vec::new, |ended| ended.told(summary))
    }
}

impl Ended {
    fn told(&self, summary: &Summary) -> Vec<String> {
        let (made, costs) = (summary.checkpoints, self.costs);
        let time = |time: Duration| units::duration(time.as_nanos() as u64);
        let mut lines = Vec::new();
        if made.count > 0 {
            let number = units::plural(made.count, "checkpoint", "checkpoints");
            let (bytes, ran, memory) = (units::bytes(made.bytes), time(costs.ran), units::bytes(costs.memory));
            lines.push(format!(
                "it has {number} ({bytes}), made in {ran} of idle processor time with {memory} of memory"
            ));
        }
        let bare = summary.events.saturating_sub(made.event);
        if let Some(early) = self.early.as_ref().filter(|_| bare >= WORTH_A_WORD) {
            let why = match early {
                Early::AtWork => format!(
                    "who makes them had an idle processor for {} and waited {} for one",
                    time(costs.ran),
                    time(costs.waited)
                ),
                Early::Died(status) => format!("who makes them has died ({status})"),
            };
            let bare = units::count(bare);
            lines.push(format!("its last {bare} events open slowly, without a checkpoint: {why}"));
        }
        lines
    }
}

fn say(quiet: bool, text: &str) {
    if !quiet {
        eprintln!("memfrag: {text}");
    }
}

impl Running {
    fn start(plan: Plan) -> Result<Self> {
        let Plan { recording, checkpoints, quiet } = plan;
        // The path itself may name another program by now, after an update.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("memfrag").arg("checkpoint-inherited").arg("--recording").arg(recording.as_raw_fd().to_string());
        command.env_clear().envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        // In a group of its own it does not get the terminal's Ctrl-C: the trace ends first.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/").process_group(0);
        if quiet {
            command.stderr(Stdio::null());
        }
        dashboard::leave_open(&mut command, vec![recording.as_raw_fd()]);
        let mut child = command.spawn().context("starting a process for them")?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut running = Self { child, stdin, thread: None };
        let pass_on = move || {
            // What the process fails at it says itself; what it had written until then is in the recording.
            let _ = stdout.map(|mut stdout| checkpoints.pass_on(&mut stdout));
        };
        let thread = std::thread::Builder::new().name("memfrag-states".into()).spawn(pass_on);
        running.thread = Some(thread.context("starting a thread for them")?);
        Ok(running)
    }
}

impl Running {
    /// Tells it that all is written, and ends it when it has had its moment.
    fn finish(mut self) -> Ended {
        let pid = self.child.id();
        let mut costs = Costs::default();
        if let Some(stdin) = &mut self.stdin {
            // It may have ended already.
            let _ = stdin.write_all(FINISH);
        }
        let asked = Instant::now();
        loop {
            costs.read(pid);
            match self.child.try_wait() {
                Ok(None) if asked.elapsed() < PATIENCE => std::thread::sleep(LOOK),
                Ok(Some(status)) => {
                    return Ended { costs, early: (!status.success()).then_some(Early::Died(status)) };
                }
                _ => return Ended { costs, early: Some(Early::AtWork) },
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.thread.take() {
            // Its pipe has ended.
            let _ = thread.join();
        }
    }
}

/// Runs the process: the hidden verb `checkpoint-inherited`.
pub(super) fn inherited(args: &InheritArgs) -> Result<u8> {
    privilege::close_all_but(&[args.recording])?;
    privilege::drop_all()?;
    let recording = File::from(dashboard::own(args.recording)?);
    let ended = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ended);
    #[allow(clippy::exit, reason = "the other thread may be amid a long piece of work, and nothing is lost with it")]
    let wait = move || {
        if io::stdin().lock().read_exact(&mut [0; FINISH.len()]).is_ok() {
            told.store(true, Ordering::Relaxed);
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        }
        std::process::exit(0);
    };
    std::thread::Builder::new().name("memfrag-end".to_owned()).spawn(wait).context("starting a thread")?;
    // Only this thread: the other one must see the end in time.
    idle::only_when_idle();
    let mut out = io::stdout().lock();
    match checkpoint::make(recording, Path::new("the recording"), &ended, &mut out) {
        Ok(_) => Ok(0),
        // The trace has ended.
        Err(checkpoint::GaveUp::Writing(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        Err(why) => {
            let _ =
                writeln!(io::stderr(), "memfrag: no more checkpoints, so that the recording opens more slowly: {why}");
            Ok(0)
        }
    }
}
