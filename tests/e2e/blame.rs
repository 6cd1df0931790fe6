//! `memfrag blame` names the site that keeps memory, and what it would give back is what it does give back.

use anyhow::{Context, Result, ensure};
use memfrag_common::Op;
use memfrag_tests::memfrag::{Backend, explains, memfrag, number, traced};
use memfrag_tests::process::{self, Ended};
use memfrag_tests::{events, place, tests, tests_on_both};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

tests_on_both!(what_is_freed_is_what_was_foretold, in_an_arena_of_its_own);
tests!(other_owners, a_recording_without_pages);

/// The size of the call that stands right before the first free.
const MARK: u64 = 54_321;

/// The sizes of the blocks of the two sites, by which their call sites are known.
const PACKED: u64 = 600;
const SPREAD: u64 = 200;

fn what_is_freed_is_what_was_foretold(backend: Backend) -> Result<()> {
    ["packed", "spread"].into_iter().try_for_each(|site| foretold(backend, &[site]))
}

fn in_an_arena_of_its_own(backend: Backend) -> Result<()> {
    foretold(backend, &["spread", "arena"])
}

/// Traces the program that frees a site and trims, and compares what was resident before and after with what is said
/// of the moment before.
fn foretold(backend: Backend, words: &[&str]) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("two_sites.mfrag");
    let (ended, _) = traced(backend, &recording, Command::new(place::program("two_sites")?).args(words))?;
    let text = ended.text();
    let measured: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(text.clone())?;
    let [before, after] = measured[..] else { anyhow::bail!("the program printed {text:?}") };
    let events = events::read(&recording)?;
    let marked = events.iter().find(|event| matches!(event.op, Op::Alloc { size: MARK, .. }));
    let at = marked.context("the call that marks the moment was not recorded")?.time;
    let blame = blame(&recording, &["--at", &seconds(at)])?;
    eprintln!("{words:?} from {before} to {after}: {:#}", blame["sites"]);
    let calls = events.iter().filter(|event| matches!(event.op, Op::Alloc { .. } | Op::Free { .. }));
    let built = calls.map(|event| event.time).filter(|&time| time < at).max().unwrap_or(0);
    ensure!(number(&blame, "at_ns")? > built, "the pages were not looked at while the program rested: {blame}");
    let sites = blame["sites"].as_array().context("no sites")?;
    let of = |size: u64| {
        let calls = |event: &&memfrag_common::Event| matches!(event.op, Op::Alloc { size: s, .. } if s == size);
        let last = events.iter().rev().find(calls).context("no such block")?;
        let Op::Alloc { site, .. } = last.op else { anyhow::bail!("not an allocation: {last:?}") };
        let rank = sites.iter().position(|each| each["address"] == site).context("a site is not ranked")?;
        anyhow::Ok((rank, &sites[rank]))
    };
    // Blocks of the packed site's size also come from elsewhere, but its own came first.
    let packed = sites.iter().position(|site| number(site, "live_blocks").ok() == Some(12_000)).context("packed")?;
    let (spread_rank, spread) = of(SPREAD)?;
    let packed_live = number(&sites[packed], "live_bytes")?;
    ensure!(packed_live == 12_000 * PACKED, "the packed site holds {packed_live} bytes");
    ensure!(spread_rank == 0 && packed == 1, "ranked {spread_rank} and {packed}");
    ensure!(number(spread, "live_bytes")? * 10 < packed_live, "by bytes they stand the other way: {spread}");
    ensure!(spread["function"] == "site_spread", "the function is not named: {spread}");
    let named = if words[0] == "packed" { &sites[packed] } else { spread };
    let foretold = number(named, "release_bytes")?;
    let freed = before - after;
    ensure!(foretold.abs_diff(freed) * 50 <= freed, "{words:?}: {foretold} foretold, {freed} given back");
    Ok(())
}

fn other_owners() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("two_sites.mfrag");
    traced(Backend::Preload, &recording, Command::new(place::program("two_sites")?).args(["spread", "arena"]))?;
    let whole = blame(&recording, &[])?;
    let stuck = number(&whole, "stuck_bytes")? - number(&whole, "kept_tops_bytes")?;
    for by in ["site", "thread", "size", "age", "module"] {
        let blame = blame(&recording, &["--by", by])?;
        ensure!(blame["by"] == by, "{blame}");
        let sites = blame["sites"].as_array().context("no sites")?;
        let sum = |name| sites.iter().map(|site| number(site, name)).sum::<Result<u64>>();
        ensure!(sum("live_bytes")? > 7_000_000, "{by}: {blame}");
        ensure!(sum("stranded_bytes")? == stuck, "{by}: shares of {stuck} in {blame}");
        let releases: Vec<i64> = sites.iter().filter_map(|site| site["release_bytes"].as_i64()).collect();
        ensure!(releases.len() == sites.len() && releases.is_sorted_by(|a, b| a >= b), "{by}: {releases:?}");
    }
    let text = run(&recording, &[])?.success()?.text();
    // Lines break where they must.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["lie around its", "times what they hold", "trimming would return", "does not tell", "site_spread+0x"]
    {
        ensure!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    Ok(())
}

fn a_recording_without_pages() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("two_sites.mfrag");
    traced(Backend::Preload, &recording, Command::new(place::program("two_sites")?).arg("spread"))?;
    let ended = run(&recording, &["--at", "1us"])?;
    explains(&ended, 125, &[&["pages"], &["record"]])
}

fn run(recording: &Path, words: &[&str]) -> Result<Ended> {
    process::run(memfrag(&["blame"])?.arg(recording).args(words))
}

fn blame(recording: &Path, words: &[&str]) -> Result<Value> {
    let ended = run(recording, &[words, &["--json"]].concat())?.success()?;
    let value: Value = serde_json::from_slice(&ended.stdout).context("not one JSON document")?;
    ensure!(value["format"] == "memfrag-blame", "{value}");
    Ok(value)
}

fn seconds(ns: u64) -> String {
    format!("{}.{:09}s", ns / 1_000_000_000, ns % 1_000_000_000)
}
