//! Giving up every right that serving does not need, for good.
//!
//! What parses recordings and talks to browsers must not be root, whoever called memfrag. After [`drop_all`] the
//! process is the user who called `sudo`, or nobody; it has no capabilities and can get none back, can neither run programs
//! nor connect anywhere, and other processes of that user cannot read its memory, where the token is.

#[cfg(target_arch = "x86_64")]
mod calls_x86_64;

use std::fmt;
use std::io;
use std::os::fd::RawFd;

/// Who serves when root called memfrag by itself: the kernel's id for those who are nobody.
const NOBODY: u32 = 65534;
/// Files and sockets that may be open at once.
const OPEN_FILES: u64 = 512;
/// Of all processes, this one goes among the first when memory runs out, and never the trace.
const OOM_SCORE: &str = "500";

/// A right that could not be given up. The server must not run then.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}, so nothing is served: {source}")]
pub struct PrivilegeError {
    what: &'static str,
    source: io::Error,
}

/// The user as whom the server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.uid == NOBODY { f.write_str("nobody") } else { write!(f, "user {}", self.uid) }
    }
}

impl User {
    /// Who root's server becomes: the user who called `sudo`, if `variable` tells one that is not root, else nobody.
    fn instead_of_root(variable: impl Fn(&str) -> Option<String>) -> Self {
        let id = |name| variable(name).and_then(|id| id.parse::<u32>().ok()).filter(|&id| id != 0 && id != u32::MAX);
        match (id("SUDO_UID"), id("SUDO_GID")) {
            (Some(uid), Some(gid)) => Self { uid, gid },
            _ => Self { uid: NOBODY, gid: NOBODY },
        }
    }
}

/// Gives up all rights. To be called while the process has one thread: capabilities belong to threads.
///
/// Descriptors that are open stay so; see [`close_all_but`].
///
/// # Errors
/// When something could not be given up, or can be had back afterwards. The process must end then.
pub fn drop_all() -> Result<Option<User>, PrivilegeError> {
    // Not a right, and where it fails (no procfs) nothing is worse than before.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, OPEN_FILES)?;
    // SAFETY: takes no pointers.
    let is_root = unsafe { libc::geteuid() } == 0;
    let user = is_root.then(|| User::instead_of_root(|name| std::env::var(name).ok()));
    if let Some(user) = user {
        drop_bounding_set()?;
        become_user(user)?;
    }
    clear_capabilities()?;
    prctl("forgo new privileges", libc::PR_SET_NO_NEW_PRIVS, 1)?;
    prctl("hide the process's memory", libc::PR_SET_DUMPABLE, 0)?;
    refuse_calls()?;
    verify(user)?;
    Ok(user)
}

/// Has this process killed when its parent ends, which must be `parent`.
///
/// # Errors
/// When the kernel refuses, or the parent has ended already.
pub fn die_with(parent: u32) -> Result<(), PrivilegeError> {
    prctl("be bound to the tracing process", libc::PR_SET_PDEATHSIG, libc::SIGKILL.unsigned_abs().into())?;
    // It may have ended before.
    if std::os::unix::process::parent_id() != parent {
        return Err(failed("be bound to the tracing process", io::ErrorKind::NotFound.into()));
    }
    Ok(())
}

