//! The session's directory: the library and, beside it or elsewhere, the shared files.
//!
//! The daemon keeps its directories locked as long as it lives. One that nobody keeps locked belonged to a daemon that
//! was killed, and is removed by the next one.

use crate::target::process;
use memfrag_common::session::{DATA, DIRECTORY, LIBRARY, daemon_of};
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
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
    /// Open and locked.
    locked: Vec<File>,
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
        let (home, lock) = make(true)?;
        let mut directory = Self { data: home.join(DATA), home, keep_library: false, locked: vec![lock] };
        if candidates.first().is_some_and(|first| directory.home.starts_with(first)) {
            DirBuilder::new().mode(0o700).create(&directory.data)?;
        } else {
            let (data, lock) = make(false)?;
            directory.locked.push(lock);
            symlink(&data, directory.home.join(DATA))?;
            directory.data = data;
        }
        let user = fs::metadata(&directory.home)?.uid();
        for parent in &candidates {
            remove_orphans(parent, user);
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

/// Makes a directory and locks it. It gets its name only then, so that nobody finds it unlocked.
fn make_unique(parent: &Path) -> io::Result<(PathBuf, File)> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    for attempt in 0..100 {
        let name = format!("{DIRECTORY}{}-{:x}", std::process::id(), time + attempt);
        let (unlocked, path) = (parent.join(format!(".{name}")), parent.join(name));
        match DirBuilder::new().mode(0o700).create(&unlocked) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        let lock = File::open(&unlocked)?;
        // Where no locks are to be had, nobody can take it for an orphan either.
        let _ = lock.try_lock();
        fs::rename(&unlocked, &path)?;
        return Ok((path, lock));
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes the user's sessions' directories whose daemon has ended without doing so. What cannot be removed, stays.
fn remove_orphans(parent: &Path, user: u32) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let own = |facts: fs::Metadata| facts.is_dir() && facts.uid() == user;
        let Some(daemon) = entry.file_name().to_str().and_then(daemon_of) else { continue };
        if process::Stat::read(daemon).is_ok() || !entry.metadata().is_ok_and(own) {
            continue;
        }
        // A daemon of another process namespace has its lock.
        let path = entry.path();
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_err() {
            continue;
        }
        if path.join(LIBRARY).exists() && in_use(&path) {
            // As at the end of a session: the programs go on, and start others.
            let _ = fs::remove_dir_all(path.join(DATA));
        } else {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Whether a process has mapped a library in the directory, or would hand it to the programs that it starts.
fn in_use(home: &Path) -> bool {
    let name = home.as_os_str().as_bytes();
    let names = |pid: u32, file: &str| {
        fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|text| text.windows(name.len()).any(|part| part == name))
    };
    // Who cannot be asked belongs to another user, who cannot read the directory.
    process::all().map_or(true, |pids| pids.into_iter().any(|pid| names(pid, "maps") || names(pid, "environ")))
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

    /// A directory as a daemon makes it that then is killed.
    fn orphan(parent: &Path) -> PathBuf {
        let (made, lock) = make_unique(parent).unwrap();
        let mut daemon = std::process::Command::new("true").spawn().unwrap();
        daemon.wait().unwrap();
        let path = parent.join(format!("{DIRECTORY}{}-1234abcd", daemon.id()));
        fs::rename(made, &path).unwrap();
        fs::write(path.join(LIBRARY), LIBRARY_BYTES).unwrap();
        fs::create_dir(path.join(DATA)).unwrap();
        fs::write(path.join(DATA).join("1-2"), "ring").unwrap();
        drop(lock);
        path
    }

    #[test]
    fn what_killed_daemons_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let user = fs::metadata(parent.path()).unwrap().uid();
        let orphan = orphan(parent.path());
        let (living, _) = make_unique(parent.path()).unwrap();
        let elsewhere = self::orphan(parent.path());
        let lock = File::open(&elsewhere).unwrap();
        lock.lock().unwrap();
        let others =
            ["memfrag-trace", "memfrag-12-xyz", "memfrag--1", "other-1-2"].map(|name| parent.path().join(name));
        for path in &others {
            fs::create_dir(path).unwrap();
        }
        let file = parent.path().join("memfrag-12-34");
        fs::write(&file, "no directory").unwrap();
        remove_orphans(parent.path(), user);
        assert!(!orphan.exists() && living.exists() && elsewhere.exists() && file.exists());
        assert!(others.iter().all(|path| path.exists()));
    }

    #[test]
    fn a_library_stays_while_a_program_names_it() {
        let parent = tempfile::tempdir().unwrap();
        let user = fs::metadata(parent.path()).unwrap().uid();
        let orphan = orphan(parent.path());
        let mut program = std::process::Command::new("sleep");
        let mut program = program.arg("100").env("LD_PRELOAD", orphan.join(LIBRARY)).spawn().unwrap();
        // Until it has become the command, it has this program's environment.
        while !in_use(&orphan) {
            std::thread::yield_now();
        }
        remove_orphans(parent.path(), user);
        assert!(orphan.join(LIBRARY).exists() && !orphan.join(DATA).exists());
        program.kill().unwrap();
        program.wait().unwrap();
        remove_orphans(parent.path(), user);
        assert!(!orphan.exists());
    }
}
