//! Following the program through `exec` with an environment that was cleaned.
//!
//! A program started with the environment as it is brings this library along. Where the environment is given
//! explicitly, as `sudo`-like tools and servers do, the library's variable is put back into a copy of it. The copy
//! lies on the stack: these functions are called between `vfork` and `exec`, where nothing may be allocated.

use crate::process;
use crate::resolve;
use crate::x86_64::entry;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::ptr;

entry! {
    execve => hooked_execve, "rcx";
    execvpe => hooked_execvpe, "rcx";
    fexecve => hooked_fexecve, "rcx";
}

#[cfg(not(test))]
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn(
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: *const *const c_char,
    environment: Environment,
) -> c_int {
    // SAFETY: the program's own call, handed on.
    unsafe { spawn(b"posix_spawn", pid, path, actions, attributes, arguments, environment) }
}

#[cfg(not(test))]
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawnp(
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: *const *const c_char,
    environment: Environment,
) -> c_int {
    // SAFETY: the program's own call, handed on.
    unsafe { spawn(b"posix_spawnp", pid, path, actions, attributes, arguments, environment) }
}

type Environment = *const *const c_char;
type Exec = unsafe extern "C" fn(*const c_char, *const *const c_char, Environment) -> c_int;
type Fexec = unsafe extern "C" fn(c_int, *const *const c_char, Environment) -> c_int;
type Spawn = unsafe extern "C" fn(
    *mut c_int,
    *const c_char,
    *const c_void,
    *const c_void,
    *const *const c_char,
    Environment,
) -> c_int;

/// Variables of an environment that can be completed; a larger one is left as it is.
const VARIABLES: usize = 2048;
/// Bytes of the variable put back.
const BYTES: usize = 4096;
const NAME: &[u8] = b"LD_PRELOAD=";

/// Room for a copy of an environment.
struct Copy {
    variables: [*const c_char; VARIABLES],
    preload: [u8; BYTES],
}

impl Copy {
    const fn new() -> Self {
        Self { variables: [ptr::null(); VARIABLES], preload: [0; BYTES] }
    }

    /// `environment`, with this library in it.
    ///
    /// # Safety
    ///
    /// `environment` is null or a list of strings that ends with null.
    unsafe fn complete(&mut self, environment: Environment) -> Environment {
        // SAFETY: as the caller promises.
        unsafe { self.try_complete(environment) }.unwrap_or(environment)
    }

    /// # Safety
    ///
    /// As for [`Self::complete`].
    unsafe fn try_complete(&mut self, environment: Environment) -> Option<Environment> {
        if !process::recording() {
            return None;
        }
        let own = resolve::own_path()?;
        let (mut count, mut others) = (0, None);
        while !environment.is_null() {
            // SAFETY: not behind the null at the end.
            let variable = unsafe { environment.add(count) };
            // SAFETY: as above.
            let variable = unsafe { *variable };
            if variable.is_null() {
                break;
            }
            // One place stays for the variable, one for the null.
            *self.variables.get_mut(..VARIABLES - 2)?.get_mut(count)? = variable;
            // SAFETY: the list holds strings.
            if let Some(value) = unsafe { CStr::from_ptr(variable) }.to_bytes().strip_prefix(NAME) {
                others = Some((count, value));
            }
            count += 1;
        }
        let value = others.map_or(&b""[..], |(_, value)| value);
        if value.split(|&byte| matches!(byte, b':' | b' ')).any(|library| library == own) {
            return None;
        }
        let mut used = 0;
        let separator: &[u8] = if value.is_empty() { b"" } else { b":" };
        for part in [NAME, own, separator, value, b"\0"] {
            self.preload.get_mut(used..used + part.len())?.copy_from_slice(part);
            used += part.len();
        }
        *self.variables.get_mut(others.map_or(count, |(at, _)| at))? = self.preload.as_ptr().cast();
        Some(self.variables.as_ptr())
    }
}

unsafe extern "C" fn hooked_execve(path: *const c_char, arguments: *const *const c_char, given: Environment) -> c_int {
    // SAFETY: the symbol's type is fixed by the C library's interface, and the program that calls it has it.
    let real = unsafe { mem::transmute::<*mut c_void, Exec>(resolve::next(b"execve")) };
    let mut copy = Copy::new();
    // SAFETY: the program's own list.
    let environment = unsafe { copy.complete(given) };
    // SAFETY: the program's own call, handed on.
    unsafe { real(path, arguments, environment) }
}

unsafe extern "C" fn hooked_execvpe(path: *const c_char, arguments: *const *const c_char, given: Environment) -> c_int {
    // SAFETY: as in `hooked_execve`.
    let real = unsafe { mem::transmute::<*mut c_void, Exec>(resolve::next(b"execvpe")) };
    let mut copy = Copy::new();
    // SAFETY: the program's own list.
    let environment = unsafe { copy.complete(given) };
    // SAFETY: the program's own call, handed on.
    unsafe { real(path, arguments, environment) }
}

unsafe extern "C" fn hooked_fexecve(file: c_int, arguments: *const *const c_char, given: Environment) -> c_int {
    // SAFETY: as in `hooked_execve`.
    let real = unsafe { mem::transmute::<*mut c_void, Fexec>(resolve::next(b"fexecve")) };
    let mut copy = Copy::new();
    // SAFETY: the program's own list.
    let environment = unsafe { copy.complete(given) };
    // SAFETY: the program's own call, handed on.
    unsafe { real(file, arguments, environment) }
}

/// # Safety
///
/// What `posix_spawn` asks for.
unsafe fn spawn(
    name: &[u8],
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    arguments: *const *const c_char,
    given: Environment,
) -> c_int {
    // SAFETY: as in `hooked_execve`.
    let real = unsafe { mem::transmute::<*mut c_void, Spawn>(resolve::next(name)) };
    let mut copy = Copy::new();
    // SAFETY: the program's own list.
    let environment = unsafe { copy.complete(given) };
    // SAFETY: the program's own call, handed on.
    unsafe { real(pid, path, actions, attributes, arguments, environment) }
}
