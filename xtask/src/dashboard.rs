//! `cargo xtask bench --dashboard`: the page on a heap of ten million blocks and a million events a second, in Chromium against the real server.
//!
//! `busy-heap` writes the recording of a program that does not exist, `memfrag serve` serves it while it grows, and the
//! scripts of `web/bench` open the page and print figures, which are compared with the goals here. What the figures
//! are is said in `docs/BENCH.md`.

use crate::{bench, shell, web};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

/// Where Debian and others put the browser.
const CHROMIUM: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// A machine that does more than this by itself would be measured instead of the page.
const IDLE_LOAD: f64 = 1.0;
const MIB: f64 = 1_048_576.0;

/// How much is live and how much happens.
struct Size {
    live: u32,
    rate: u32,
    /// Seconds of a run, and runs.
    seconds: u32,
    runs: u32,
}

/// What the goals are for.
const FULL: Size = Size { live: 10_000_000, rate: 1_000_000, seconds: 10, runs: 3 };
/// A short look; the goals are for more.
const SMALL: Size = Size { live: 1_000_000, rate: 200_000, seconds: 5, runs: 1 };

/// A line of the table: what a figure is, its unit's size in that of the script, and the most that it should be.
struct Row {
    what: &'static str,
    figure: &'static str,
    per: f64,
    unit: &'static str,
    most: Option<f64>,
}

const fn row(what: &'static str, figure: &'static str, per: f64, unit: &'static str, most: Option<f64>) -> Row {
    Row { what, figure, per, unit, most }
}

const ROWS: [Row; 13] = [
    row("map: draw p95", "draw_p95_ms", 1.0, "ms", Some(6.0)),
    row("map: draw median", "draw_p50_ms", 1.0, "ms", None),
    row("map: frame p95", "frame_p95_ms", 1.0, "ms", Some(20.0)),
    row("page: frame p95", "page_frame_p95_ms", 1.0, "ms", None),
    row("first cells of the map", "first_map_ms", 1000.0, "s", Some(1.0)),
    row("first paint of the page", "first_paint_ms", 1000.0, "s", Some(1.0)),
    row("bundle, gzipped", "bundle_bytes", 1000.0, "kB", Some(120.0)),
    row("frames of the map", "map_hz", 1.0, "/s", None),
    row("behind the recording p95", "behind_p95_ms", 1.0, "ms", None),
    row("events at the cursor", "events_per_s", 1.0, "/s", None),
    row("events lost", "lost", 1.0, "", Some(0.0)),
    row("server: processor", "server_cpu", 0.01, "%", None),
    row("server: resident", "server_rss_bytes", MIB, "MiB", None),
];

/// Growth of the medians of the soak's second and third thirds, and how much of the median it may be.
const GROWN: [(&str, &str, f64, &str, f64); 3] = [
    ("page: JS heap", "bytes", MIB, "MiB", 0.05),
    ("page: DOM nodes", "nodes", 1.0, "", 0.05),
    ("server: resident", "rss", MIB, "MiB", 0.02),
];
/// What the server keeps of a recording's length: an entry for each chunk of at most 65,536 events.
const INDEX_BYTES_PER_EVENT: f64 = 0.01;

/// How many pairs of malloc and free a traced program makes in a run beside a model, and how many times it runs.
const BESIDE: [&str; 2] = ["40000000", "5"];
const BESIDE_QUICK: [&str; 2] = ["10000000", "1"];

/// Measures how fast the page is, and whether a model beside the heap costs the traced program anything; says so when it
/// cannot be done here.
pub(crate) fn speed(quick: bool) -> Result<()> {
    let size = if quick { SMALL } else { FULL };
    let Some(setup) = Setup::new("the dashboard's speed")? else { return Ok(()) };
    let words = [size.live, size.rate, size.seconds, size.runs].map(|number| number.to_string());
    let load = load();
    let found = setup.run("dashboard.mjs", &words)?;
    println(&format!("\ndashboard: {} live blocks, {} events/s wanted", size.live, size.rate))?;
    let judged = !quick && load <= IDLE_LOAD;
    if quick {
        println("a short look: the goals are for ten million blocks and a million events a second")?;
    } else if !judged {
        println(&format!("SKIPPED: the goals are not judged on a machine with load {load:.1}"))?;
    }
    println(&format!("{:<28}{:>12}{:>12}", "figure", "found", "to reach"))?;
    for Row { what, figure, per, unit, most } in ROWS {
        let value = found.get(figure).with_context(|| format!("dashboard.mjs printed no {figure}"))? / per;
        let shown = format!("{} {unit}", digits(value));
        let reach = most.map_or(String::new(), |most| format!("<= {most} {unit}"));
        let verdict = match most {
            Some(most) if judged => {
                if value <= most {
                    "met"
                } else {
                    "MISSED"
                }
            }
            _ => "",
        };
        println(format!("{what:<28}{shown:>12}{reach:>12}  {verdict}").trim_end())?;
    }
    beside(&setup, quick)
}

