//! Which backend captures, and the trace begun with it.

use super::args::{BackendChoice, BodyChoice, PlacementChoice, StacksChoice, TraceArgs};
use super::{Exit, FAILED, NOT_EXECUTABLE, NOT_FOUND};
use anyhow::{Context, Result, anyhow, bail};
use memfrag::capture::ebpf::{Body, EbpfCapture, Options, Placing};
use memfrag::capture::launch::{Child, Held};
use memfrag::capture::preload::{PreloadSession, RING_SLOTS};
use memfrag::capture::{Capture, Sink};
use memfrag::target::allocator::Facts;
use memfrag::target::command::{self, CommandError};
use memfrag::target::elf::Image;
use memfrag::target::file::MappedFile;
use memfrag::target::process;
use memfrag_common::config::Scope;
use memfrag_common::names::Names;
use memfrag_common::session::Stacks;
use memfrag_common::told::Walking;
use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};

/// A backend, by the name that recordings carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Ebpf,
    Preload,
}

impl Backend {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Preload => "preload",
        }
    }
}

/// A trace that has begun.
pub(super) struct Started {
    pub(super) backend: Backend,
    pub(super) capture: Box<dyn Capture>,
    /// The launched command, still held.
    pub(super) held: Option<Held>,
    /// What is traced, in a few words.
    pub(super) target: String,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

/// What the kernel lets this user do with BPF; `Err` says what is missing and how to get it.
pub(super) fn may_use_ebpf() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("probes are placed for x86-64 processors only");
    }
    if memfrag::capture::ebpf::has_capabilities() {
        return Ok(());
    }
    bail!("probes need root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE; run it with sudo")
}

/// Chooses the backend, says in a line which and why if the choice was ours, and begins.
pub(super) fn start(args: &TraceArgs, sink: &mut dyn Sink) -> Result<Started> {
    let program = match args.command.first() {
        Some(name) => Some(find(name)?),
        None => None,
    };
    if args.backend == BackendChoice::Preload && program.is_none() {
        bail!("a running process cannot be given a library: --backend preload works for a command (-- CMD) only");
    }
    for &pid in &args.pid {
        process::check(pid)?;
    }
    if Stacks::from(args.stacks).are_full() && !cfg!(target_arch = "x86_64") {
        bail!("stacks are walked on x86-64 processors only; leave it at --stacks caller");
    }
    let names = args.names()?;
    let allowed = may_use_ebpf();
    let mut notes = Vec::new();
    let backend = match (args.backend, &allowed, &program) {
        (BackendChoice::Ebpf, Err(reason), _) => {
            let other = if program.is_some() { "; or use --backend preload, which needs no rights" } else { "" };
            bail!("cannot use eBPF: {reason:#}{other}")
        }
        (BackendChoice::Ebpf, Ok(()), _) => Backend::Ebpf,
        (BackendChoice::Preload, _, _) => Backend::Preload,
        (BackendChoice::Auto, Ok(()), _) => {
            notes.push("backend ebpf: probes in the kernel, which may be used here".to_owned());
            Backend::Ebpf
        }
        (BackendChoice::Auto, Err(reason), Some(_)) => {
            notes.push(format!("backend preload: {reason:#}"));
            Backend::Preload
        }
        (BackendChoice::Auto, Err(reason), None) => bail!("cannot trace a running process: {reason:#}"),
    };
    let mut started = match (backend, program) {
        (Backend::Ebpf, program) => ebpf(args, names, program, sink)?,
        (Backend::Preload, program) => preload(args, &names, program.as_deref())?,
    };
    notes.append(&mut started.notes);
    started.notes = notes;
    if let Some(wanted) = args.wanted() {
        started.target = format!("{}, only processes named {wanted}", started.target);
    }
    Ok(started)
}

fn find(name: &OsString) -> Result<PathBuf> {
    command::resolve(name, std::env::var_os("PATH").as_deref()).map_err(|error| {
        let status = if matches!(error, CommandError::NotFound { .. }) { NOT_FOUND } else { NOT_EXECUTABLE };
        Exit { status, message: error.to_string() }.into()
    })
}

