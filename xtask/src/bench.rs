//! `cargo xtask bench`: the criterion benches, then whole programs under memfrag and under its peers.
//!
//! Every way of tracing takes its turn in every round, so that what slows the machine for a while slows all of them;
//! the medians over the rounds are compared. The figures are the program's own: nanoseconds that a thread takes for
//! one pair of malloc and free. Of processor time it is the least of the rounds, since what else runs on the machine, or
//! on its host, only adds to it, by up to its double where caches are shared. Only private copies of libc carry the peers' probes, so that no other program of the
//! machine is slowed.

mod table;

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A way to run the program, with the pairs that make a run long enough to measure and short enough to wait for.
struct Way {
    name: &'static str,
    pairs: u32,
    threads: u32,
    how: How,
}

enum How {
    /// As it is.
    Bare,
    /// Under `memfrag trace` with these words, with a recording whose losses count or without one.
    Memfrag { words: &'static [&'static str], counts_loss: bool },
    /// Under the preload library, into rings with room for the whole measure, while their reader stands still: what
    /// scales with threads where there are processors enough for the reader.
    Library,
    /// Under `heaptrack --raw`.
    Heaptrack,
    /// While a bpftrace script keeps the set of live blocks.
    Bpftrace,
}

const EBPF: &[&str] = &["--backend", "ebpf", "--no-follow"];
const EBPF_FP: &[&str] = &["--backend", "ebpf", "--no-follow", "--stacks", "fp"];
const EBPF_DWARF: &[&str] = &["--backend", "ebpf", "--no-follow", "--stacks", "dwarf"];
const PRELOAD: &[&str] = &["--backend", "preload"];
/// What the library itself costs the program, with nothing written beside it.
const PRELOAD_ALONE: &[&str] = &["--backend", "preload", "--no-record"];
/// The program keeps no frame pointers, as most do not.
const PRELOAD_STACKS: &[&str] = &["--backend", "preload", "--stacks", "dwarf"];
const PRELOAD_STACKS_ALONE: &[&str] = &["--backend", "preload", "--stacks", "dwarf", "--no-record"];
const NAIVE: &[&str] = &["--backend", "ebpf", "--no-follow", "--placement", "entry"];
const EMPTY: &[&str] = &["--backend", "ebpf", "--no-follow", "--probe-body", "empty", "--no-record"];

const fn memfrag(words: &'static [&'static str]) -> How {
    How::Memfrag { words, counts_loss: true }
}

const fn unrecorded(words: &'static [&'static str]) -> How {
    How::Memfrag { words, counts_loss: false }
}

/// Slots of a ring that has room for the records of [`LIBRARY_PAIRS`], and is full once after half as many again.
const LIBRARY_SLOTS: u32 = 1 << 22;
const LIBRARY_PAIRS: u32 = 1_500_000;

const WAYS: &[Way] = &[
    Way { name: "bare", pairs: 5_000_000, threads: 1, how: How::Bare },
    Way { name: "bare, 2 threads", pairs: 5_000_000, threads: 2, how: How::Bare },
    Way { name: "preload", pairs: 2_000_000, threads: 1, how: memfrag(PRELOAD) },
    Way { name: "preload, 2 threads", pairs: 2_000_000, threads: 2, how: memfrag(PRELOAD) },
    Way { name: "preload, not recorded", pairs: 2_000_000, threads: 1, how: unrecorded(PRELOAD_ALONE) },
    Way { name: "preload, not rec., 2 threads", pairs: 2_000_000, threads: 2, how: unrecorded(PRELOAD_ALONE) },
    Way { name: "preload, nobody reads", pairs: LIBRARY_PAIRS, threads: 1, how: How::Library },
    Way { name: "preload, nobody reads, 2 threads", pairs: LIBRARY_PAIRS, threads: 2, how: How::Library },
    Way { name: "preload, stacks", pairs: 1_000_000, threads: 1, how: memfrag(PRELOAD_STACKS) },
    Way { name: "preload, stacks, not recorded", pairs: 1_000_000, threads: 1, how: unrecorded(PRELOAD_STACKS_ALONE) },
    Way { name: "heaptrack --raw", pairs: 1_000_000, threads: 1, how: How::Heaptrack },
    Way { name: "ebpf", pairs: 400_000, threads: 1, how: memfrag(EBPF) },
    Way { name: "ebpf, 2 threads", pairs: 400_000, threads: 2, how: memfrag(EBPF) },
    Way { name: "ebpf, stacks fp", pairs: 400_000, threads: 1, how: memfrag(EBPF_FP) },
    Way { name: "ebpf, stacks dwarf", pairs: 400_000, threads: 1, how: memfrag(EBPF_DWARF) },
    Way { name: "ebpf, empty programs", pairs: 400_000, threads: 1, how: unrecorded(EMPTY) },
    Way { name: "ebpf at first instructions", pairs: 100_000, threads: 1, how: memfrag(NAIVE) },
    Way { name: "bpftrace, live set", pairs: 100_000, threads: 1, how: How::Bpftrace },
];

