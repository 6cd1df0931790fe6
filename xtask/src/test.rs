//! `cargo xtask test`: what CI runs, from a clean clone, with one line of counts at the end.
//!
//! A failed step does not stop the ones after it, so that one run tells everything. A test that cannot run on this
//! machine says `SKIP name: reason`, on its output or in the file that `MEMFRAG_SKIP_LOG` names; it is counted as
//! skipped, not as passed, and named again at the end.

use crate::{lint, setup, shell, web};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// `cargo xtask test [--long]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let long = match args {
        [] => false,
        [word] if word == "--long" => true,
        _ => bail!("only --long is known"),
    };
    let mut tally = Tally::new()?;
    tally.check("setup", || setup::run(&[]));
    for (name, check) in lint::CHECKS {
        tally.check(name, check);
    }
    for package in with_loom() {
        tally.suite(&format!("{package} under loom"), &mut loom(&package));
    }
    let workspace = ["test", "--workspace", "--exclude", "memfrag-tests", "--no-fail-fast", "--", "--show-output"];
    tally.suite("unit tests", &mut shell::cargo(&workspace));
    tally.check("release build", || shell::run(&mut shell::cargo(RELEASE)));
    tally.suite("end to end", &mut end_to_end(long));
    tally.check("heap map in a browser", web::browser);
    tally.check("a second build has nothing to do", nothing_to_rebuild);
    tally.close()
}

/// The binary that the end-to-end tests run is the one that users get.
const RELEASE: &[&str] = &["build", "--release", "--package", "memfrag"];

/// Packages whose manifest names loom.
fn with_loom() -> Vec<String> {
    let manifests = [("memfrag-common", "memfrag-common"), ("preload-fallback", "memfrag-preload")];
    let names_loom = |dir: &str| {
        std::fs::read_to_string(shell::root().join(dir).join("Cargo.toml"))
            .is_ok_and(|manifest| manifest.lines().any(|line| line.trim_start().starts_with("loom")))
    };
    manifests.iter().filter(|(dir, _)| names_loom(dir)).map(|(_, package)| (*package).to_owned()).collect()
}

fn loom(package: &str) -> Command {
    let mut command = shell::cargo(&["test", "--release", "--package", package, "--lib", "--tests"]);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    // Other flags for every crate would throw away what is built; so they get a directory of their own.
    command.arg("--target-dir").arg(shell::target_dir().join("loom"));
    command.env("RUSTFLAGS", format!("{flags} --cfg loom"));
    command
}

fn end_to_end(long: bool) -> Command {
    let words = ["test", "--package", "memfrag-tests", "--no-fail-fast", "--", "--test-threads=1", "--nocapture"];
    let mut command = shell::cargo(&words);
    command.env("MEMFRAG_BIN", shell::target_dir().join("release/memfrag"));
    if long {
        command.env("MEMFRAG_LONG", "1");
    }
    command
}

/// A build script that names something that changes would make every build a full one.
fn nothing_to_rebuild() -> Result<()> {
    shell::run(&mut shell::cargo(&["build", "--workspace"]))?;
    let mut again = shell::cargo(&["build", "--workspace"]);
    eprintln!("+ {}", shell::words(&again));
    let output = again.env("CARGO_TERM_COLOR", "never").output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the second build failed:\n{text}");
    let built: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("Compiling")).collect();
    ensure!(built.is_empty(), "built again without a change:\n{}", built.join("\n"));
    Ok(())
}

/// The counts so far.
struct Tally {
    passed: usize,
    failures: Vec<String>,
    skips: BTreeMap<String, String>,
    skip_log: PathBuf,
}

impl Tally {
    fn new() -> Result<Self> {
        let skip_log = shell::skip_log();
        std::fs::create_dir_all(shell::target_dir())?;
        std::fs::write(&skip_log, "").with_context(|| format!("cannot write {}", skip_log.display()))?;
        Ok(Self { passed: 0, failures: Vec::new(), skips: BTreeMap::new(), skip_log })
    }

