//! The session's directory: the library and, beside it or elsewhere, the shared files.

use memfrag_common::session::{DATA, LIBRARY};
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The library, as built with this program.
static LIBRARY_BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libmemfrag_preload.so"));

/// The session's directories. They are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    home: PathBuf,
    data: PathBuf,
    keep_library: bool,
}

impl Directory {
    /// Makes the directories: the shared files in memory where that is possible, the library where code may run.
    pub(crate) fn create() -> io::Result<Self> {
        let candidates = candidates();
        let mut tried = Vec::new();
        let mut make = |wants_exec: bool| {
            for parent in &candidates {
                if wants_exec && forbids_exec(parent) {
                    tried.push(format!("{} is mounted noexec", parent.display()));
                    continue;
                }
                // The dynamic linker splits its list of libraries at these.
                if parent.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':' | b'\n')) {
                    tried.push(format!("{} has a space or a colon in its name", parent.display()));
                    continue;
                }
                match make_unique(parent) {
                    Ok(path) => return Ok(path),
                    Err(error) => tried.push(format!("{}: {error}", parent.display())),
                }
            }
            let text = format!("cannot make a session directory ({}); set TMPDIR to a writable one", tried.join("; "));
            Err(io::Error::other(text))
        };
        let home = make(true)?;
        let mut directory = Self { data: home.join(DATA), home, keep_library: false };
        if candidates.first().is_some_and(|first| directory.home.starts_with(first)) {
            DirBuilder::new().mode(0o700).create(&directory.data)?;
        } else {
            let data = make(false)?;
            symlink(&data, directory.home.join(DATA))?;
            directory.data = data;
        }
        File::create(directory.library())?.write_all(LIBRARY_BYTES)?;
        Ok(directory)
    }

    /// The library's path.
    pub(crate) fn library(&self) -> PathBuf {
        self.home.join(LIBRARY)
    }

    /// Where the shared files are.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Leaves the library where it is when this is dropped: programs that are still running name it to the programs
    /// that they start, and the dynamic linker would complain about a missing one.
    pub(crate) fn keep_library(&mut self) {
        self.keep_library = true;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A failure leaves files behind, which is all that can be done about it.
        let _ = fs::remove_dir_all(&self.data);
        if !self.keep_library {
            let _ = fs::remove_dir_all(&self.home);
        }
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/dev/shm")];
    paths.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()));
    paths.push(std::env::temp_dir());
    paths.push(PathBuf::from("/var/tmp"));
    paths
}

fn make_unique(parent: &Path) -> io::Result<PathBuf> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    for attempt in 0..100 {
        let path = parent.join(format!("memfrag-{}-{:x}", std::process::id(), time + attempt));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn forbids_exec(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return true };
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and the structure is written.
    let result = unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) };
    // SAFETY: on success the structure is initialised.
    result == 0 && unsafe { facts.assume_init() }.f_flag & libc::ST_NOEXEC != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_has_the_library_and_goes_away() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::create().unwrap();
        let (home, data) = (directory.home.clone(), directory.data.clone());
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read(directory.library()).unwrap(), LIBRARY_BYTES);
        assert!(fs::canonicalize(home.join(DATA)).unwrap() == fs::canonicalize(&data).unwrap());
        drop(directory);
        assert!(!home.exists() && !data.exists());
    }
}
