//! Running other programs: every command is shown before it runs, and its failure is told with its words.

use anyhow::{Context, Result, ensure};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this program, in the workspace's directory.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(words).current_dir(root()).stdin(Stdio::null());
    command
}

/// A program by its name in `PATH`, in the workspace's directory.
pub(crate) fn program(name: &str, words: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(words).current_dir(root()).stdin(Stdio::null());
    command
}

/// The command as it would be typed, without the environment that xtask adds.
pub(crate) fn words(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut line = vec![name.to_string_lossy().into_owned()];
    for word in command.get_args() {
        let word = word.to_string_lossy();
        line.push(if word.contains([' ', '*', '$', '"']) { format!("'{word}'") } else { word.into_owned() });
    }
    line.join(" ")
}

/// Runs the command to its end and fails with its words and status.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = words(command);
    eprintln!("+ {line}");
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(())
}

/// The standard output of a command that is run silently; `None` when it cannot be run or fails.
pub(crate) fn output(name: &str, words: &[&str]) -> Option<String> {
    let output = program(name, words).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program lies in `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Where what could not run here is noted, for the counts of `cargo xtask test`.
pub(crate) fn skip_log() -> PathBuf {
    target_dir().join("skipped-tests.txt")
}

/// Says that a check cannot run on this machine, and notes it.
pub(crate) fn skip(name: &str, reason: &str) {
    eprintln!("SKIP {name}: {reason}");
    // There is none when no run of `cargo xtask test` counts.
    if let Ok(mut log) = std::fs::OpenOptions::new().append(true).open(skip_log()) {
        let _ = writeln!(log, "SKIP {name}: {reason}");
    }
}

/// Whether this process has the rights of root.
pub(crate) fn is_root() -> bool {
    output("id", &["-u"]).is_some_and(|id| id.trim() == "0")
}

/// An error that has been told already, so that nothing is to be printed behind what told it.
#[derive(Debug)]
pub(crate) struct Told;

impl std::error::Error for Told {}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("see above")
    }
}
