//! `cargo xtask web`: checks, tests and builds the dashboard's page.
//!
//! The built page is committed, so that a plain `cargo build` needs no Node. The check builds it again and compares
//! every byte; where there is no Node it says so, and the page is taken as it is.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs the verb.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [] => {
            packages()?;
            script(&["run", "--silent", "check"])?;
            script(&["test", "--silent"])?;
            build(&dist())
        }
        [flag] if flag == "--check" => check(),
        _ => bail!("usage: cargo xtask web [--check]"),
    }
}

/// Has the packages at hand that the page is built and tried with.
pub(crate) fn packages() -> Result<()> {
    ensure!(tools(), "node and npm are needed; `cargo xtask setup` installs them");
    prepare()
}

/// Fails when a type does not fit, a unit test fails, or the committed page is not what its sources build.
pub(crate) fn check() -> Result<()> {
    if !tools() {
        shell::skip("dashboard", "node or npm is not installed; `cargo xtask setup` does it as root");
        return Ok(());
    }
    prepare()?;
    script(&["run", "--silent", "check"])?;
    script(&["test", "--silent"])?;
    let fresh = shell::target_dir().join("web");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    build(&fresh)?;
    let differing = differing(&dist(), &fresh)?;
    ensure!(differing.is_empty(), "not what the sources build: {}; run `cargo xtask web`", differing.join(", "));
    Ok(())
}

/// Tries the heap map in Chromium, against a server that makes up a heap.
pub(crate) fn browser() -> Result<()> {
    const NAME: &str = "heap map in a browser";
    if !tools() {
        shell::skip(NAME, "node or npm is not installed; `cargo xtask setup` does it as root");
        return Ok(());
    }
    if !["chromium", "chromium-browser", "google-chrome"].iter().any(|name| shell::find(name).is_some()) {
        shell::skip(NAME, "chromium is not installed; `cargo xtask setup` does it as root");
        return Ok(());
    }
    prepare()?;
    script(&["run", "--silent", "test:browser"])
}

fn web() -> PathBuf {
    shell::root().join("web")
}

fn dist() -> PathBuf {
    web().join("dist")
}

fn tools() -> bool {
    shell::find("node").is_some() && shell::find("npm").is_some()
}

/// Installs the packages that the lock file names, unless they are there already.
fn prepare() -> Result<()> {
    let lock = fs::read(web().join("package-lock.json")).context("reading web/package-lock.json")?;
    let digest = format!("{:x?}", Sha256::digest(&lock));
    let stamp = web().join("node_modules/.installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == digest) {
        return Ok(());
    }
    script(&["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])?;
    fs::write(&stamp, digest).with_context(|| format!("cannot write {}", stamp.display()))
}

fn script(words: &[&str]) -> Result<()> {
    shell::run(shell::program("npm", words).current_dir(web()).stdout(std::io::stderr()))
}

fn build(directory: &Path) -> Result<()> {
    let mut node = shell::program("node", &["build.mjs"]);
    shell::run(node.arg(directory).current_dir(web()).stdout(std::io::stderr()))
}

/// The files that only one of two directories has, or that differ.
fn differing(committed: &Path, fresh: &Path) -> Result<Vec<String>> {
    let mut names = std::collections::BTreeSet::new();
    for directory in [committed, fresh] {
        for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
            names.insert(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    names.retain(|name| match (fs::read(committed.join(name)), fs::read(fresh.join(name))) {
        (Ok(committed), Ok(fresh)) => committed != fresh,
        _ => true,
    });
    Ok(names.into_iter().collect())
}
