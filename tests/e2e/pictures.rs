//! `memfrag report --html` and `--plots`: pictures of a recording, in files that need nothing else.

use anyhow::{Context as _, Result, ensure};
use memfrag_tests::memfrag::{Backend, explains, memfrag, traced};
use memfrag_tests::process;
use memfrag_tests::{place, tests, tests_on_both};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

tests_on_both!(a_page_and_its_pictures);
tests!(places_that_cannot_be_written);

fn a_page_and_its_pictures(backend: Backend) -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("two_sites.mfrag");
    traced(backend, &recording, Command::new(place::program("two_sites")?).arg("spread"))?;
    let (page, plots) = (dir.path().join("page.html"), dir.path().join("new/plots"));
    let words = [
        OsStr::new("report"),
        recording.as_ref(),
        "--html".as_ref(),
        page.as_ref(),
        "--plots".as_ref(),
        plots.as_ref(),
    ];
    let said = process::run(&mut memfrag(&words)?)?.success()?.text();
    ensure!(said.contains("5 pictures in") && said.contains("open it in a browser"), "{said}");
    let mut names: Vec<String> = Vec::new();
    for file in fs::read_dir(&plots)? {
        let file = file?;
        let svg = fs::read_to_string(file.path())?;
        ensure!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{} is no SVG", file.path().display());
        names.push(file.file_name().to_string_lossy().split_once('-').context("no process's id")?.1.to_owned());
    }
    names.sort();
    ensure!(names == ["lifetimes.svg", "memory.svg", "pages.svg", "requested.svg", "sizes.svg"], "{names:?}");
    let html = fs::read_to_string(&page)?;
    ensure!(html.matches("<figure>").count() == names.len() && html.contains("two_sites · pid "), "{html}");
    // The text below the pictures is the report's own.
    let words = [OsStr::new("report"), recording.as_ref()];
    let text = process::run(memfrag(&words)?.env("COLUMNS", "100"))?.success()?.text();
    let line = text.lines().find(|line| line.contains("free inside pages")).context("no ledger")?;
    ensure!(html.contains(line), "{line:?} is not in the page");
    Ok(())
}

fn places_that_cannot_be_written() -> Result<()> {
    let dir = place::scratch()?;
    let recording = dir.path().join("two_sites.mfrag");
    traced(Backend::Preload, &recording, Command::new(place::program("two_sites")?).arg("packed"))?;
    let report = |option: &str, place: &Path| {
        let words = [OsStr::new("report"), recording.as_ref(), option.as_ref(), place.as_ref()];
        process::run(&mut memfrag(&words)?)
    };
    let ended = report("--html", &dir.path().join("none/page.html"))?;
    explains(&ended, 125, &[&["cannot write the page"], &["none/page.html"], &["no such file"]])?;
    let ended = report("--plots", &recording)?;
    explains(&ended, 125, &[&["cannot make the directory"], &["two_sites.mfrag"]])
}
