//! The file in which the loader keeps where the machine's libraries are, `/etc/ld.so.cache`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A library of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name by which programs need it.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Whether it is meant for some processors only; the loader prefers it on those.
    pub is_special: bool,
}

/// The beginning of the old format, which older systems write before the new one.
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
/// The beginning of the format in use since glibc 2.2.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Bytes of the header.
const HEADER: usize = 48;
/// Bytes of an entry.
const ENTRY: usize = 24;
/// Flags of a library for x86-64 and glibc.
const X86_64: u32 = 0x0303;

/// Reads the libraries for x86-64; what does not make sense is passed over.
pub fn parse(data: &[u8]) -> Vec<Entry> {
    let start = if data.starts_with(OLD_MAGIC) {
        // The old header has 16 bytes, its entries 12 each, and the new format follows on the next 8 bytes.
        let count = word(data, 12).unwrap_or_default() as usize;
        count.saturating_mul(12).saturating_add(16).checked_next_multiple_of(8).unwrap_or(usize::MAX)
    } else {
        0
    };
    let data = data.get(start..).unwrap_or_default();
    if !data.starts_with(MAGIC) {
        return Vec::new();
    }
    let count = word(data, 20).unwrap_or_default() as usize;
    let entries = data.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY).take(count);
    entries.filter_map(|entry| read(data, entry)).collect()
}

fn read(data: &[u8], entry: &[u8]) -> Option<Entry> {
    if word(entry, 0)? != X86_64 {
        return None;
    }
    Some(Entry {
        name: String::from_utf8_lossy(string(data, word(entry, 4)?)?).into_owned(),
        path: PathBuf::from(OsStr::from_bytes(string(data, word(entry, 8)?)?)),
        is_special: word(entry, 16)? != 0 || word(entry, 20)? != 0,
    })
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The text at an offset; none is longer than a path may be.
fn string(data: &[u8], at: u32) -> Option<&[u8]> {
    let rest = data.get(at as usize..)?;
    let end = rest.iter().take(libc::PATH_MAX as usize).position(|&byte| byte == 0)?;
    (end > 0).then(|| &rest[..end])
}

/// Reads the machine's cache; empty where there is none, as on systems with musl.
pub fn read_machine() -> Vec<Entry> {
    std::fs::read(Path::new("/etc/ld.so.cache")).map(|data| parse(&data)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cache(old: bool) -> Vec<u8> {
        let mut data = Vec::new();
        if old {
            data.extend_from_slice(b"ld.so-1.7.0\0\x01\0\0\0");
            data.extend_from_slice(&[0; 12 + 4]);
        }
        let start = data.len();
        data.extend_from_slice(MAGIC);
        data.extend_from_slice(&3u32.to_le_bytes());
        data.resize(start + HEADER, 0);
        let strings = (HEADER + 3 * ENTRY) as u32;
        for (flags, special) in [(X86_64, 0), (X86_64, 1), (0x0003, 0)] {
            for field in [flags, strings, strings + 5, 0, 0, special] {
                data.extend_from_slice(&u32::to_le_bytes(field));
            }
        }
        data.extend_from_slice(b"l.so\0/lib/l.so\0");
        data
    }

    #[test]
    fn both_formats_are_read() {
        for old in [false, true] {
            let entries = parse(&cache(old));
            assert_eq!(entries.len(), 2, "the third is for another processor");
            assert_eq!((entries[0].name.as_str(), entries[0].path.as_path()), ("l.so", Path::new("/lib/l.so")));
            assert!(!entries[0].is_special && entries[1].is_special);
        }
    }

    #[test]
    fn the_machines_own_cache_agrees_with_ldconfig() {
        let Ok(output) = std::process::Command::new("/sbin/ldconfig").arg("-p").output() else {
            eprintln!("skipped: there is no ldconfig here");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let mut listed: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("libc6,x86-64"))
            .filter_map(|line| line.split(" => ").nth(1))
            .collect();
        let entries = read_machine();
        let mut read: Vec<&str> = entries.iter().filter_map(|entry| entry.path.to_str()).collect();
        listed.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, listed);
    }

    proptest! {
        #[test]
        fn damage_does_no_harm(old: bool, at in 0usize..200, value: u8, cut in 0usize..200) {
            let mut data = cache(old);
            if let Some(byte) = data.get_mut(at) {
                *byte = value;
            }
            data.truncate(cut);
            parse(&data);
        }
    }
}
