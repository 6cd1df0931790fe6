//! The loader's own list of what it has loaded: in its order symbols are searched for, whatever has become of the
//! environment that the process was started with.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// Entries of the auxiliary vector: where the program's headers lie, and how many there are.
const AT_PHDR: u64 = 3;
const AT_PHNUM: u64 = 5;
/// Kinds of program headers.
const PT_DYNAMIC: u32 = 2;
const PT_PHDR: u32 = 6;
/// The entry of the dynamic section in which the loader leaves the address of its record (`struct r_debug`).
const DT_DEBUG: u64 = 21;

/// More headers, entries or files than any process has.
const MANY: u64 = 4096;

/// The addresses of the dynamic sections of the files that the loader has loaded, in its order, the program's first.
/// `None` when there is no such list, or not yet, or it may not be read.
pub fn dynamic_sections(pid: u32) -> Option<Vec<u64>> {
    let auxiliary = fs::read(format!("/proc/{pid}/auxv")).ok()?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    read(&auxiliary, |address| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_le_bytes(bytes))
    })
}

/// As [`dynamic_sections`], from the auxiliary vector and words of memory.
fn read(auxiliary: &[u8], word: impl Fn(u64) -> Option<u64>) -> Option<Vec<u64>> {
    let words: Vec<u64> = auxiliary.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let entry = |kind: u64| words.as_chunks().0.iter().find(|[found, _]| *found == kind).map(|[_, value]| *value);
    let (headers, count) = (entry(AT_PHDR)?, entry(AT_PHNUM)?.min(MANY));
    let (mut bias, mut dynamic) = (0, None);
    for number in 0..count {
        let header = headers.checked_add(number * 56)?;
        let address = || word(header.checked_add(16)?);
        match word(header)? as u32 {
            PT_PHDR => bias = headers.wrapping_sub(address()?),
            PT_DYNAMIC => dynamic = Some(address()?),
            _ => {}
        }
    }
    let dynamic = dynamic?.wrapping_add(bias);
    let entries = (0..MANY).map_while(|number| {
        let at = dynamic.checked_add(number * 16)?;
        Some((word(at)?, word(at.checked_add(8)?)?)).filter(|(tag, _)| *tag != 0)
    });
    let record = entries.filter(|(tag, _)| *tag == DT_DEBUG).map(|(_, value)| value).next().filter(|&at| at != 0)?;
    let mut sections = Vec::new();
    let mut entry = word(record.checked_add(8)?)?;
    while entry != 0 && (sections.len() as u64) < MANY {
        sections.push(word(entry.checked_add(16)?)?);
        entry = word(entry.checked_add(24)?)?;
    }
    Some(sections).filter(|sections| !sections.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::process;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn the_own_files_are_listed_in_the_loaders_order() {
        let pid = std::process::id();
        let map = process::map(pid).expect("it runs");
        let sections = dynamic_sections(pid).expect("tests are linked dynamically");
        let names: Vec<String> = sections
            .iter()
            .filter_map(|section| map.iter().find(|line| (line.start..line.end).contains(section)))
            .map(|line| line.path.display().to_string())
            .collect();
        let own = std::env::current_exe().expect("it has a path").display().to_string();
        assert_eq!(names.first(), Some(&own));
        assert!(names.iter().any(|name| name.ends_with("/libc.so.6")), "{names:?}");
    }

    proptest! {
        #[test]
        fn any_memory_is_read_without_panic(
            auxiliary in prop::collection::vec((0u64..8, 0u64..512), 0..8),
            words in prop::collection::hash_map((0u64..64).prop_map(|word| word * 8), prop_oneof![0u64..512, any::<u64>()], 0..64),
        ) {
            let auxiliary: Vec<u8> = auxiliary
                .into_iter()
                .flat_map(|(kind, value)| [kind.to_le_bytes(), (value & !7).to_le_bytes()].concat())
                .collect();
            let words: HashMap<u64, u64> = words;
            let sections = read(&auxiliary, |address| words.get(&address).copied());
            prop_assert!(sections.is_none_or(|sections| sections.len() <= 4096));
        }
    }
}
