//! The command line's grammar.

use clap::{ArgGroup, Parser, Subcommand, ValueEnum};
use memfrag::analysis::By;
use memfrag::server::listen::Wanted;
use memfrag_common::session::Stacks;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a process's memory goes, which call sites pin it, and what would free it.
#[derive(Debug, Parser)]
#[command(name = "memfrag", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Record every allocation of a running process, of a command, or of the whole machine.
    Trace(TraceArgs),
    /// Show what a recording holds.
    Report(ReportArgs),
    /// Show a recording in the browser: the dashboard, with time travel.
    Serve(ServeArgs),
    /// What `trace --serve` starts: serves on sockets that it inherits.
    #[command(hide = true)]
    ServeInherited(InheritArgs),
    /// What `trace` starts: makes checkpoints of a recording that it inherits.
    #[command(hide = true)]
    CheckpointInherited(InheritArgs),
    /// Show the heap of a running process as it lies in memory now, without tracing.
    Heap(HeapArgs),
    /// Rank call sites by the memory that would be returned without their blocks.
    Blame(BlameArgs),
    /// Tell what would bring a process's resident memory down: trimming, a restart, settings, other allocators.
    Remedies(RemediesArgs),
    /// Set two states side by side: two recordings, or two moments of one.
    Compare(CompareArgs),
    /// Make the calls of a recording again under other allocators and settings, and compare the memory.
    Replay(ReplayArgs),
    /// Replay a recording's events under allocation policies: glibc as it was, and with other settings.
    Model(ModelArgs),
    /// Tell what `malloc_trim` would return of a running process's heap; with --apply, let it do so, and compare.
    Trim(TrimArgs),
    /// Write a recording in another tool's format.
    Export(ExportArgs),
    /// Make a recording of what another tool has recorded.
    Import(ImportArgs),
    /// Demonstrate an arena: blocks come and go in five phases, or as a pattern has it.
    Demo(DemoArgs),
    /// Tell what this kernel, user and machine allow, what probes cost here, and what to do about the rest.
    Doctor(DoctorArgs),
    /// Print the script that completes memfrag's words in a shell.
    Completions(CompletionsArgs),
    /// Print the manual page of memfrag or of one of its verbs.
    Man(ManArgs),
}

/// How events are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BackendChoice {
    /// eBPF when it may be used, else preload for a command.
    Auto,
    /// Probes in the kernel: any process, without restart; needs root or `CAP_BPF` and `CAP_PERFMON`.
    Ebpf,
    /// A library loaded into the command: needs no rights and costs the command less.
    Preload,
}

/// What is recorded of the stacks of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StacksChoice {
    /// Nothing, not even the caller.
    None,
    /// The caller of the allocator.
    Caller,
    /// All frames, by frame pointers: for programs that were built with them. Needs the preload backend.
    Fp,
    /// All frames, by the call frame information that programs have with them. Needs the preload backend.
    Dwarf,
}

impl From<StacksChoice> for Stacks {
    fn from(choice: StacksChoice) -> Self {
        match choice {
            StacksChoice::None => Self::None,
            StacksChoice::Caller => Self::Caller,
            StacksChoice::Fp => Self::FramePointers,
            StacksChoice::Dwarf => Self::Dwarf,
        }
    }
}

/// Whether checkpoints are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CheckpointsChoice {
    /// Every eight million events or, with many live blocks, less often: they take less than a tenth of the file.
    Auto,
    /// Never.
    None,
}

/// Where probes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PlacementChoice {
    /// The first instruction that the kernel emulates.
    Best,
    /// The function's first instruction, as other tools do: for comparison.
    Entry,
}

/// What probes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BodyChoice {
    /// Record.
    Full,
    /// Nothing: for measuring what the probes themselves cost.
    Empty,
}

