//! `memfrag compare` sets two states side by side, and what it says of them adds up.

use anyhow::{Context, Result, ensure};
use memfrag_tests::memfrag::{Backend, before_exit, explains, memfrag, traced};
use memfrag_tests::process::{self, Ended};
use memfrag_tests::{place, tests};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

tests!(two_moments_of_one, two_recordings, what_cannot_be_compared);

/// Keeps small blocks among many that go; `count` in all.
fn burst(recording: &Path, count: u32) -> Result<()> {
    let script = format!(
        "import time\ntime.sleep(0.4)\nburst = [bytes(700) for n in range({count})]\nkept = burst[::25]\nburst = None\n\
         time.sleep(0.4)"
    );
    let mut program = Command::new(place::tool("python3")?);
    traced(Backend::Preload, recording, program.args(["-c", &script]).env("PYTHONMALLOC", "malloc"))?;
    Ok(())
}

fn compare(words: &[&str]) -> Result<Ended> {
    process::run(memfrag(&["compare"])?.args(words))
}

fn json(words: &[&str]) -> Result<Value> {
    let ended = compare(&[words, &["--json"]].concat())?.success()?;
    serde_json::from_slice(&ended.stdout).context("no JSON")
}

fn number(value: &Value, path: &str) -> Result<u64> {
    value.pointer(path).and_then(Value::as_u64).with_context(|| format!("{path} is no number in {value}"))
}

fn sum(rows: &Value, path: &str) -> Result<u64> {
    rows["sites"].as_array().context("no call sites")?.iter().map(|row| number(row, path)).sum()
}

fn two_moments_of_one() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("burst.mfrag");
    burst(&recording, 20_000)?;
    let file = recording.to_str().context("a path")?;
    // The program sleeps until then at least, and for as long before its end.
    let found = json(&[&format!("{file}@300ms"), "@600s"])?;
    let (a, b) = (number(&found, "/a/process/end/requested_bytes")?, number(&found, "/b/process/end/requested_bytes")?);
    let part = |name: &str| number(&found, &format!("/between/{name}/bytes"));
    ensure!(part("survivors")? + part("freed")? == a, "what was live at A stays or goes: {}", found["between"]);
    ensure!(part("survivors")? + part("grown")? == b, "what is live at B is old or new: {}", found["between"]);
    ensure!(part("grown")? + part("temporary")? == part("allocated")?, "{}", found["between"]);
    ensure!(part("temporary")? > 20_000 * 700 * 24 / 25, "most of the burst came and went: {}", found["between"]);
    ensure!(sum(&found, "/a_bytes")? == a && sum(&found, "/b_bytes")? == b, "the call sites add up to what is live");
    for (row, bytes) in [("a_bytes", "freed"), ("b_bytes", "grown")] {
        let of_sites: u64 = found["sites"]
            .as_array()
            .context("sites")?
            .iter()
            .map(|site| {
                Ok(number(site, "/between/survivors/bytes")? + number(site, &format!("/between/{bytes}/bytes"))?)
            })
            .sum::<Result<u64>>()?;
        ensure!(of_sites == sum(&found, &format!("/{row}"))?, "{row}: {of_sites} survive or were {bytes}");
    }
    let text = compare(&[&format!("{file}@300ms"), "@600s"])?.success()?.text();
    for words in ["B − A", "Between A and B", "temporary", "Call sites by what they hold more or less"] {
        ensure!(text.contains(words), "{words:?} is missing in\n{text}");
    }
    Ok(())
}

fn two_recordings() -> Result<()> {
    let dir = place::scratch()?;
    let (few, many) = (dir.path().join("few.mfrag"), dir.path().join("many.mfrag"));
    burst(&few, 2_500)?;
    burst(&many, 50_000)?;
    let (few, many) = (few.to_str().context("a path")?, many.to_str().context("a path")?);
    let at = |file: &str| Ok::<_, anyhow::Error>(format!("{file}@{}", before_exit(Path::new(file), 200)?));
    let (few, many) = (at(few)?, at(many)?);
    let found = json(&[&few, &many])?;
    ensure!(found["between"].is_null(), "blocks of two processes are never the same");
    // The same place in the same file is one site, though the addresses differ: that of the kept blocks comes first.
    let first = &found["sites"][0];
    let more = number(first, "/b_bytes")?.saturating_sub(number(first, "/a_bytes")?);
    ensure!(number(first, "/b_blocks")? >= number(first, "/a_blocks")? + 1_900 && more > 1_900 * 700, "{first}");
    let back = json(&[&many, &few])?;
    ensure!(back["sites"][0]["site"] == first["site"] && back["sites"][0]["a_bytes"] == first["b_bytes"], "{back}");
    Ok(())
}

fn what_cannot_be_compared() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("one.mfrag");
    burst(&recording, 100)?;
    let file = recording.to_str().context("a path")?;
    explains(&compare(&[file, "@1s"])?, 125, &[&["earlier comes first"]])?;
    explains(&compare(&[file, file])?, 125, &[&["same state"], &["FILE@TIME"]])?;
    explains(&compare(&["@1s", file])?, 125, &[&["names a recording"]])?;
    explains(&compare(&[&format!("{file}@soon"), file])?, 125, &[&["no time"]])?;
    explains(&compare(&[file, "/no/such.mfrag"])?, 125, &[&["/no/such.mfrag"]])?;
    explains(&compare(&["--pid", "1", &format!("{file}@700ms"), file])?, 125, &[&["no process 1"], &["python3"]])
}
