//! Builds the preload library and the replay program, so that they can be embedded in memfrag.
//!
//! The library is built by a cargo of its own, in a target directory of its own: always optimised, whatever this build is.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    for source in [
        "../preload-fallback/src",
        "../preload-fallback/build.rs",
        "../preload-fallback/Cargo.toml",
        "../memfrag-common/src",
        "../memfrag-common/Cargo.toml",
        "../Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed={}", root.join("src/replay/program/replay.c").display());
    println!("cargo::rerun-if-env-changed=CC");
    build_replay(&root.join("src/replay/program/replay.c"), &out.join("replay"))?;
    build_preload(&root.join("../preload-fallback"), &out.join("preload"), &out.join("libmemfrag_preload.so"))
}

/// Builds the replay program by the C compiler that Rust links with anyway.
fn build_replay(source: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-O2", "-s", "-pthread", "-o"])
        .args([to, source])
        .status()
        .map_err(|error| format!("cannot run the C compiler {}: {error}", compiler.display()))?;
    if !status.success() {
        return Err(format!("building {} by {} failed: {status}", source.display(), compiler.display()).into());
    }
    Ok(())
}

/// Builds the library of the package at `package` in `target`, and copies it to `to`.
fn build_preload(package: &Path, target: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells this script is not meant for another build: flags of a checker, of a model checker, of a
    // coverage run would end up in a library that runs in other people's programs.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "CLIPPY", "DEP_", "__CARGO"];
        let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
        if foreign.iter().any(|prefix| text.starts_with(prefix)) && !kept.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    let status = cargo
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .status()
        .map_err(|error| format!("cannot run cargo to build the preload library: {error}"))?;
    if !status.success() {
        return Err(format!("building the preload library in {} failed: {status}", package.display()).into());
    }
    let built = target.join("release/libmemfrag_preload.so");
    std::fs::copy(&built, to).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}