#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
#[command(group = ArgGroup::new("target").required(true).args(["pid", "system", "command"]))]
pub(super) struct TraceArgs {
    /// A running process; several with commas or by repeating.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(super) pid: Vec<u32>,
    /// Every process that uses a known allocator, now or later.
    #[arg(long)]
    pub(super) system: bool,
    /// A command to run and trace, with the processes that it makes.
    #[arg(last = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
    /// How events are captured.
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) backend: BackendChoice,
    /// What is recorded of the stack of each call that allocates.
    #[arg(long, value_enum, value_name = "WHICH", default_value = "caller")]
    pub(super) stacks: StacksChoice,
    /// The recording [default: memfrag.NAME.PID.mfrag].
    #[arg(short, long, value_name = "FILE", conflicts_with = "no_record")]
    pub(super) output: Option<PathBuf>,
    /// Whether a long recording gets checkpoints: states of the heaps, from which it can be opened at any moment
    /// without going through what comes before. They are made while a processor is idle.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(super) checkpoints: CheckpointsChoice,
    /// Keep no recording; only count.
    #[arg(long)]
    pub(super) no_record: bool,
    /// Stop after this long, such as 30s, 500ms or 2m.
    #[arg(long, value_parser = parse_duration)]
    pub(super) duration: Option<Duration>,
    /// Do not trace the processes that the command makes. Probes are then limited to the command's process, and no
    /// other process of the machine pays for them.
    #[arg(long)]
    pub(super) no_follow: bool,
    /// Do not stop the process for the moment that it takes to read its heap, as the trace begins and ends. Blocks that
    /// are older than the trace then stay unknown.
    #[arg(long)]
    pub(super) no_walk: bool,
    #[command(flatten)]
    pub(super) serving: ServingArgs,
    /// At the end print the report to stdout, as JSON.
    #[arg(long, conflicts_with = "no_record")]
    pub(super) json: bool,
    /// Say nothing but errors.
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Bytes of the ring between the probes and memfrag, a power of two such as 64M.
    #[arg(long, value_parser = parse_ring, value_name = "SIZE", default_value = "64M")]
    pub(super) ring: u32,
    #[arg(long, value_enum, default_value = "best", hide = true)]
    pub(super) placement: PlacementChoice,
    #[arg(long, value_enum, default_value = "full", hide = true)]
    pub(super) probe_body: BodyChoice,
}

/// The dashboard of what runs.
#[derive(Debug, clap::Args)]
pub(super) struct ServingArgs {
    /// Show it in the browser while it runs; at its end the dashboard stays until Ctrl-C.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = "localhost")]
    pub(super) serve: Option<Wanted>,
    /// With --serve: a further name under which browsers may reach the server; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]", requires = "serve")]
    pub(super) allow_host: Vec<String>,
    /// With --serve: the largest recording that may be imported.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "4G", requires = "serve")]
    pub(super) import_limit: u64,
}

/// What the demonstration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PatternChoice {
    /// Startup, fragmentation, large blocks, churn, cleanup.
    Phases,
    /// Bursts of 200 allocations and frees of 16 B to 2 KiB.
    RandomBurst,
    /// The arena filled with blocks of 128 bytes, of which every other one is freed.
    FragStorm,
    /// Blocks of 256 B to 128 KiB, always up to the brim.
    LargeBlocks,
    /// Requests and responses, the same from beginning to end.
    Steady,
    /// More requests at once from step to step.
    Ramp,
    /// Steady requests with bursts and large buffers between.
    Mixed,
}

#[derive(Debug, Parser)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    pub(super) serving: ServingArgs,
    /// What happens.
    #[arg(long, value_enum, default_value = "phases")]
    pub(super) pattern: PatternChoice,
    /// Bytes of the arena, such as 1M or 64M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1M")]
    pub(super) arena_size: u64,
    /// How fast it happens: 2 is twice as fast as 1, which takes half a minute [default: 1 with --serve, else without a
    /// pause].
    #[arg(long, value_name = "FACTOR", value_parser = parse_speed)]
    pub(super) speed: Option<f64>,
    /// Another seed gives other sizes and another order.
    #[arg(long, default_value = "1")]
    pub(super) seed: u64,
    /// Keep the recording in this file.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Parser)]
