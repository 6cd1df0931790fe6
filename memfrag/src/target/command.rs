//! A command's file, found as the system finds it.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a command cannot be run. By convention the first makes a launcher exit with 127, the others with 126.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No file has the name.
    #[error("{}: command not found{}", .name.display(), searched(.path.as_deref()))]
    NotFound {
        /// The command as given.
        name: OsString,
        /// Where it was looked for; `None` when the name is a path.
        path: Option<OsString>,
    },
    /// It is a directory.
    #[error("{}: is a directory, not a program", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// There is a file, but it may not be run.
    #[error("{}: found, but not executable; check its permissions", .path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// The interpreter that a script names cannot be run.
    #[error("{}: its interpreter {} cannot be run: {}", .script.display(), .interpreter.display(), .source)]
    Interpreter {
        /// The script.
        script: PathBuf,
        /// What its first line names.
        interpreter: PathBuf,
        /// What is wrong with that.
        source: io::Error,
    },
    /// The file cannot be read, so that its allocator is unknown.
    #[error("{}: cannot be read: {}", .path.display(), .source)]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn searched(path: Option<&OsStr>) -> String {
    path.map(|path| format!(" in {}", path.display())).unwrap_or_default()
}

/// Where commands are looked for when `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The most interpreters of interpreters that the kernel follows.
const MOST_INTERPRETERS: usize = 4;

/// Finds the file of a command as `execvp` does: a name with a slash is a path, another one is looked for in `path`,
/// the value of `PATH`, where an empty entry is the current directory. Files that may not be run are passed over.
///
/// # Errors
/// [`CommandError::NotFound`]; [`CommandError::NotExecutable`] when only such files were found;
/// [`CommandError::Directory`] for a path that leads to one.
pub fn resolve(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, CommandError> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match fs::metadata(&path) {
            Ok(_) if is_executable(&path) => Ok(path),
            Ok(metadata) if metadata.is_dir() => Err(CommandError::Directory { path }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(CommandError::NotFound { name: name.to_owned(), path: None })
            }
            _ => Err(CommandError::NotExecutable { path }),
        };
    }
    let search = path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut denied = None;
    if !name.is_empty() {
        for directory in search.as_bytes().split(|&byte| byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            let path = Path::new(OsStr::from_bytes(directory)).join(name);
            if is_executable(&path) {
                return Ok(path);
            }
            if path.exists() && !path.is_dir() {
                denied.get_or_insert(path);
            }
        }
    }
    Err(match denied {
        Some(path) => CommandError::NotExecutable { path },
        None => CommandError::NotFound { name: name.to_owned(), path: Some(search.to_owned()) },
    })
}

/// Whether this process may run the file.
fn is_executable(path: &Path) -> bool {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the name is a string that ends in NUL and outlives the call, which writes nothing.
    let may_run = unsafe { libc::access(name.as_ptr(), libc::X_OK) } == 0;
    may_run && fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// The program that the kernel loads for a file: for a script its interpreter, or that one's.
///
/// # Errors
/// When a file cannot be read, or a script names an interpreter that cannot be run.
pub fn program(path: &Path) -> Result<PathBuf, CommandError> {
    let mut path = path.to_owned();
    for _ in 0..MOST_INTERPRETERS {
        let unreadable = |source| CommandError::Unreadable { path: path.clone(), source };
        let mut head = Vec::new();
        super::file::open(&path).and_then(|file| file.take(256).read_to_end(&mut head)).map_err(unreadable)?;
        let Some(interpreter) = interpreter(&head) else { return Ok(path) };
        if !is_executable(&interpreter) {
            let source = fs::metadata(&interpreter).err().unwrap_or(io::ErrorKind::PermissionDenied.into());
            return Err(CommandError::Interpreter { script: path, interpreter, source });
        }
        path = interpreter;
    }
    Ok(path)
}

/// The interpreter that a script's first line names.
fn interpreter(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?.trim_ascii();
    let name = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).next().filter(|name| !name.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(name.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).expect("a fresh directory can be written to");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the file is ours");
        path
    }

    #[test]
    fn commands_are_found_as_execvp_finds_them() {
        let first = tempfile::tempdir().expect("a temporary directory");
        let second = tempfile::tempdir().expect("a temporary directory");
        let denied = file(first.path(), "tool", "", 0o644);
        let tool = file(second.path(), "tool", "", 0o755);
        fs::create_dir(first.path().join("dir")).expect("a fresh directory");
        let path = OsString::from(format!("/nonexistent:{}:{}", first.path().display(), second.path().display()));
        assert_eq!(resolve(OsStr::new("tool"), Some(&path)).expect("it is in the second"), tool);
        let only = first.path().as_os_str();
        assert!(
            matches!(resolve(OsStr::new("tool"), Some(only)), Err(CommandError::NotExecutable { path }) if path == denied)
        );
        assert!(matches!(resolve(OsStr::new("dir"), Some(only)), Err(CommandError::NotFound { .. })));
        assert!(matches!(resolve(only, None), Err(CommandError::Directory { .. })));
        assert!(matches!(resolve(OsStr::new("other"), Some(&path)), Err(CommandError::NotFound { .. })));
        assert!(matches!(resolve(OsStr::new(""), Some(&path)), Err(CommandError::NotFound { .. })));
        assert!(matches!(resolve(OsStr::new("/nonexistent/x"), None), Err(CommandError::NotFound { path: None, .. })));
        assert!(matches!(resolve(denied.as_os_str(), None), Err(CommandError::NotExecutable { .. })));
        assert_eq!(resolve(OsStr::new("sh"), None).expect("every system has it"), Path::new("/bin/sh"));
    }

    #[test]
    fn scripts_lead_to_their_interpreters() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let inner = file(directory.path(), "inner", "#! /bin/sh -e\necho", 0o755);
        let outer = file(directory.path(), "outer", &format!("#!{} x y\n", inner.display()), 0o755);
        assert_eq!(program(&outer).expect("sh is there"), Path::new("/bin/sh"));
        let broken = file(directory.path(), "broken", "#!/nonexistent/sh\n", 0o755);
        assert!(matches!(program(&broken), Err(CommandError::Interpreter { .. })));
        let plain = file(directory.path(), "plain", "#!\n", 0o755);
        assert_eq!(program(&plain).expect("no interpreter is named"), plain);
        let circle = directory.path().join("circle");
        file(directory.path(), "circle", &format!("#!{}\n", circle.display()), 0o755);
        assert_eq!(program(&circle).expect("it ends"), circle);
    }
}
