//! Which allocators a process has.

use super::elf::Image;
use std::fmt;
use std::path::Path;

/// An allocator, as far as memfrag tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AllocatorKind {
    /// The GNU C library's malloc (ptmalloc).
    Glibc,
    /// jemalloc.
    Jemalloc,
    /// tcmalloc, of gperftools or google's own.
    Tcmalloc,
    /// mimalloc.
    Mimalloc,
    /// The musl C library's malloc.
    Musl,
    /// Some other definition of `malloc`.
    Other,
}

impl AllocatorKind {
    /// The name by which people know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Jemalloc => "jemalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Mimalloc => "mimalloc",
            Self::Musl => "musl",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for AllocatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Tells which allocator a file that defines `malloc` holds, and its version where the file says it.
///
/// Symbols decide before names: a program that is linked with an allocator has the symbols, but its own name.
pub fn identify(image: &Image<'_>, path: &Path) -> (AllocatorKind, Option<String>) {
    let markers = image.markers;
    let rodata = || image.section(".rodata");
    if markers.jemalloc {
        return (AllocatorKind::Jemalloc, find(rodata(), b"-g", jemalloc_version));
    }
    if markers.tcmalloc {
        return (AllocatorKind::Tcmalloc, find(rodata(), b"gperftools ", version_behind));
    }
    if markers.mimalloc {
        return (AllocatorKind::Mimalloc, None);
    }
    if markers.glibc {
        return (AllocatorKind::Glibc, find(rodata(), b" release version ", version_behind));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let musl_names = ["ld-musl-", "libc.musl-"];
    if musl_names.iter().any(|start| name.starts_with(start))
        || find(rodata(), b"musl libc (", |_, _| Some(())).is_some()
    {
        return (AllocatorKind::Musl, find(rodata(), b"\0", musl_version));
    }
    let named = image.soname.as_deref().unwrap_or(&name);
    let kind = [
        ("libjemalloc", AllocatorKind::Jemalloc),
        ("libtcmalloc", AllocatorKind::Tcmalloc),
        ("libmimalloc", AllocatorKind::Mimalloc),
    ];
    let kind = kind.iter().find(|(start, _)| named.starts_with(start)).map_or(AllocatorKind::Other, |&(_, kind)| kind);
    // A static program has glibc's texts, and usually not the symbol.
    let glibc = || find(rodata(), b"GNU C Library (", |_, _| Some(())).is_some();
    if kind == AllocatorKind::Other && image.soname.is_none() && glibc() {
        return (AllocatorKind::Glibc, find(rodata(), b" release version ", version_behind));
    }
    (kind, None)
}

/// The first thing that `read` finds where `mark` stands in `text`; it gets the text and where the mark begins.
fn find<T>(text: &[u8], mark: &[u8], read: impl Fn(&[u8], usize) -> Option<T>) -> Option<T> {
    let first = *mark.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|&byte| byte == first).map(|at| at + from) {
        if text[at..].starts_with(mark)
            && let Some(value) = read(text, at)
        {
            return Some(value);
        }
        from = at + 1;
    }
    None
}

/// Digits and dots, with a digit at both ends and a dot between them.
fn version(text: &[u8]) -> Option<&str> {
    let len = text.iter().take(32).take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
    let version = str::from_utf8(&text[..len]).ok()?.trim_end_matches('.');
    (version.contains('.') && !version.starts_with('.')).then_some(version)
}

/// The version that follows the words which end in the next blank and "version" or a name.
fn version_behind(text: &[u8], at: usize) -> Option<String> {
    let rest = &text[at + 1..];
    let start = rest.iter().take(32).position(u8::is_ascii_digit)?;
    version(&rest[start..]).map(str::to_owned)
}

/// `5.3.0-0-g54eaed1d…`: a version, a count of commits, and a commit.
fn jemalloc_version(text: &[u8], at: usize) -> Option<String> {
    let commit = text.get(at + 2..at + 42)?;
    if !commit.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let start = text[..at].iter().rev().take(32).take_while(|byte| byte.is_ascii_digit() || b".-".contains(byte));
    version(&text[at - start.count()..]).map(str::to_owned)
}

/// `1.2.3` as a text of its own.
fn musl_version(text: &[u8], at: usize) -> Option<String> {
    let found = version(&text[at + 1..])?;
    let is_whole = text.get(at + 1 + found.len()) == Some(&0);
    (is_whole && found.starts_with("1.") && found.split('.').count() == 3).then(|| found.to_owned())
}