pub(super) struct ReportArgs {
    /// The recording.
    pub(super) file: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
    /// The state at this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) at: Option<Duration>,
    /// Write a page with pictures to this file: one that needs nothing else, for a browser.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Write the pictures into this directory, as SVG.
    #[arg(long, value_name = "DIR")]
    pub(super) plots: Option<PathBuf>,
    /// With --plots: write each picture as PNG as well, in the colours of the light theme.
    #[arg(long, requires = "plots")]
    pub(super) png: bool,
}

/// Another tool's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatChoice {
    /// MemFragX: a directory with `mftrace_log.csv`, `summary.json` and `smaps`.
    Memfragx,
}

#[derive(Debug, Parser)]
pub(super) struct ExportArgs {
    /// The recording.
    pub(super) file: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    pub(super) format: FormatChoice,
    /// The directory to write to, which is made if need be.
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: PathBuf,
    /// Whose calls, where several processes were recorded [default: those of the process with most].
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
}

#[derive(Debug, Parser)]
pub(super) struct ImportArgs {
    /// What the other tool has recorded: MemFragX's `mftrace_log.csv`.
    pub(super) file: PathBuf,
    /// The recording to be made.
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
}

#[derive(Debug, Parser)]
pub(super) struct ServeArgs {
    /// The recording; it may still be growing.
    pub(super) file: PathBuf,
    /// Where to listen, as PORT, ADDRESS or ADDRESS:PORT; port 0 has the kernel choose [default: 7170 or one of the
    /// next on this machine's own addresses].
    #[arg(long, value_name = "ADDR")]
    pub(super) addr: Option<Wanted>,
    /// A further name under which browsers may reach the server, as through a tunnel; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) allow_host: Vec<String>,
    /// The largest recording that may be imported, such as 512M or 4G.
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "4G")]
    pub(super) import_limit: u64,
}

#[derive(Debug, Parser)]
pub(super) struct InheritArgs {
    /// The descriptor of the recording.
    #[arg(long)]
    pub(super) recording: RawFd,
    /// The descriptor of a socket that listens.
    #[arg(long)]
    pub(super) socket: Vec<RawFd>,
}

/// By what blocks are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ByChoice {
    /// The place that called the allocator.
    Site,
    /// The thread that allocated.
    Thread,
    /// The requested size, by powers of two.
    Size,
    /// How long the block has lived.
    Age,
    /// The file that called the allocator.
    Module,
    /// The whole stack of the call, where the trace recorded it (--stacks).
    Stack,
}

impl From<ByChoice> for By {
    fn from(choice: ByChoice) -> Self {
        match choice {
            ByChoice::Site => Self::Site,
            ByChoice::Thread => Self::Thread,
            ByChoice::Size => Self::Size,
            ByChoice::Age => Self::Age,
            ByChoice::Module => Self::Module,
            ByChoice::Stack => Self::Stack,
        }
    }
}

#[derive(Debug, Parser)]
pub(super) struct BlameArgs {
    /// The recording.
    pub(super) file: PathBuf,
    /// By what blocks are told apart.
    #[arg(long, value_enum, default_value = "site")]
    pub(super) by: ByChoice,
    /// The process; without it, the one with most resident bytes.
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// The last look at the process's pages until this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) at: Option<Duration>,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// A recording, or a moment of one: `FILE`, `FILE@TIME`, `@TIME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// The recording; `None` for the one named before.
    pub(super) file: Option<PathBuf>,
    /// The time since the trace began; `None` for the end.
    pub(super) at: Option<Duration>,
}

/// A file of that very name is taken first, so that an `@` may be part of it.
fn parse_moment(text: &str) -> Result<Moment, String> {
    let whole = || Ok(Moment { file: Some(text.into()), at: None });
    let Some((file, at)) = text.rsplit_once('@') else { return whole() };
    if Path::new(text).exists() {
        return whole();
    }
    let at = parse_duration(at).map_err(|problem| format!("what follows the @ is no time: {problem}"))?;
    Ok(Moment { file: (!file.is_empty()).then(|| file.into()), at: Some(at) })
}