/// Closes all descriptors but those of standard input, output and error and `kept`.
///
/// # Errors
/// When the kernel refuses.
pub fn close_all_but(kept: &[RawFd]) -> Result<(), PrivilegeError> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|&fd| u32::try_from(fd).ok()).filter(|&fd| fd > 2).collect();
    kept.sort_unstable();
    kept.dedup();
    let mut first = 3;
    for last in kept.iter().map(|&fd| fd - 1).chain([u32::MAX]) {
        if first <= last {
            // SAFETY: takes no pointers. Called first thing in a new program, in which nothing else owns descriptors.
            check("close inherited files", unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = last.saturating_add(2);
    }
    Ok(())
}

fn failed(what: &'static str, source: io::Error) -> PrivilegeError {
    PrivilegeError { what, source }
}

fn check(what: &'static str, result: libc::c_long) -> Result<(), PrivilegeError> {
    if result < 0 { Err(failed(what, io::Error::last_os_error())) } else { Ok(()) }
}

fn prctl(what: &'static str, option: libc::c_int, value: libc::c_ulong) -> Result<(), PrivilegeError> {
    // SAFETY: the options used here take a number and no pointers.
    check(what, unsafe { libc::prctl(option, value, 0, 0, 0) }.into())
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> Result<(), PrivilegeError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place for the limits.
    check("read a limit", unsafe { libc::getrlimit(resource, &raw mut limit) }.into())?;
    limit = libc::rlimit { rlim_cur: most.min(limit.rlim_max), rlim_max: most.min(limit.rlim_max) };
    // SAFETY: a valid limit.
    check("set a limit", unsafe { libc::setrlimit(resource, &raw const limit) }.into())
}

/// So that no program run later could have capabilities from its file.
fn drop_bounding_set() -> Result<(), PrivilegeError> {
    let what = "drop the capabilities of programs run later";
    for capability in 0..64 {
        // SAFETY: takes no pointers.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        // Beyond the last one that this kernel knows.
        if held < 0 {
            break;
        }
        // Without CAP_SETPCAP, in a container, it cannot be dropped; forgoing new privileges has the same effect.
        if held == 1
            && let Err(error) = prctl(what, libc::PR_CAPBSET_DROP, capability)
            && error.source.raw_os_error() != Some(libc::EPERM)
        {
            return Err(error);
        }
    }
    Ok(())
}

fn become_user(user: User) -> Result<(), PrivilegeError> {
    // SAFETY: no groups, so nothing is read from the pointer.
    check("leave root's groups", unsafe { libc::setgroups(0, std::ptr::null()) }.into())?;
    let User { uid, gid } = user;
    // SAFETY: takes no pointers.
    check("change the group", unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: takes no pointers.
    check("become another user than root", unsafe { libc::setresuid(uid, uid, uid) }.into())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words each.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

fn clear_capabilities() -> Result<(), PrivilegeError> {
    prctl("drop ambient capabilities", libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong)?;
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let none = [CapabilityWord::default(); 2];
    // SAFETY: the header and the two words that its version asks for.
    check("drop capabilities", unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })
}

/// So that nothing is run, connected to or looked into, whatever a recording or a client made of this process.
fn refuse_calls() -> Result<(), PrivilegeError> {
    #[cfg(target_arch = "x86_64")]
    match calls_x86_64::refuse() {
        // A kernel without such filters; what was given up before must do.
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(failed("refuse system calls", error)),
        _ => {}
    }
    Ok(())
}

/// Looks whether the rights have really gone.
fn verify(user: Option<User>) -> Result<(), PrivilegeError> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: the header, and room for the two words that its version asks for.
    check("read capabilities", unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) })?;
    let left = words.iter().any(|word| word.effective | word.permitted | word.inheritable != 0);
    if left {
        return Err(failed("drop capabilities", io::Error::other("some are left")));
    }
    if user.is_some() {
        // SAFETY: takes no pointers.
        let root_again = unsafe { libc::setresuid(0, 0, 0) } == 0;
        // SAFETY: takes no pointers.
        let group_again = unsafe { libc::setresgid(0, 0, 0) } == 0;
        if root_again || group_again {
            return Err(failed("give up root's rights", io::Error::other("they could be had back")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn root_serves_as_who_called_sudo_or_as_nobody() {
        let of = |uid: &'static str, gid: &'static str| {
            User::instead_of_root(move |name| {
                let value = if name == "SUDO_UID" { uid } else { gid };
                Some(value.to_owned()).filter(|value| !value.is_empty())
            })
        };
        assert_eq!(of("1000", "1001"), User { uid: 1000, gid: 1001 });
        let nobody = User { uid: NOBODY, gid: NOBODY };
        // Not root again, whatever the environment says; nor "leave it as it is", which the largest id means.
        for (uid, gid) in [("", ""), ("0", "0"), ("1000", "0"), ("0", "1000"), ("1000", ""), ("x", "1"), ("-1", "1")] {
            assert_eq!(of(uid, gid), nobody, "{uid} {gid}");
        }
        assert_eq!(of("4294967295", "4294967295"), nobody);
    }

    /// Runs `body` in a process of its own, since what it gives up cannot be had back.
    fn in_a_child(body: impl FnOnce() -> Result<(), String>) {
        // SAFETY: the tests run with threads, so that the child may find locks of theirs taken for ever. It allocates,
        // and glibc's malloc takes care of its own locks across a fork; beyond that it makes system calls.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let result = body();
            if let Err(text) = &result {
                // SAFETY: bytes that are there.
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            }
            // SAFETY: ends the process without running anything of the test's.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        assert!(child > 0, "cannot fork");
        let mut status = 0;
        // SAFETY: a valid place for the status of the child made above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0, "it failed, see standard error");
    }

    fn status_of(text: &str, name: &str) -> String {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nothing_is_left_of_the_rights() {
        // SAFETY: takes no pointers.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("SKIP server::privilege::tests::nothing_is_left_of_the_rights: not root; run the tests as root");
            return;
        }
        in_a_child(|| {
            let before = std::fs::File::open("/proc/self/status").map_err(|error| error.to_string())?;
            let user = drop_all().map_err(|error| error.to_string())?.ok_or("root stayed root")?;
            // The file was opened before: a process that is hidden cannot read its own.
            let text = io::read_to_string(before).map_err(|error| error.to_string())?;
            let ids = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
            let none = "0000000000000000".to_owned();
            let expected = [
                ("Uid:", ids(user.uid)),
                ("Gid:", ids(user.gid)),
                ("Groups:", String::new()),
                ("CapInh:", none.clone()),
                ("CapPrm:", none.clone()),
                ("CapEff:", none.clone()),
                ("CapBnd:", none.clone()),
                ("CapAmb:", none),
                ("NoNewPrivs:", "1".to_owned()),
            ];
            for (name, value) in expected {
                let found = status_of(&text, name);
                if found != value {
                    return Err(format!("{name} {found:?} instead of {value:?}"));
                }
            }
            // SAFETY: takes no pointers.
            let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
            let cannot = |path: &str| std::fs::File::open(path).is_err();
            if std::process::Command::new("true").status().is_ok() || std::net::TcpListener::bind("127.0.0.1:0").is_ok()
            {
                return Err("a program can be run, or a socket made".to_owned());
            }
            if std::thread::spawn(|| 7).join().is_err() {
                return Err("no thread can be made".to_owned());
            }
            if dumpable != 0 || !cannot("/etc/shadow") || !cannot("/proc/self/mem") {
                return Err(format!("dumpable {dumpable}, or files can be read that must not be"));
            }
            Ok(())
        });
    }

    #[test]
    fn only_the_files_named_stay_open() {
        in_a_child(|| {
            let files: Vec<_> = (0..8).map(|_| std::fs::File::open("/dev/null")).collect::<Result<_, _>>().unwrap();
            let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
            let kept = [numbers[1], numbers[2], numbers[6], 0];
            close_all_but(&kept).map_err(|error| error.to_string())?;
            for &fd in &numbers {
                // SAFETY: asks for the flags of a number that may be no descriptor.
                let open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
                if open != kept.contains(&fd) {
                    return Err(format!("{fd} of {numbers:?} is open: {open}"));
                }
            }
            std::mem::forget(files);
            Ok(())
        });
    }

    #[test]
    fn it_dies_with_its_parent_only() {
        in_a_child(|| {
            let parent = std::os::unix::process::parent_id();
            if die_with(parent + 1).is_ok() {
                return Err("bound to a process that is not its parent".to_owned());
            }
            die_with(parent).map_err(|error| error.to_string())
        });
    }
}
