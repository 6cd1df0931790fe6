//! What the ways cost beside each other, and the ratios that are wanted of them.

use super::{How, Outcome, WAYS, Way};
use anyhow::Result;

/// A ratio that is wanted: its name, what was found, and the bound.
struct Goal {
    what: &'static str,
    value: Option<f64>,
    bound: f64,
    at_most: bool,
}

impl Goal {
    const fn at_most(what: &'static str, value: Option<f64>, bound: f64) -> Self {
        Self { what, value, bound, at_most: true }
    }

    const fn at_least(what: &'static str, value: Option<f64>, bound: f64) -> Self {
        Self { what, value, bound, at_most: false }
    }
}

/// What passes for a pair depends on how many processors there are for the program, for who reads its events and for who
/// writes them; what the program's own threads are given, on the calls alone.
pub(super) fn print(results: &[Outcome]) -> Result<()> {
    let columns = ["way", "threads", "ns a pair", "added", "of its own", "lost"];
    let [way, threads, pair, more, own, lost] = columns;
    println(&format!("\n{way:<34}{threads:>8}{pair:>12}{more:>10}{own:>12}{lost:>8}"))?;
    let of = |name: &str| WAYS.iter().zip(results).find(|(way, _)| way.name == name).map(|(_, outcome)| outcome);
    let median = |name: &str| of(name)?.median();
    let added = |name: &str, bare: &str| Some(median(name)? - median(bare)?);
    let own_added = |name: &str, bare: &str| Some(of(name)?.least_own()? - of(bare)?.least_own()?);
    for (way, outcome) in WAYS.iter().zip(results) {
        let bare = if way.threads == 1 { "bare" } else { "bare, 2 threads" };
        match (&outcome.skipped, median(way.name)) {
            (None, Some(figure)) => println(&format!(
                "{:<34}{:>8}{figure:>12.1}{:>10.1}{:>12.1}{:>8}",
                way.name,
                way.threads,
                added(way.name, bare).unwrap_or(0.0),
                own_added(way.name, bare).unwrap_or(0.0),
                outcome.lost
            ))?,
            (reason, _) => {
                println(&format!("{:<34}SKIPPED: {}", way.name, reason.as_deref().unwrap_or("no figure")))?;
            }
        }
    }
    let ratio = |left: Option<f64>, right: Option<f64>| Some(left? / right?);
    let goals = [
        Goal::at_most("ebpf / empty programs", ratio(median("ebpf"), median("ebpf, empty programs")), 1.25),
        Goal::at_least("first instructions / ebpf", ratio(median("ebpf at first instructions"), median("ebpf")), 3.0),
        Goal::at_least("bpftrace / ebpf", ratio(median("bpftrace, live set"), median("ebpf")), 4.0),
        Goal::at_most(
            "added: preload / heaptrack",
            ratio(added("preload", "bare"), added("heaptrack --raw", "bare")),
            0.25,
        ),
        Goal::at_most(
            "the same, not recorded",
            ratio(added("preload, not recorded", "bare"), added("heaptrack --raw", "bare")),
            0.25,
        ),
        Goal::at_most(
            "added: stacks / heaptrack",
            ratio(added("preload, stacks", "bare"), added("heaptrack --raw", "bare")),
            0.5,
        ),
        Goal::at_most(
            "preload: 2 threads / 1",
            ratio(added("preload, 2 threads", "bare, 2 threads"), added("preload", "bare")),
            1.3,
        ),
        Goal::at_most(
            "the same, not recorded",
            ratio(added("preload, not rec., 2 threads", "bare, 2 threads"), added("preload, not recorded", "bare")),
            1.3,
        ),
        Goal::at_most(
            "own time: preload / heaptrack",
            ratio(own_added("preload", "bare"), own_added("heaptrack --raw", "bare")),
            0.25,
        ),
        Goal::at_most(
            "own time: 2 threads / 1",
            ratio(own_added("preload, 2 threads", "bare, 2 threads"), own_added("preload", "bare")),
            1.3,
        ),
        Goal::at_most(
            "the same, nobody reads",
            ratio(
                own_added("preload, nobody reads, 2 threads", "bare, 2 threads"),
                own_added("preload, nobody reads", "bare"),
            ),
            1.3,
        ),
    ];
    println(&format!("\n{:<34}{:>8}{:>12}", "ratio", "found", "to reach"))?;
    for Goal { what, value, bound, at_most } in goals {
        let sign = if at_most { "<=" } else { ">=" };
        let reach = format!("{sign} {bound}");
        match value {
            Some(value) => {
                let met = if at_most { value <= bound } else { value >= bound };
                println(&format!("{what:<34}{value:>8.2}{reach:>12}  {}", if met { "met" } else { "MISSED" }))?;
            }
            None => println(&format!("{what:<34}{:>8}{reach:>12}  not measured", "-"))?,
        }
    }
    let recorded = |(way, outcome): (&Way, &Outcome)| {
        let counted = matches!(way.how, How::Memfrag { counts_loss: true, .. }) && outcome.skipped.is_none();
        counted.then_some(outcome.lost)
    };
    let lost: Vec<u64> = WAYS.iter().zip(results).filter_map(recorded).collect();
    if lost.is_empty() {
        return println(&format!("{:<34}{:>8}{:>12}  not measured", "events lost", "-", "0"));
    }
    let lost: u64 = lost.iter().sum();
    println(&format!("{:<34}{lost:>8}{:>12}  {}", "events lost", "0", if lost == 0 { "met" } else { "MISSED" }))
}

/// The table is the verb's result, so it goes to standard output.
fn println(line: &str) -> Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