/// `cargo xtask bench [--quick] [--no-criterion]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (mut quick, mut criterion) = (false, true);
    for arg in args {
        match arg.as_str() {
            "--quick" => quick = true,
            "--no-criterion" => criterion = false,
            _ => bail!("only --quick and --no-criterion are known"),
        }
    }
    if criterion {
        benches(quick)?;
    }
    let bench = Bench::new()?;
    let rounds = if quick { 3 } else { 7 };
    let mut results: Vec<Outcome> = WAYS.iter().map(|_| Outcome::default()).collect();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for (way, outcome) in WAYS.iter().zip(&mut results) {
            bench.turn(way, outcome);
        }
    }
    table::print(&results)
}

/// The criterion benches by name: the library's own test harness, which `cargo bench` would run as well, does not
/// know criterion's words.
fn benches(quick: bool) -> Result<()> {
    let mut command = shell::cargo(&["bench", "--package", "memfrag"]);
    let mut any = false;
    for file in fs::read_dir(shell::root().join("memfrag/benches")).into_iter().flatten() {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            command.arg("--bench").arg(name);
            any = true;
        }
    }
    if quick {
        command.args(["--", "--quick"]);
    }
    if any { shell::run(&mut command) } else { Ok(()) }
}

/// What came of one way.
#[derive(Default)]
struct Outcome {
    /// A pair, once a round.
    figures: Vec<Pair>,
    /// Events lost in all rounds.
    lost: u64,
    /// Why it could not run; then it is not tried again.
    skipped: Option<String>,
}

/// What a pair of calls took, in nanoseconds.
#[derive(Clone, Copy)]
struct Pair {
    /// That passed.
    passed: f64,
    /// Of processor time that the program's thread had.
    own: f64,
}

impl Outcome {
    /// Of the time that passed.
    fn median(&self) -> Option<f64> {
        let mut passed: Vec<f64> = self.figures.iter().map(|pair| pair.passed).collect();
        passed.sort_by(f64::total_cmp);
        passed.get(passed.len() / 2).copied()
    }

    /// Of processor time.
    fn least_own(&self) -> Option<f64> {
        self.figures.iter().map(|pair| pair.own).min_by(f64::total_cmp)
    }
}

/// The program and memfrag, built, and a directory for what they write.
struct Bench {
    dir: PathBuf,
    pairs: PathBuf,
    memfrag: PathBuf,
    /// The example that reads the library's rings and throws away what it has read.
    reader: PathBuf,
}

/// Builds the program that allocates and frees in pairs, in a directory.
pub(crate) fn pairs(dir: &Path) -> Result<PathBuf> {
    let pairs = dir.join("pairs");
    let mut cc = shell::program("cc", &["-O2", "-fno-builtin", "-pthread", "tests/programs/pairs.c", "-o"]);
    shell::run(cc.arg(&pairs))?;
    Ok(pairs)
}

impl Bench {
    fn new() -> Result<Self> {
        shell::run(&mut shell::cargo(&[
            "build",
            "--release",
            "--package",
            "memfrag",
            "--bins",
            "--example",
            "preload",
        ]))?;
        let dir = shell::target_dir().join("bench");
        fs::create_dir_all(&dir)?;
        let pairs = pairs(&dir)?;
        let built = shell::target_dir().join("release");
        Ok(Self { dir, pairs, memfrag: built.join("memfrag"), reader: built.join("examples/preload") })
    }

    fn turn(&self, way: &Way, outcome: &mut Outcome) {
        if outcome.skipped.is_some() {
            return;
        }
        match self.measure(way) {
            Ok((figure, lost)) => {
                eprintln!("  {:<34}{:>10.1} ns, of its own{:>8.1}", way.name, figure.passed, figure.own);
                outcome.figures.push(figure);
                outcome.lost += lost;
            }
            Err(error) => {
                eprintln!("  {:<34}SKIPPED: {error:#}", way.name);
                outcome.skipped = Some(format!("{error:#}"));
            }
        }
    }

