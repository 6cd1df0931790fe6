//! `cargo xtask ebpf`: builds the BPF object, or checks that the committed one is what its source builds.
//!
//! The object is committed, so that a plain `cargo build` needs stable Rust alone. Beside it lies a digest of all
//! that went into it. The check compares that digest with the sources, which needs no tools; where the very tools
//! that built the object are installed, it builds again and compares the bytes too.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
/// `v3` (kernel 5.12 and later) has the 32-bit and the atomic instructions.
const CODEGEN: &[&str] = &["-Ctarget-cpu=v3"];
/// What the BPF programs leave out of the common crate.
const LEFT_OUT: &[&str] = &[
    "memfrag-common/src/ring.rs",
    "memfrag-common/src/ring",
    "memfrag-common/src/session.rs",
    "memfrag-common/src/prefetch.rs",
    "memfrag-common/src/stacks.rs",
    "memfrag-common/src/stacks",
    "memfrag-common/src/unwind/cfi.rs",
    "memfrag-common/src/unwind/cfi",
    "memfrag-common/src/unwind/walk.rs",
    "memfrag-common/src/unwind/walk",
];
/// Debian's packages with which the object is built.
const HOW_TO_INSTALL: &str = "cargo xtask setup";

/// Runs the verb.
pub(crate) fn run(args: &[String]) -> Result<()> {
    match args {
        [] => build_and_commit(),
        [flag] if flag == "--check" => check(),
        [flag] if flag == "--log" => {
            writeln!(std::io::stdout(), "{}", compile(true)?.display())?;
            Ok(())
        }
        _ => bail!(
            "usage: cargo xtask ebpf [--check | --log]\n  --log builds an object that tells every decision; run memfrag with MEMFRAG_BPF_OBJECT=<the printed path>"
        ),
    }
}

/// Fails when the committed object is not what the sources build.
pub(crate) fn check() -> Result<()> {
    let committed = fs::read_to_string(digest_path()).context("reading the digest of the committed BPF object")?;
    let object = fs::read(object_path()).context("reading the committed BPF object")?;
    let (mut sources, mut bytes, mut tools) = ("", "", "");
    for line in committed.lines() {
        match line.split_once(": ") {
            Some(("sources", value)) => sources = value,
            Some(("object", value)) => bytes = value,
            Some(("tools", value)) => tools = value,
            _ => bail!("{}: unknown line {line:?}", digest_path().display()),
        }
    }
    ensure!(
        bytes == hex(&Sha256::digest(&object)),
        "the committed BPF object is not the one that its digest names; run `cargo xtask ebpf`"
    );
    ensure!(
        sources == digest_of_sources()?,
        "the BPF sources have changed since the object was built; run `cargo xtask ebpf` and commit the result"
    );
    match tool_versions() {
        Ok(here) if here == tools => {
            let built = fs::read(compile(false)?)?;
            ensure!(built == object, "the same tools build another object from the same sources");
            eprintln!("the BPF object is what its sources build ({tools})");
        }
        Ok(here) => eprintln!("the BPF object's digest is right; not rebuilt: built with {tools}, here is {here}"),
        Err(missing) => eprintln!("the BPF object's digest is right; not rebuilt: {missing:#}"),
    }
    Ok(())
}

fn build_and_commit() -> Result<()> {
    let tools = tool_versions()?;
    let built = fs::read(compile(false)?)?;
    let here = [Some(crate::shell::root().into_os_string()), std::env::var_os("HOME")];
    for path in here.iter().flatten().map(|path| path.as_encoded_bytes()).filter(|path| path.len() > 1) {
        ensure!(!built.windows(path.len()).any(|window| window == path), "the object holds a path of this machine");
    }
    fs::create_dir_all(object_path().parent().expect("the object lies in a folder"))?;
    fs::write(object_path(), &built)?;
    let digest =
        format!("sources: {}\nobject: {}\ntools: {tools}\n", digest_of_sources()?, hex(&Sha256::digest(&built)));
    fs::write(digest_path(), digest)?;
    eprintln!("{} ({} bytes)", object_path().display(), built.len());
    Ok(())
}

fn compile(log: bool) -> Result<PathBuf> {
    let root = crate::shell::root();
    let rustc = bpf_rustc()?;
    let sysroot = text_of(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))?;
    let mut flags: Vec<String> = CODEGEN.iter().map(ToString::to_string).collect();
    for (from, to) in
        [(root.to_str().context("the project's path is not UTF-8")?, "."), (&home, "cargo"), (sysroot.trim(), "rust")]
    {
        flags.push(format!("--remap-path-prefix={from}={to}"));
    }
    let target_dir = root.join("target/ebpf");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "--target-dir"]).arg(&target_dir);
    if log {
        cargo.args(["--features", "log"]);
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(root.join("memfrag-ebpf"))
        .env("RUSTC", &rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    ensure!(cargo.status()?.success(), "building the BPF programs failed");
    Ok(target_dir.join(TARGET).join("release/memfrag"))
}

/// The compiler that has the core library of the BPF target: Debian's, or the one that `MEMFRAG_BPF_RUSTC` names.
fn bpf_rustc() -> Result<PathBuf> {
    let rustc = std::env::var_os("MEMFRAG_BPF_RUSTC").map_or_else(|| PathBuf::from("/usr/bin/rustc"), PathBuf::from);
    let libraries =
        text_of(Command::new(&rustc).args(["--print", "target-libdir", "--target", TARGET])).with_context(|| {
            format!("no compiler for the BPF target ({}); `{HOW_TO_INSTALL}` installs it", rustc.display())
        })?;
    ensure!(
        Path::new(libraries.trim()).is_dir(),
        "{} has no core library for {TARGET}; `{HOW_TO_INSTALL}` installs it",
        rustc.display()
    );
    Ok(rustc)
}

fn tool_versions() -> Result<String> {
    let rustc = text_of(Command::new(bpf_rustc()?).arg("--version"))?;
    let linker = text_of(Command::new("bpf-linker").arg("--version"))
        .with_context(|| format!("no bpf-linker; `{HOW_TO_INSTALL}` installs it"))?;
    Ok(format!("{}, {}", rustc.trim(), linker.trim()))
}

fn text_of(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(std::process::Stdio::inherit()).output().with_context(|| format!("running {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// A digest of everything in the object that is ours: the sources, the lock file and the flags.
fn digest_of_sources() -> Result<String> {
    let root = crate::shell::root();
    let mut files = vec![
        root.join("memfrag-ebpf/Cargo.toml"),
        root.join("memfrag-ebpf/Cargo.lock"),
        root.join("memfrag-common/Cargo.toml"),
    ];
    for folder in ["memfrag-ebpf/src", "memfrag-common/src"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.retain(|file| !LEFT_OUT.iter().any(|part| file.starts_with(root.join(part))));
    files.sort();
    let mut digest = Sha256::new();
    digest.update(CODEGEN.join(" "));
    for file in files {
        let contents = fs::read(&file)?;
        digest.update(format!("\0{}\0{}\0", file.strip_prefix(&root)?.display(), contents.len()));
        digest.update(contents);
    }
    Ok(hex(&digest.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn object_path() -> PathBuf {
    crate::shell::root().join("memfrag-ebpf/object/memfrag.o")
}

fn digest_path() -> PathBuf {
    crate::shell::root().join("memfrag-ebpf/object/memfrag.digest")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
