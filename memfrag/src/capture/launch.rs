//! A command that is held until the probes are in, so that its first call is seen.
//!
//! The process is made, waits on a pipe, and becomes the command when told to. An `exec` that fails is reported over
//! a second pipe, which a successful one closes.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A process that waits to become the command.
#[derive(Debug)]
pub struct Held {
    pid: u32,
    go: File,
    failure: File,
}

/// A running command. It is not ended when this is dropped.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    status: Option<i32>,
}

/// Everything that the new process needs, made before it exists: between `fork` and `exec` nothing may allocate.
struct Image {
    /// Owns what the pointers below point to.
    _strings: Vec<CString>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
}

impl Image {
    fn new(command: &[OsString], environment: &[(OsString, OsString)]) -> io::Result<Self> {
        let mut strings: Vec<CString> = Vec::new();
        for word in command {
            strings.push(CString::new(word.as_bytes())?);
        }
        let inherited = std::env::vars_os().filter(|(name, _)| !environment.iter().any(|(other, _)| other == name));
        for (name, value) in inherited.chain(environment.iter().cloned()) {
            let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
            strings.push(CString::new(pair)?);
        }
        let (arguments, environment) = strings.split_at(command.len());
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Ok(Self { arguments: pointers(arguments), environment: pointers(environment), _strings: strings })
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made these descriptors for us.
    let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((own(ends[0]), own(ends[1])))
}

impl Held {
    /// Makes a process that waits to become `command` (program and arguments; the program is searched in `PATH`),
    /// with `environment` added to ours.
    pub fn new(command: &[OsString], environment: &[(OsString, OsString)]) -> io::Result<Self> {
        let image = Image::new(command, environment)?;
        let (wait, go) = pipe()?;
        let (failure, report) = pipe()?;
        // SAFETY: the child calls only functions that are safe between `fork` and `exec`.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop(go);
                become_command(&image, wait.as_raw_fd(), report.as_raw_fd())
            }
            pid => Ok(Self { pid: pid.cast_unsigned(), go: File::from(go), failure: File::from(failure) }),
        }
    }

    /// The process's id, before and after it has become the command.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the process become the command.
    ///
    /// # Errors
    /// What `exec` said.
    pub fn release(mut self) -> io::Result<Child> {
        let mut child = Child { pid: self.pid, status: None };
        self.go.write_all(&[1])?;
        let mut error = [0; 4];
        match self.failure.read(&mut error)? {
            4 => {
                child.wait()?;
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)))
            }
            _ => Ok(child),
        }
    }

    /// Ends the process without its ever becoming the command.
    pub fn abandon(self) {
        let mut child = Child { pid: self.pid, status: None };
        drop(self.go);
        let _ = child.wait();
    }
}

fn become_command(image: &Image, wait: i32, report: i32) -> ! {
    let mut byte = 0u8;
    // SAFETY: one byte of room. The end of the pipe without a byte means that the command is not wanted any more.
    if unsafe { libc::read(wait, (&raw mut byte).cast(), 1) } == 1 {
        // Rust programs ignore SIGPIPE; the command is to have the usual.
        // SAFETY: sets a disposition and touches nothing else.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // SAFETY: null-terminated arrays of C strings that the image owns.
        unsafe { libc::execvpe(image.arguments[0], image.arguments.as_ptr(), image.environment.as_ptr()) };
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(0).to_ne_bytes();
        // SAFETY: four bytes to read from.
        unsafe { libc::write(report, error.as_ptr().cast(), error.len()) };
    }
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

impl Child {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The wait status, if the command has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<i32>> {
        self.wait_with(libc::WNOHANG)
    }

    fn wait(&mut self) -> io::Result<Option<i32>> {
        self.wait_with(0)
    }

    fn wait_with(&mut self, flags: i32) -> io::Result<Option<i32>> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: a valid place for the status.
            match unsafe { libc::waitpid(self.pid.cast_signed(), &raw mut status, flags) } {
                -1 => return Err(io::Error::last_os_error()),
                0 => {}
                _ => self.status = Some(status),
            }
        }
        Ok(self.status)
    }
}

/// The exit status that a shell would show for a wait status: 128 + n for signal n.
pub fn exit_code(status: i32) -> u8 {
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    code.to_le_bytes()[0]
}

/// The command as people write it.
pub fn display(command: &[OsString]) -> String {
    command.iter().map(|word| OsStr::to_string_lossy(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &[&str]) -> Vec<OsString> {
        command.iter().map(OsString::from).collect()
    }

    #[test]
    fn holds_until_released_and_passes_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out");
        let command = words(&["sh", "-c", "echo $MEMFRAG_TEST > \"$0\"; exit 7", file.to_str().unwrap()]);
        let held = Held::new(&command, &[("MEMFRAG_TEST".into(), "here".into())]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!file.exists());
        let mut child = held.release().unwrap();
        let status = child.wait().unwrap().unwrap();
        assert_eq!(exit_code(status), 7);
        assert_eq!(std::fs::read_to_string(file).unwrap(), "here\n");
    }

    #[test]
    fn tells_what_exec_said() {
        let error = Held::new(&words(&["/no/such/program"]), &[]).unwrap().release().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let error = Held::new(&words(&["/etc/passwd"]), &[]).unwrap().release().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn statuses_are_the_shells() {
        let mut child = Held::new(&words(&["sh", "-c", "kill -TERM $$"]), &[]).unwrap().release().unwrap();
        assert_eq!(exit_code(child.wait().unwrap().unwrap()), 128 + 15);
        Held::new(&words(&["true"]), &[]).unwrap().abandon();
    }
}
