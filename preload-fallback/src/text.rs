//! What the process says about itself: its program, its command line, its mappings.
//!
//! The daemon could read most of this itself, but not of a process that has already ended.

use crate::sys::{self, File, flags};
use core::sync::atomic::Ordering::{Relaxed, Release};
use memfrag_common::names::words_of;
use memfrag_common::session::{ProcessHeader, TEXT_BYTES, TEXT_OFFSET};

/// Fills in the header's facts and the text area. A forked child is what its parent was, so it says less.
///
/// # Safety
///
/// `base` points to the process's mapped file, whose text area nobody else writes.
pub(crate) unsafe fn write(header: &ProcessHeader, base: *mut u8, forked: bool) {
    header.start_ticks.store(start_ticks(), Relaxed);
    if forked {
        return;
    }
    // SAFETY: inside the mapping.
    let text = unsafe { base.add(TEXT_OFFSET) };
    let mut used = 0;
    // SAFETY: the area has `TEXT_BYTES`, all of them still free.
    let exe = unsafe { sys::read_link(b"/proc/self/exe\0", text, 4096) };
    header.exe_bytes.store(exe as u32, Relaxed);
    used += exe;
    // SAFETY: as before, less what is used; `used` is below `TEXT_BYTES`.
    let cmdline = unsafe { copy(b"/proc/self/cmdline\0", text.wrapping_add(used), (TEXT_BYTES - used).min(64 << 10)) };
    header.cmdline_bytes.store(cmdline as u32, Relaxed);
    // SAFETY: as the caller promises.
    unsafe { refresh(header, base) };
}

/// Writes the mappings as they are now.
///
/// # Safety
///
/// As for [`write()`].
pub(crate) unsafe fn refresh(header: &ProcessHeader, base: *mut u8) {
    let used = header.exe_bytes.load(Relaxed) as usize + header.cmdline_bytes.load(Relaxed) as usize;
    if used >= TEXT_BYTES {
        return;
    }
    // SAFETY: inside the mapping, behind what is used of the text area.
    let maps = unsafe { copy(b"/proc/self/maps\0", base.wrapping_add(TEXT_OFFSET + used), TEXT_BYTES - used) };
    header.maps_bytes.store(maps as u32, Relaxed);
    header.maps_version.fetch_add(1, Release);
}

/// The name that the kernel gives the process, as words.
pub(crate) fn comm() -> [u64; 2] {
    let mut comm = [0u8; 64];
    // SAFETY: a buffer of this length.
    let length = unsafe { copy(b"/proc/self/comm\0", comm.as_mut_ptr(), comm.len()) };
    words_of(comm.get(..length).unwrap_or(&[]))
}

/// Copies a file's beginning to memory; returns how much.
///
/// # Safety
///
/// There are `room` writable bytes at `at` that nobody else uses.
unsafe fn copy(path: &[u8], at: *mut u8, room: usize) -> usize {
    let Some(file) = File::open(path, flags::READ) else { return 0 };
    let mut used = 0;
    while used < room {
        // SAFETY: as the caller promises; `used` is below `room`.
        let got = unsafe { file.read(at.wrapping_add(used), room - used) };
        if got == 0 {
            break;
        }
        used += got.min(room - used);
    }
    file.close();
    used
}

/// When the process started, in clock ticks since boot; 0 when it cannot be learned.
fn start_ticks() -> u64 {
    let mut bytes = [0u8; 512];
    // SAFETY: a buffer of this length.
    let length = unsafe { copy(b"/proc/self/stat\0", bytes.as_mut_ptr(), bytes.len()) };
    field_22(bytes.get(..length).unwrap_or(&[])).unwrap_or(0)
}

/// The 22nd field of a process's `stat`. The second is a name in parentheses that may contain anything.
fn field_22(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let field = stat.get(name_end + 2..)?.split(|&byte| byte == b' ').nth(19)?;
    field.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::field_22;

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = b"42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(field_22(stat), Some(987_654));
        assert_eq!(field_22(b"42 (a"), None);
        assert_eq!(field_22(b"42 (a)"), None);
        assert_eq!(field_22(b""), None);
    }
}
