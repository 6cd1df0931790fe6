//! What a policy has to know of the process.

use crate::glibc::Version;
use crate::model::{Choice, Lifetimes, Setting};
use crate::report::model::Allocator;
use crate::target::allocator::Facts;
use crate::target::file;
use std::io::Read as _;
use std::path::Path;
use std::thread::available_parallelism;

/// The largest library that is read for its version.
const MOST_BYTES: u64 = 64 << 20;

/// What a policy has to know of a process that uses this allocator and began with this environment, as far as that is
/// known.
///
/// # Errors
/// When it is one of glibc's, and the process does not use glibc or not one that is known.
pub(super) fn of(choice: &Choice, allocator: Option<&Allocator>, environment: Vec<String>) -> Result<Setting, String> {
    let processors = available_parallelism().map_or(1, usize::from);
    let version = if choice.needs_version() { version(choice, allocator)? } else { Version::NEWEST };
    Ok(Setting { version, arena_max: Setting::arenas_of(processors), environment, lifetimes: Lifetimes::default() })
}

fn version(choice: &Choice, allocator: Option<&Allocator>) -> Result<Version, String> {
    let policy = choice.name;
    let Some(allocator) = allocator else {
        return Err(format!("{policy} is glibc, and no mappings tell which allocator the process uses"));
    };
    if allocator.name != "glibc" {
        return Err(format!("{policy} is glibc, and the process uses {}", allocator.name));
    }
    let told = allocator.version.clone().or_else(|| read(Path::new(&allocator.path)));
    let version = told.as_deref().and_then(Version::parse).filter(|version| version.offsets().is_some());
    version.ok_or_else(|| {
        format!(
            "the version of glibc in {} is {}; known are {} to {}",
            allocator.path,
            told.as_deref().unwrap_or("not to be learned"),
            Version::OLDEST,
            Version::NEWEST
        )
    })
}

/// The version that a library's file tells. It is read and never mapped, since its owner can cut it short at any time.
fn read(path: &Path) -> Option<String> {
    let file = file::open(path).ok()?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    let (kind, version) = Facts::parse(&bytes, path).ok()?.allocator?;
    version.filter(|_| kind.name() == "glibc")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(name: &str, version: Option<&str>) -> Allocator {
        Allocator {
            name: name.into(),
            version: version.map(Into::into),
            path: "/nowhere".into(),
            model_agreement: None,
        }
    }

    #[test]
    fn only_glibcs_policies_need_its_version() {
        let of =
            |policy, allocator: Option<Allocator>| of(Choice::find(policy).unwrap(), allocator.as_ref(), Vec::new());
        let version = |setting: Result<Setting, String>| setting.map(|setting| setting.version.minor);
        assert_eq!(version(of("ptmalloc", Some(allocator("glibc", Some("2.31"))))), Ok(31));
        assert!(of("first-fit", None).is_ok() && of("mesh", Some(allocator("jemalloc", None))).is_ok());
        let refused = |policy, allocator| of(policy, allocator).unwrap_err();
        assert!(refused("default", None).contains("no mappings"));
        assert!(refused("tcache-off", Some(allocator("jemalloc", None))).contains("uses jemalloc"));
        assert!(refused("ptmalloc", Some(allocator("glibc", None))).contains("not to be learned"));
        assert!(refused("ptmalloc", Some(allocator("glibc", Some("2.12")))).contains("is 2.12; known are 2.31 to"));
    }

    #[test]
    fn the_version_is_read_from_the_library_itself() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let Some(libc) =
            maps.lines().find_map(|line| line.ends_with("/libc.so.6").then(|| line.split(' ').next_back()))
        else {
            return;
        };
        let version = read(Path::new(libc.unwrap())).expect("a version");
        assert!(Version::parse(&version).is_some_and(|version| version.major == 2), "{version}");
        assert_eq!(read(Path::new("/dev/zero")), None);
        assert_eq!(read(Path::new("/proc/self/maps")), None);
    }
}
