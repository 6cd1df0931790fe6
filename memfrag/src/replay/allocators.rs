//! The allocators of this machine that a replay can run under.

use std::path::{Path, PathBuf};

/// Where distributions put libraries.
const DIRECTORIES: &[&str] =
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/lib/x86_64-linux-gnu", "/usr/local/lib"];

/// Allocators by name, the names of their libraries, and the package that brings them on Debian.
const KNOWN: &[(&str, &[&str], &str)] = &[
    ("jemalloc", &["libjemalloc.so.2"], "libjemalloc2"),
    ("mimalloc", &["libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so.2.0"], "libmimalloc2.0"),
    ("tcmalloc", &["libtcmalloc_minimal.so.4", "libtcmalloc.so.4"], "libtcmalloc-minimal4"),
];

/// An allocator to run under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// Its name, or the path that was given.
    pub name: String,
    /// The library to load before libc; `None` for libc's own.
    pub library: Option<PathBuf>,
    /// The compiler to build the program with, where the allocator is that of another C library and cannot be loaded
    /// into a program for this one.
    pub compiler: Option<PathBuf>,
}

/// musl's compiler, which builds programs that have its C library within them.
const MUSL: &str = "musl-gcc";

/// Why there is no such allocator.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// It is known, but not installed.
    #[error(
        "{name} is not installed: none of {files} in {directories}; apt install {package}, or give the library's path"
    )]
    Missing {
        /// Its name.
        name: String,
        /// Its libraries' names.
        files: String,
        /// Where it was looked for.
        directories: String,
        /// The package that has it.
        package: &'static str,
    },
    /// musl's malloc is in no library that could be loaded into a program for glibc.
    #[error(
        "musl's allocator cannot be loaded into a program for glibc, so the replay is built for musl, and its compiler \
         {MUSL} is not in the PATH; apt install musl-tools"
    )]
    NoCompiler,
    /// It is neither a known name nor a file.
    #[error("{0:?} is neither the path of a library nor one of: glibc, {names}", names = names())]
    Unknown(String),
}

fn names() -> String {
    KNOWN.iter().map(|(name, ..)| *name).chain(["musl"]).collect::<Vec<_>>().join(", ")
}

impl Allocator {
    /// The allocator with a name, or in the library at a path.
    ///
    /// # Errors
    /// When it is not installed, or nobody knows it.
    pub fn find(name: &str) -> Result<Self, AllocatorError> {
        if matches!(name, "glibc" | "libc") {
            return Ok(Self::glibc());
        }
        if name == "musl" {
            let compiler = in_path(MUSL).ok_or(AllocatorError::NoCompiler)?;
            return Ok(Self { name: name.to_owned(), library: None, compiler: Some(compiler) });
        }
        if name.contains('/') && Path::new(name).is_file() {
            return Ok(Self { name: name.to_owned(), library: Some(PathBuf::from(name)), compiler: None });
        }
        let Some(&(known, files, package)) = KNOWN.iter().find(|(known, ..)| *known == name) else {
            return Err(AllocatorError::Unknown(name.to_owned()));
        };
        library(files).map(|path| Self { name: known.to_owned(), library: Some(path), compiler: None }).ok_or_else(
            || AllocatorError::Missing {
                name: known.to_owned(),
                files: files.join(", "),
                directories: DIRECTORIES.join(", "),
                package,
            },
        )
    }

    /// The C library's own.
    pub fn glibc() -> Self {
        Self { name: "glibc".to_owned(), library: None, compiler: None }
    }

    /// glibc's, and all others that are installed.
    pub fn installed() -> Vec<Self> {
        let others = KNOWN.iter().map(|(name, ..)| *name).chain(["musl"]).filter_map(|name| Self::find(name).ok());
        std::iter::once(Self::glibc()).chain(others).collect()
    }
}

/// A program in the search path.
fn in_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn library(files: &[&str]) -> Option<PathBuf> {
    let places = files.iter().flat_map(|file| DIRECTORIES.iter().map(move |directory| Path::new(directory).join(file)));
    places.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libcs_own_needs_no_library() {
        assert_eq!(Allocator::find("glibc").unwrap().library, None);
        assert_eq!(Allocator::installed()[0].name, "glibc");
    }

    #[test]
    fn what_there_is_not_is_told_with_what_there_is() {
        let said = Allocator::find("hoard").unwrap_err().to_string();
        assert!(said.contains("\"hoard\"") && said.contains("jemalloc, mimalloc, tcmalloc, musl"), "{said}");
        assert!(matches!(Allocator::find("/no/such/lib.so"), Err(AllocatorError::Unknown(_))));
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(Allocator::find(path).unwrap().library.as_deref(), Some(file.path()));
    }
}
