//! Which allocator a process uses, by the files that it maps.

use super::model::Allocator;
use crate::target::Mapping;
use std::path::Path;

/// File names by which allocators are known. One that a process maps beside its C library is there to replace the C
/// library's own, so the C libraries stand last.
const KNOWN: [(&str, &str); 7] = [
    ("libjemalloc", "jemalloc"),
    ("libtcmalloc", "tcmalloc"),
    ("libmimalloc", "mimalloc"),
    ("ld-musl-", "musl"),
    ("libc.musl-", "musl"),
    ("libc.so.6", "glibc"),
    ("libc-2.", "glibc"),
];

/// What a heap is that was walked.
const WALKED: &str = "glibc";

/// The allocator of a process with these mappings. One whose heap was `walked` uses glibc's, whatever else it maps: a
/// program that is linked with another can be given libc's by `LD_PRELOAD`.
pub(super) fn identify(mappings: &[Mapping], walked: bool) -> Option<Allocator> {
    let fits = |name: &str| !walked || name == WALKED;
    KNOWN.iter().filter(|(_, name)| fits(name)).find_map(|(prefix, name)| {
        let file = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        mappings.iter().find_map(|mapping| {
            let file = file(&mapping.path)?;
            file.starts_with(prefix).then(|| Allocator {
                name: (*name).to_owned(),
                version: version(&file).map(str::to_owned),
                path: mapping.path.display().to_string(),
                model_agreement: None,
            })
        })
    })
}

/// The version in the name of an old C library's file (`libc-2.31.so`); sonames of the others tell none.
fn version(file: &str) -> Option<&str> {
    file.strip_prefix("libc-")?.strip_suffix(".so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(paths: &[&str], expected: Option<(&str, Option<&str>, &str)>) {
        let mappings: Vec<Mapping> =
            paths.iter().map(|path| Mapping { path: path.into(), ..Mapping::default() }).collect();
        let found = identify(&mappings, false);
        let found = found.as_ref().map(|a| (a.name.as_str(), a.version.as_deref(), a.path.as_str()));
        assert_eq!(found, expected);
    }

    #[test]
    fn knows_files_by_name() {
        check(&["/usr/bin/x", "/lib/libc.so.6"], Some(("glibc", None, "/lib/libc.so.6")));
        check(&["/lib/libc-2.31.so"], Some(("glibc", Some("2.31"), "/lib/libc-2.31.so")));
        check(&["/lib/ld-musl-x86_64.so.1"], Some(("musl", None, "/lib/ld-musl-x86_64.so.1")));
        check(&["/lib/libc.so.6", "/l/libjemalloc.so.2"], Some(("jemalloc", None, "/l/libjemalloc.so.2")));
        check(&["/lib/libc.so.6", "/l/libmimalloc.so.2.0"], Some(("mimalloc", None, "/l/libmimalloc.so.2.0")));
        check(&["/l/libtcmalloc_minimal.so.4"], Some(("tcmalloc", None, "/l/libtcmalloc_minimal.so.4")));
        check(&["/usr/bin/static", ""], None);
    }

    #[test]
    fn a_walked_heap_is_glibcs() {
        let mappings = ["/l/libjemalloc.so.2", "/lib/libc.so.6"];
        let mappings = mappings.map(|path| Mapping { path: path.into(), ..Mapping::default() });
        assert_eq!(identify(&mappings, true).map(|found| found.name), Some("glibc".to_owned()));
        assert_eq!(identify(&mappings, false).map(|found| found.name), Some("jemalloc".to_owned()));
        assert_eq!(identify(&mappings[..1], true).map(|found| found.name), None);
    }
}