    /// Runs one thing that succeeds or fails as a whole.
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        let begun = Instant::now();
        eprintln!("== {name}");
        match check() {
            Ok(()) => self.passed += 1,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.failures.push(name.to_owned());
            }
        }
        eprintln!("== {name}: {:.1} s", begun.elapsed().as_secs_f64());
    }

    /// Runs a command that closes each of its test binaries with libtest's line of counts.
    fn suite(&mut self, name: &str, command: &mut Command) {
        let begun = Instant::now();
        eprintln!("== {name}\n+ {}", shell::words(command));
        let failed_before = self.failures.len();
        match self.follow(name, command) {
            Ok(true) => {}
            // A binary that crashed, or did not compile, has no closing line.
            Ok(false) if self.failures.len() > failed_before => {}
            Ok(false) => self.failures.push(format!("{name}: ended before its counts")),
            Err(error) => self.failures.push(format!("{name}: {error:#}")),
        }
        eprintln!("== {name}: {:.1} s", begun.elapsed().as_secs_f64());
    }

    /// Shows the command's output as it comes, and counts. True when the command succeeded.
    fn follow(&mut self, name: &str, command: &mut Command) -> Result<bool> {
        let mut child = command.stdout(Stdio::piped()).env("MEMFRAG_SKIP_LOG", &self.skip_log).spawn()?;
        let output = child.stdout.take().context("no standard output")?;
        let mut out = std::io::stdout();
        for line in BufReader::new(output).split(b'\n') {
            let line = line?;
            out.write_all(&line)?;
            out.write_all(b"\n")?;
            let line = String::from_utf8_lossy(&line);
            if let Some(counts) = Counts::parse(&line) {
                self.passed += counts.passed;
                self.failures.extend((0..counts.failed).map(|_| format!("{name}: a test, see above")));
                for _ in 0..counts.ignored {
                    let key = format!("{name}: ignored test {}", self.skips.len() + 1);
                    self.skips.insert(key, "marked #[ignore]".to_owned());
                    self.passed += 1;
                }
            } else if let Some((test, reason)) = skip_line(&line) {
                self.skips.insert(test.to_owned(), reason.to_owned());
            }
        }
        Ok(child.wait()?.success())
    }

    /// Prints what failed and what was skipped, and as the last line the counts.
    fn close(mut self) -> Result<()> {
        for line in std::fs::read_to_string(&self.skip_log)?.lines() {
            if let Some((test, reason)) = skip_line(line) {
                self.skips.insert(test.to_owned(), reason.to_owned());
            }
        }
        for (test, reason) in &self.skips {
            eprintln!("SKIPPED {test}: {reason}");
        }
        for failure in &self.failures {
            eprintln!("FAILED {failure}");
        }
        let (failed, skipped) = (self.failures.len(), self.skips.len());
        // libtest counts a test that skipped itself as passed.
        let passed = self.passed.saturating_sub(skipped);
        std::io::stderr().flush()?;
        writeln!(std::io::stdout(), "{passed} passed, {failed} failed, {skipped} skipped")?;
        ensure!(failed == 0, shell::Told);
        Ok(())
    }
}

/// What libtest's closing line says.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Counts {
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.split_once("test result: ")?.1.split_once(". ")?;
        let number = |what: &str| {
            counts.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok()).unwrap_or(0)
        };
        Some(Self { passed: number("passed"), failed: number("failed"), ignored: number("ignored") })
    }
}

/// `SKIP name: reason`. Names hold `::` but no colon followed by a space.
fn skip_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("SKIP ")?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_closing_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.02s";
        assert_eq!(Counts::parse(line), Some(Counts { passed: 12, failed: 3, ignored: 1 }));
        assert_eq!(Counts::parse("test ledger::preload ... ok"), None);
    }

    #[test]
    fn skips_carry_name_and_reason() {
        let line = "SKIP ledger::exact::ebpf: not root: run as root";
        assert_eq!(skip_line(line), Some(("ledger::exact::ebpf", "not root: run as root")));
        assert_eq!(skip_line("SKIPPED ledger::exact::ebpf: not root"), None);
    }
}
