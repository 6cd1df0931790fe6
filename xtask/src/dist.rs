//! `cargo xtask dist`: the binary to hand out, with its digest, tried where nothing else lies beside it.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// `cargo xtask dist`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "dist takes no words");
    shell::run(&mut shell::cargo(&["build", "--release", "--package", "memfrag", "--locked"]))?;
    let dist = shell::target_dir().join("dist");
    std::fs::create_dir_all(&dist).with_context(|| format!("cannot make {}", dist.display()))?;
    let binary = dist.join("memfrag");
    let built = shell::target_dir().join("release/memfrag");
    std::fs::copy(&built, &binary).with_context(|| format!("cannot copy {}", built.display()))?;
    strip(&binary)?;
    alone(&binary)?;

    let digest =
        shell::program("sha256sum", &["memfrag"]).current_dir(&dist).output().context("cannot run sha256sum")?;
    ensure!(digest.status.success(), "sha256sum failed: {}", String::from_utf8_lossy(&digest.stderr));
    std::fs::write(dist.join("memfrag.sha256"), &digest.stdout)?;
    eprintln!("{}\n{}", binary.display(), String::from_utf8_lossy(&digest.stdout).trim());
    Ok(())
}

/// Takes the tables of source lines out, which are five sixths of the file; the names of functions stay for backtraces.
fn strip(binary: &Path) -> Result<()> {
    let Some(path) = binary.to_str() else { bail!("{} is not UTF-8", binary.display()) };
    shell::run(&mut shell::program("strip", &["--strip-debug", path])).context("strip is part of binutils, as ld is")
}

/// Runs the binary where it has only itself: it must carry the BPF object and the preload library.
fn alone(binary: &Path) -> Result<()> {
    let empty = shell::target_dir().join("dist-trial");
    if empty.exists() {
        std::fs::remove_dir_all(&empty)?;
    }
    std::fs::create_dir_all(&empty)?;
    let copy = empty.join("memfrag");
    std::fs::copy(binary, &copy)?;
    let trials: [&[&str]; 5] = [
        &["--version"],
        &["trace", "--backend", "preload", "-o", "trial.mfrag", "--", "ls"],
        &["report", "trial.mfrag", "--json"],
        // With eBPF where that is allowed.
        &["trace", "--backend", "auto", "-o", "trial.mfrag", "--", "ls"],
        &["report", "trial.mfrag", "--json"],
    ];
    for words in trials {
        let mut command = shell::program("./memfrag", words);
        // Its own directory is found by nothing but the binary's path; the environment names no build.
        command.current_dir(&empty).env_clear().env("PATH", "/usr/bin:/bin").stdout(std::process::Stdio::null());
        shell::run(&mut command)?;
    }
    std::fs::remove_dir_all(&empty)?;
    Ok(())
}
