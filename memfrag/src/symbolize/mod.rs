//! From a place in a mapped file to the function that holds it.
//!
//! A recording keeps which files were mapped where. [`Symbols`] opens them when a name is asked for, and only believes a
//! file that is still the one that was mapped. Names come from the file's symbol table, from that of a separate
//! debug file, or from what it exports, in this order. Whatever is unknown has no name: a wrong one is worse than none.
//!
//! | module | job |
//! |---|---|
//! | `elf` | the parts of an ELF file that names need, read piece by piece |
//! | `table` | functions by address |
//! | `module` | one mapped file, with its debug file |
//! | `demangle` | names as their authors wrote them |

mod demangle;
mod elf;
mod module;
mod table;
#[cfg(test)]
mod tests;

use module::Module;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that are kept open at once. Those beyond have no names.
const MODULES: usize = 512;

/// Functions of all files together. Files that would bring more have no names.
const FUNCTIONS: usize = 8 << 20;

/// Wall clock and the trace's clock may be set apart a little while it runs: nanoseconds.
const CLOCKS_APART: u64 = 1_000_000_000;

/// Where debug files lie.
const DEBUG_FILES: &str = "/usr/lib/debug";

/// A place in a file that was mapped.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The file, as `/proc/PID/maps` named it.
    pub path: &'a Path,
    /// Its inode then.
    pub inode: u64,
    /// Offset in the file of a call's return address.
    pub offset: u64,
    /// A moment at which the file was still mapped, in nanoseconds since the trace began.
    pub seen_ns: u64,
}

/// The function that holds a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name, demangled, without parameters.
    pub name: String,
    /// Distance of the place from its start, in bytes.
    pub offset: u64,
}

/// Names of functions, by the files that were mapped. Files are opened when the first name of theirs is asked for;
/// any number of threads may ask.
#[derive(Debug)]
pub struct Symbols {
    started_unix_ns: u64,
    debug_files: PathBuf,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// By path and inode; `None` for files that have no names to give.
    modules: HashMap<(PathBuf, u64), Option<Arc<Module>>>,
    functions: usize,
}

impl Symbols {
    /// For a trace that began at `started_unix_ns` nanoseconds since 1970, 0 when unknown: a file that was changed
    /// after it was seen mapped is not believed.
    pub fn new(started_unix_ns: u64) -> Self {
        Self { started_unix_ns, debug_files: DEBUG_FILES.into(), cache: Mutex::default() }
    }

    /// The function that makes the call which returns to `place`. `None` when the file is not there any more, is
    /// another one by now, or does not tell.
    pub fn function(&self, place: &Place<'_>) -> Option<Function> {
        let module = self.module(place)?;
        let seen = self.started_unix_ns.saturating_add(place.seen_ns).saturating_add(CLOCKS_APART);
        let unchanged = self.started_unix_ns == 0 || module.changed_unix_ns() <= seen;
        unchanged.then(|| module.function(place.offset))?
    }

    fn module(&self, place: &Place<'_>) -> Option<Arc<Module>> {
        // Nothing that panics runs under the lock, and the cache is whole between any two statements.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (place.path.to_path_buf(), place.inode);
        if let Some(known) = cache.modules.get(&key) {
            return known.clone();
        }
        if cache.modules.len() >= MODULES {
            return None;
        }
        let room = FUNCTIONS - cache.functions;
        let module = Module::open(place.path, place.inode, &self.debug_files, room).map(Arc::new);
        cache.functions += module.as_ref().map_or(0, |module| module.functions());
        cache.modules.insert(key, module.clone());
        module
    }
}