#[derive(Debug, Parser)]
pub(super) struct CompareArgs {
    /// The first state: a recording's end as FILE, or a moment of it as FILE@TIME, such as run.mfrag@1.5s.
    #[arg(value_name = "A", value_parser = parse_moment)]
    pub(super) a: Moment,
    /// The second state; @TIME is one of the same recording.
    #[arg(value_name = "B", value_parser = parse_moment)]
    pub(super) b: Moment,
    /// The process, or that of A and that of B; without it, those that had the most live bytes.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(super) pid: Vec<u32>,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Parser)]
pub(super) struct RemediesArgs {
    /// The recording.
    pub(super) file: PathBuf,
    /// The process; without it, of those whose pages were looked at the one that had the most live bytes.
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// The last look at the process's pages until this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) at: Option<Duration>,
    /// Measure as well: make the calls until then again with each remedy, as `memfrag replay` does.
    #[arg(long)]
    pub(super) run: bool,
    /// Stop a run that takes more resident memory, such as 512M or 4G; without it, than half of what is available.
    #[arg(long, value_parser = parse_size, value_name = "BYTES", requires = "run")]
    pub(super) memory_limit: Option<u64>,
    /// Stop a run that takes longer.
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "10m")]
    pub(super) time_limit: Duration,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// Whether a replay writes to its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TouchChoice {
    /// To as many pages of each block as were seen resident in the recorded program.
    Sampled,
    /// To every page of every block.
    All,
    /// To none.
    None,
}

/// In which order what is live is allocated anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OrderChoice {
    /// As it was allocated: what a restart would make of it.
    Age,
    /// By addresses: as it lay.
    Address,
    /// The largest blocks first.
    Size,
}

/// The language of a program that stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LanguageChoice {
    /// C: for any allocator that can be preloaded or linked.
    C,
    /// Rust: for any global allocator.
    Rust,
}

#[derive(Debug, Parser)]
pub(super) struct ReplayArgs {
    /// The recording.
    pub(super) file: PathBuf,
    /// The process; without it, the one that called the allocator most.
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// The allocators: glibc, jemalloc, mimalloc, tcmalloc, musl, or the path of a library; without it, all that are
    /// installed.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(super) allocator: Vec<String>,
    /// A variable for the environment of the runs, such as `GLIBC_TUNABLES=glibc.malloc.arena_max=1`; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    pub(super) env: Vec<(OsString, OsString)>,
    /// Whether the blocks are written to.
    #[arg(long, value_enum, default_value = "sampled")]
    pub(super) touch: TouchChoice,
    /// When the calls are made: fast, as soon as they can be; real, in the time that they took; or a factor such as 4x,
    /// four times as fast. Allocators that return memory by the clock need time for it.
    #[arg(long, value_parser = parse_pace, value_name = "PACE", default_value = "fast")]
    pub(super) pace: Pace,
    /// The calls until this time since the trace began, such as 1.5s or 200ms; without it, all.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) at: Option<Duration>,
    /// Not the calls, but the blocks that are live at their end, allocated anew in this order by one thread.
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(super) compact: Option<OrderChoice>,
    /// With --compact: the first blocks only, so many.
    #[arg(long, value_name = "COUNT", requires = "compact")]
    pub(super) most_blocks: Option<u64>,
    /// With --compact: the first blocks only, of so many bytes together, such as 512M.
    #[arg(long, value_parser = parse_size, value_name = "BYTES", requires = "compact")]
    pub(super) most_bytes: Option<u64>,
    /// At the end of each run call `malloc_trim(0)`, which is glibc's, and tell what memory is then.
    #[arg(long)]
    pub(super) trim: bool,
    /// Stop a run that takes more resident memory, such as 512M or 4G; without it, than half of what is available.
    #[arg(long, value_parser = parse_size, value_name = "BYTES")]
    pub(super) memory_limit: Option<u64>,
    /// Stop a run that takes longer.
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "10m")]
    pub(super) time_limit: Duration,
    /// Write a directory that stands alone instead of running: a program, its data, how to build it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["allocator", "env", "touch", "pace", "trim", "json"])]
    pub(super) emit: Option<PathBuf>,
    /// Write pictures of the runs into this directory, as SVG: memory over time, and by kind of mapping.
    #[arg(long, value_name = "DIR", conflicts_with = "emit")]
    pub(super) plots: Option<PathBuf>,
    /// With --plots: write each picture as PNG as well, in the colours of the light theme.
    #[arg(long, requires = "plots")]
    pub(super) png: bool,
    /// With --emit: the program's language.
    #[arg(long, value_enum, default_value = "c", requires = "emit")]
    pub(super) language: LanguageChoice,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// How many times as fast as recorded; `None` for as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace(pub(super) Option<f64>);

