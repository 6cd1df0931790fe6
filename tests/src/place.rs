//! The memfrag under test, the C programs and where to put files.

use crate::case::Skip;
use anyhow::{Context, Result, ensure};
use std::collections::hash_map::DefaultHasher;
use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// The workspace's directory.
pub fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The target directory that this test was built into.
fn target_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot learn where this test lies")?;
    // target/PROFILE/deps/NAME
    exe.ancestors().nth(3).map(Path::to_path_buf).context("this test lies in no target directory")
}

/// The memfrag under test: what `MEMFRAG_BIN` names, else a release build made now, since that is what users run.
pub fn memfrag() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_memfrag().map_err(|error| format!("{error:#}")));
    found.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn find_memfrag() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MEMFRAG_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "MEMFRAG_BIN names {}, which is not there", path.display());
        return Ok(path);
    }
    let target = target_dir()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "memfrag", "--target-dir"]).arg(&target).current_dir(root());
    ensure!(build.status().context("cannot run cargo")?.success(), "memfrag does not build");
    Ok(target.join("release/memfrag"))
}

/// A directory for one test's files, removed when dropped. Others may enter it, for tests with less rights.
pub fn scratch() -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("memfrag-e2e-").tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(dir)
}

/// A program of the machine: Debian's own first, as a version manager's wrapper is a shell script. Skips when there
/// is none.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from("/usr/bin"))
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Skip(format!("{name} is not installed; cargo xtask setup installs it")).into())
}

/// The program `programs/NAME.c`, built the usual way: position-independent, dynamically linked, every call kept.
pub fn program(name: &str) -> Result<PathBuf> {
    compile(name, name, &[])
}

/// The program `programs/SOURCE.c` built as NAME with more words for the compiler. What is built stays beside the
/// tests' other build products until source or words change.
pub fn compile(source: &str, name: &str, words: &[&str]) -> Result<PathBuf> {
    let usual = ["-O1", "-g", "-pthread", "-fno-builtin", "-fno-optimize-sibling-calls"];
    let source = root().join("tests/programs").join(source).with_extension("c");
    let text = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let mut hasher = DefaultHasher::new();
    (&text, usual, words).hash(&mut hasher);
    let dir = target_dir()?.join("test-programs").join(format!("{:016x}", hasher.finish()));
    let file = dir.join(name);
    if file.exists() {
        return Ok(file);
    }
    std::fs::create_dir_all(&dir)?;
    let unfinished = dir.join(format!("{name}.{}", std::process::id()));
    let mut cc = Command::new(tool("cc")?);
    cc.args(usual).arg(&source).arg("-o").arg(&unfinished).args(words).arg("-ldl");
    let output = cc.output().context("cannot run cc")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::bail!("cc cannot build {name} with {words:?}:\n{said}");
    }
    std::fs::rename(&unfinished, &file)?;
    Ok(file)
}

/// The shared libraries' directory of this machine, from where the loader took this test's libc.
pub fn libc_path() -> Result<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.ends_with("/libc.so.6")).context("no libc.so.6 is mapped here")?;
    let at = line.find('/').context("a mapping without a path")?;
    Ok(PathBuf::from(&line[at..]))
}

/// A path as a word of a command line.
pub fn word(path: &Path) -> &OsStr {
    path.as_os_str()
}