fn ebpf(args: &TraceArgs, names: Names, program: Option<PathBuf>, sink: &mut dyn Sink) -> Result<Started> {
    let scope = if args.system {
        Scope::All
    } else if program.is_some() && !args.no_follow {
        Scope::Map
    } else {
        Scope::Link
    };
    let options = Options {
        scope,
        ring_bytes: args.ring,
        placing: match args.placement {
            PlacementChoice::Best => Placing::Best,
            PlacementChoice::Entry => Placing::Entry,
        },
        body: match args.probe_body {
            BodyChoice::Full => Body::Full,
            BodyChoice::Empty => Body::Empty,
        },
        callers: args.stacks != StacksChoice::None,
        walking: match args.stacks {
            StacksChoice::None | StacksChoice::Caller => Walking::Off,
            StacksChoice::Fp => Walking::FramePointers,
            StacksChoice::Dwarf => Walking::Rules,
        },
        names,
    };
    let mut capture = EbpfCapture::new(options)?;
    let mut notes = Vec::new();
    if let Some(reason) = capture.without_memory_events() {
        notes.push(format!("changes of mappings are not recorded: {reason}"));
    }
    if let Some(reason) = capture.without_sideband() {
        notes.push(format!(
            "of processes that end within milliseconds neither allocator nor the files of call sites may be known: the \
             kernel does not tell what they map: {reason}"
        ));
    }
    if std::io::stderr().is_terminal() && !args.quiet {
        let cost = memfrag::capture::ebpf::calibrate()?;
        notes.push(format!("a malloc and its free take about {:.1} µs longer here while traced", cost.pair() / 1000.0));
    }
    let mut held = None;
    let target = if let Some(path) = program {
        let runs = command::program(&path)?;
        let process = Held::new(&args.command, &[]).context("making a process for the command")?;
        let follow = !args.no_follow;
        if capture.attach_command(&runs, follow, process.pid())?.is_empty() {
            notes.push(format!(
                "{} is not traceable: {}{}",
                runs.display(),
                why_untraceable(&runs),
                if follow { "; the processes that it makes are traced" } else { "" }
            ));
        }
        capture.trace_process(process.pid(), follow)?;
        if follow {
            notes.push(
                "probes are on the machine's libraries while the command runs, so that the processes it makes are \
                 seen; others that use them run slower meanwhile (--no-follow limits the probes to the command)"
                    .to_owned(),
            );
        }
        held = Some(process);
        memfrag::capture::launch::display(&args.command)
    } else if args.system {
        capture.attach_machine()?;
        "the whole machine".to_owned()
    } else {
        for &pid in &args.pid {
            capture.introduce(pid, sink);
            capture.trace_process(pid, false)?;
            let allocators = capture.attach_process(pid)?;
            let Some(first) = allocators.first() else {
                bail!(
                    "process {pid} has mapped no allocator that memfrag knows: none of its files defines malloc; a \
                     program with an allocator of its own, such as a Go program, cannot be traced"
                );
            };
            let version = first.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
            notes.push(format!("process {pid} allocates by {}{version} ({})", first.kind, first.path.display()));
        }
        let pids: Vec<String> = args.pid.iter().map(ToString::to_string).collect();
        format!("process {}", pids.join(", "))
    };
    Ok(Started { backend: Backend::Ebpf, capture: Box::new(capture), held, target, notes })
}

/// Why no allocator was found in a program or its libraries.
fn why_untraceable(program: &Path) -> String {
    let facts = match MappedFile::open(program).map(|file| Facts::parse(&file, program)) {
        Ok(Ok(facts)) => facts,
        Ok(Err(error)) => return error.to_string(),
        Err(error) => return format!("it cannot be read: {error}"),
    };
    if facts.is_static_without_symbols {
        "it is linked statically and stripped of its symbols, so its allocator cannot be found; use a build with \
         symbols"
            .to_owned()
    } else if facts.is_go {
        "it is a Go program, whose own allocator does not pass through malloc".to_owned()
    } else {
        "neither it nor a library that it names defines malloc".to_owned()
    }
}

/// Why a library cannot be loaded into a program; `None` where nothing speaks against it.
fn why_not_loaded(program: &Path) -> Option<String> {
    let file = MappedFile::open(program).ok()?;
    match Image::parse(&file) {
        Err(error) => Some(error.to_string()),
        Ok(image) if image.interpreter.is_none() && image.soname.is_none() => {
            let is_go = if image.is_go { ", as Go programs are" } else { "" };
            Some(format!(
                "it is linked statically{is_go}, so the library cannot be loaded into it; --backend ebpf, as root, \
                 traces static programs that have symbols"
            ))
        }
        Ok(_) => None,
    }
}

fn preload(args: &TraceArgs, names: &Names, program: Option<&Path>) -> Result<Started> {
    let mut notes = Vec::new();
    // What cannot be read may be run all the same.
    if let Some(runs) = program.and_then(|path| command::program(path).ok())
        && let Some(why) = why_not_loaded(&runs)
    {
        notes.push(format!("{} is not traceable: {why}; the processes that it makes are traced", runs.display()));
    }
    let session =
        PreloadSession::with(RING_SLOTS, args.stacks.into()).context("making the shared memory for the command")?;
    session.limit_to(names);
    let held = Held::new(&args.command, &session.env()).context("making a process for the command")?;
    let target = memfrag::capture::launch::display(&args.command);
    Ok(Started { backend: Backend::Preload, capture: Box::new(session), held: Some(held), target, notes })
}

/// Lets the command begin.
pub(super) fn release(held: Held, args: &TraceArgs) -> Result<Child> {
    held.release().map_err(|error| {
        let name = args.command[0].display();
        let (status, message) = match error.kind() {
            ErrorKind::NotFound => (NOT_FOUND, format!("{name}: its interpreter was not found ({error})")),
            ErrorKind::PermissionDenied => (NOT_EXECUTABLE, format!("{name} may not be executed ({error})")),
            _ if error.raw_os_error() == Some(libc::ENOEXEC) => {
                (NOT_EXECUTABLE, format!("{name} is no program and names no interpreter ({error})"))
            }
            _ => (FAILED, format!("cannot run {name}: {error}")),
        };
        anyhow!(Exit { status, message })
    })
}