/// `fast`, `real`, or a factor such as `4x`.
fn parse_pace(text: &str) -> Result<Pace, String> {
    match text {
        "fast" => Ok(Pace(None)),
        "real" => Ok(Pace(Some(1.0))),
        factor => match factor.strip_suffix('x').unwrap_or(factor).parse::<f64>() {
            Ok(factor) if factor > 0.0 && factor <= 1e6 => Ok(Pace(Some(factor))),
            _ => Err("a pace is fast, real, or a factor such as 4x".to_owned()),
        },
    }
}

fn parse_variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("a variable is written NAME=VALUE".to_owned()),
    }
}

#[derive(Debug, Parser)]
pub(super) struct ModelArgs {
    /// The recording.
    pub(super) file: PathBuf,
    /// The policies, with commas or by repeating; without it, all of them.
    #[arg(long, value_name = "POLICY", value_delimiter = ',')]
    pub(super) policy: Vec<String>,
    /// The process; without it, the one that had the most live bytes.
    #[arg(long, value_name = "PID")]
    pub(super) pid: Option<u32>,
    /// What came of it until this time since the trace began, such as 1.5s or 200ms.
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) at: Option<Duration>,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Parser)]
pub(super) struct HeapArgs {
    /// The process; its allocator must be glibc's.
    #[arg(long, value_name = "PID")]
    pub(super) pid: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
    /// Do not stop the process while its heap is read: it is read until nothing contradicts itself, which may never
    /// be while the process allocates much.
    #[arg(long)]
    pub(super) running: bool,
}

#[derive(Debug, Parser)]
pub(super) struct TrimArgs {
    /// The process; its allocator must be glibc's.
    #[arg(long, value_name = "PID")]
    pub(super) pid: u32,
    /// Call `malloc_trim(0)` in the process, by one of its own threads, stopped where it is provably outside malloc.
    #[arg(long)]
    pub(super) apply: bool,
    /// How long such a thread is looked for, and how long the call may wait for a lock of malloc's.
    #[arg(long, value_parser = parse_duration, value_name = "TIME", default_value = "5s", requires = "apply")]
    pub(super) timeout: Duration,
    /// Apply so many times: for tests.
    #[arg(long, value_name = "TIMES", default_value = "1", requires = "apply", hide = true)]
    pub(super) repeat: u32,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Parser)]
pub(super) struct DoctorArgs {
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Parser)]
pub(super) struct CompletionsArgs {
    /// The shell.
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Parser)]
pub(super) struct ManArgs {
    /// The verb; without it, the page of memfrag itself.
    pub(super) verb: Option<String>,
    /// Write all pages into this directory instead, one file each.
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    pub(super) dir: Option<PathBuf>,
}

/// A time such as `30s`, `1.5s`, `200ms`, `2m`, `1h`, or plain seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}; use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is no number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "out of range".to_owned())
}

/// Bytes, with an optional K, M or G.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is no whole number"))?;
    let bytes = number.checked_shl(shift).filter(|bytes| bytes >> shift == number);
    bytes.ok_or_else(|| format!("{text} is too large"))
}

/// A factor greater than 0.
fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed > 0.0 => Ok(speed),
        _ => Err("a speed is a number greater than 0".to_owned()),
    }
}