/// A traced program with the page open, in turns with a model beside its heap and without.
fn beside(setup: &Setup, quick: bool) -> Result<()> {
    let program = bench::pairs(&setup.dir)?.display().to_string();
    let [pairs, turns] = if quick { BESIDE_QUICK } else { BESIDE };
    let found = setup.run("beside.mjs", &[program, pairs.to_owned(), turns.to_owned()])?;
    let figure = |name: &str| found.get(name).copied().with_context(|| format!("beside.mjs printed no {name}"));
    let (alone, beside) = (figure("alone_ns")?, figure("beside_ns")?);
    println(&format!(
        "\na program under `trace --serve`, the page open: ns a pair of malloc and free, medians of {turns}"
    ))?;
    println(&format!("{:<28}{:>12}", "without a model", digits(alone)))?;
    println(&format!("{:<28}{:>12}  ratio {:.2}", "with glibc's", digits(beside), beside / alone))?;
    println(&format!("events lost {}, the model behind by {}", figure("lost")?, digits(figure("model_behind")?)))
}

/// Watches for `minutes` whether the page's or the server's memory grows; fails when it does.
pub(crate) fn soak(minutes: u32, quick: bool) -> Result<()> {
    let size = if quick { SMALL } else { FULL };
    let Some(setup) = Setup::new("the dashboard's soak")? else { return Ok(()) };
    let found = setup.run("soak.mjs", &[size.live, size.rate, minutes].map(|number| number.to_string()))?;
    let figure = |name: &str| found.get(name).copied().with_context(|| format!("soak.mjs printed no {name}"));
    let events = figure("events_growth")?;
    println(&format!(
        "\nsoak: {minutes} minutes, {} live blocks, {} events/s; last third against the one before",
        size.live,
        digits(figure("events_per_s")?)
    ))?;
    println(&format!("{:<28}{:>12}{:>12}{:>14}", "memory", "median", "grown by", "allowed"))?;
    let mut grown = Vec::new();
    for (what, name, per, unit, share) in GROWN {
        let (median, growth) = (figure(name)?, figure(&format!("{name}_growth"))?);
        let needed = if name == "rss" { events * INDEX_BYTES_PER_EVENT } else { 0.0 };
        let allowed = median * share + needed;
        let show = |value: f64| format!("{} {unit}", digits(value / per));
        let verdict = if growth <= allowed { "met" } else { "MISSED" };
        println(&format!("{what:<28}{:>12}{:>12}{:>14}  {verdict}", show(median), show(growth), show(allowed)))?;
        if growth > allowed {
            grown.push(what);
        }
    }
    ensure!(grown.is_empty(), "memory grows without end: {}", grown.join(", "));
    Ok(())
}

/// What the scripts need.
struct Setup {
    dir: PathBuf,
}

impl Setup {
    /// Builds it; `None` when this machine lacks something, which is said.
    fn new(what: &str) -> Result<Option<Self>> {
        let missing = if shell::find("node").is_none() {
            Some("node is not installed")
        } else if !CHROMIUM.iter().any(|name| shell::find(name).is_some()) {
            Some("chromium is not installed")
        } else {
            None
        };
        if let Some(missing) = missing {
            println(&format!("\n{what}: SKIPPED: {missing}"))?;
            return Ok(None);
        }
        web::packages()?;
        let build = ["build", "--release", "--package", "memfrag", "--package", "memfrag-tests"];
        let mut build = shell::cargo(&build);
        shell::run(build.args(["--bin", "memfrag", "--bin", "busy-heap"]))?;
        let dir = shell::target_dir().join("bench");
        fs::create_dir_all(&dir)?;
        Ok(Some(Self { dir }))
    }

    /// Runs a script of `web/bench` and takes what it prints: a name and a figure a line.
    fn run(&self, script: &str, words: &[String]) -> Result<BTreeMap<String, f64>> {
        let release = shell::target_dir().join("release");
        let mut node = shell::program("node", &[&format!("bench/{script}")]);
        node.arg(&self.dir).args(words).current_dir(shell::root().join("web"));
        node.env("MEMFRAG_BIN", release.join("memfrag")).env("BUSY_HEAP_BIN", release.join("busy-heap"));
        eprintln!("+ {}", shell::words(&node));
        let output = node.stderr(Stdio::inherit()).output().context("cannot run node")?;
        ensure!(output.status.success(), "web/bench/{script} ended with {}", output.status);
        let mut found = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((name, value)) = line.split_once(' ') else { bail!("web/bench/{script} said {line:?}") };
            let value = value.parse().with_context(|| format!("web/bench/{script} said {line:?}"))?;
            found.insert(name.to_owned(), value);
        }
        Ok(found)
    }
}

/// Processes that run or want to, as a mean of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// As many digits as mean something.
fn digits(value: f64) -> String {
    let places = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
    format!("{value:.places$}")
}

/// The tables are the verb's result, so they go to standard output.
fn println(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