    /// One run: the figures that the program prints, and the events lost.
    fn measure(&self, way: &Way) -> Result<(Pair, u64)> {
        let counts = [way.pairs.to_string(), way.threads.to_string()];
        match way.how {
            How::Bare => Ok((figure(Command::new(&self.pairs).args(&counts))?, 0)),
            How::Memfrag { words, counts_loss } => {
                let recording = self.dir.join("pairs.mfrag");
                let mut command = Command::new(&self.memfrag);
                command.arg("trace").args(words);
                if counts_loss {
                    command.arg("-o").arg(&recording);
                }
                let figure = figure(command.arg("--").arg(&self.pairs).args(&counts))?;
                let lost = if counts_loss { self.lost(&recording, way)? } else { 0 };
                Ok((figure, lost))
            }
            How::Library => {
                let mut command = Command::new(&self.reader);
                command.env("NULL", "1").env("SLOTS", LIBRARY_SLOTS.to_string());
                Ok((figure(command.arg(&self.pairs).args(&counts).arg("held"))?, 0))
            }
            How::Heaptrack => {
                ensure!(shell::find("heaptrack").is_some(), "heaptrack is not installed");
                let mut command = Command::new("heaptrack");
                command.args(["--raw", "--output"]).arg(self.dir.join("heaptrack"));
                Ok((figure(command.arg(&self.pairs).args(&counts))?, 0))
            }
            How::Bpftrace => self.bpftrace(&counts).map(|figure| (figure, 0)),
        }
    }

    /// The events that the recording lacks. A recording without the pairs in it would make every figure worthless.
    fn lost(&self, recording: &Path, way: &Way) -> Result<u64> {
        let mut report = Command::new(&self.memfrag);
        let output = report.args(["report", "--json"]).arg(recording).output().context("memfrag report")?;
        ensure!(output.status.success(), "memfrag report: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |name: &str| {
            let (_, rest) = text.split_once(&format!("\"{name}\":"))?;
            rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let total = number("total").context("the report counts no events")?;
        let lost = number("lost").context("the report counts no losses")?;
        let expected = u64::from(way.pairs) * u64::from(way.threads) * 2;
        ensure!(total + lost >= expected, "{total} events were recorded of {expected}");
        Ok(lost)
    }

    /// Runs the program on a copy of libc that carries bpftrace's probes.
    fn bpftrace(&self, counts: &[String]) -> Result<Pair> {
        ensure!(shell::find("bpftrace").is_some(), "bpftrace is not installed");
        ensure!(shell::is_root(), "bpftrace needs root");
        let lib = self.dir.join("lib");
        fs::create_dir_all(&lib)?;
        let libc = lib.join("libc.so.6");
        if !libc.exists() {
            let found = shell::output("cc", &["-print-file-name=libc.so.6"]).context("cc knows no libc.so.6")?;
            fs::copy(found.trim(), &libc).context("cannot copy libc.so.6")?;
        }
        let at = libc.display();
        let script = format!(
            "uprobe:{at}:malloc {{ @size[tid] = arg0; }}\n\
             uretprobe:{at}:malloc /@size[tid]/ {{ @live[retval] = @size[tid]; delete(@size[tid]); }}\n\
             uprobe:{at}:free /arg0/ {{ delete(@live[arg0]); }}\n\
             BEGIN {{ printf(\"ready\\n\"); }}\n\
             END {{ clear(@size); clear(@live); }}\n"
        );
        let file = self.dir.join("live.bt");
        fs::write(&file, script)?;
        let said = self.dir.join("bpftrace.txt");
        let mut command = Command::new("bpftrace");
        command.env("BPFTRACE_MAP_KEYS_MAX", "100000").arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(fs::File::create(&said)?)
            .stderr(fs::File::create(self.dir.join("bt.err"))?);
        let tracer = Stopped(command.spawn().context("cannot run bpftrace")?);
        let begun = Instant::now();
        while !fs::read_to_string(&said)?.contains("ready") {
            ensure!(begun.elapsed() < Duration::from_secs(30), "bpftrace does not get ready, see {}", said.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        // The probes are attached by now or a moment later.
        std::thread::sleep(Duration::from_millis(500));
        let figure = figure(Command::new(&self.pairs).args(counts).env("LD_LIBRARY_PATH", &lib));
        drop(tracer);
        figure
    }
}

/// A tracer that is asked to end when dropped, and waited for.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        // The shell knows `kill` even where no program of that name is installed.
        if shell::output("sh", &["-c", "kill -INT \"$0\"", &pid]).is_none() {
            eprintln!("cannot stop process {pid}");
        }
        if let Err(error) = self.0.wait() {
            eprintln!("process {pid}: {error}");
        }
    }
}

/// Runs the command; the last two lines of its output that are numbers are the figures.
fn figure(command: &mut Command) -> Result<Pair> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, error.trim().lines().last().unwrap_or("(no word)"));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.lines().rev().filter_map(|line| line.trim().parse().ok());
    let figures = numbers.next().zip(numbers.next());
    figures.map(|(passed, own)| Pair { passed, own }).context("the program printed no figures")
}