/// A power of two of bytes, at least a page, with an optional K, M or G.
fn parse_ring(text: &str) -> Result<u32, String> {
    match u32::try_from(parse_size(text)?) {
        Ok(bytes) if bytes.is_power_of_two() && bytes >= 4096 => Ok(bytes),
        _ => Err("a ring has a power of two of bytes, from 4K to 2G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn trace(words: &[&str]) -> Result<TraceArgs, clap::Error> {
        Args::try_parse_from(["memfrag", "trace"].iter().chain(words)).map(|args| match args.verb {
            Verb::Trace(args) => args,
            other => panic!("parsed as {other:?}"),
        })
    }

    #[test]
    fn the_grammar_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_target_is_one_of_three() {
        assert_eq!(trace(&["--pid", "1,2", "--pid", "3"]).unwrap().pid, [1, 2, 3]);
        assert_eq!(trace(&["--", "ls", "--pid"]).unwrap().command, ["ls", "--pid"]);
        assert!(trace(&[]).is_err());
        assert!(trace(&["--pid", "1", "--", "ls"]).is_err());
        assert!(trace(&["--system", "--pid", "1"]).is_err());
        assert!(trace(&["--pid", "x"]).is_err());
    }

    #[test]
    fn an_address_follows_serve_behind_an_equals_sign() {
        assert_eq!(trace(&["--pid", "1"]).unwrap().serving.serve, None);
        assert_eq!(trace(&["--pid", "1", "--serve"]).unwrap().serving.serve, Some(Wanted::default()));
        let wanted = Wanted { address: None, port: Some(0) };
        assert_eq!(trace(&["--serve=0", "--", "ls"]).unwrap().serving.serve, Some(wanted));
        assert!(trace(&["--serve=everywhere", "--", "ls"]).is_err());
        assert!(trace(&["--allow-host", "x", "--", "ls"]).is_err());
    }

    #[test]
    fn a_demonstration_has_a_speed_and_a_size() {
        let demo = |words: &[&str]| match Args::try_parse_from(["memfrag", "demo"].iter().chain(words)) {
            Ok(Args { verb: Verb::Demo(args) }) => Some(args),
            _ => None,
        };
        let args = demo(&[]).unwrap();
        assert_eq!((args.arena_size, args.pattern, args.speed), (1 << 20, PatternChoice::Phases, None));
        assert_eq!(demo(&["--pattern", "frag-storm", "--serve=0"]).unwrap().pattern, PatternChoice::FragStorm);
        assert_eq!(demo(&["--speed", "2.5"]).unwrap().speed, Some(2.5));
        for words in
            [["--speed", "0"], ["--speed", "-1"], ["--speed", "NaN"], ["--pattern", "x"], ["--arena-size", "x"]]
        {
            assert!(demo(&words).is_none(), "{words:?}");
        }
    }

    #[test]
    fn a_moment_is_a_file_and_a_time() {
        let moment = |file: Option<&str>, at| Ok(Moment { file: file.map(PathBuf::from), at });
        assert_eq!(parse_moment("a.mfrag"), moment(Some("a.mfrag"), None));
        assert_eq!(parse_moment("a@b.mfrag@1.5s"), moment(Some("a@b.mfrag"), Some(Duration::from_millis(1500))));
        assert_eq!(parse_moment("@200ms"), moment(None, Some(Duration::from_millis(200))));
        assert!(parse_moment("a@b.mfrag").unwrap_err().contains("no time"));
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("a@1s");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(parse_moment(odd.to_str().unwrap()), moment(odd.to_str(), None), "a file of that name is there");
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("3 weeks").is_err());
        assert_eq!(parse_ring("16M"), Ok(16 << 20));
        assert!(parse_ring("3M").is_err());
        assert!(parse_ring("99999999999999999999G").is_err());
        assert!(parse_ring("9223372036854775808M").is_err());
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        assert_eq!(parse_size("3k"), Ok(3 << 10));
        assert_eq!(
            ["fast", "real", "4x", "0.5"].map(|text| parse_pace(text).unwrap().0),
            [None, Some(1.0), Some(4.0), Some(0.5)]
        );
        assert!(["slow", "-1", "0x", "NaN", "1e9"].iter().all(|text| parse_pace(text).is_err()));
        assert!(parse_size("-1").is_err());
    }
}
