//! `/proc/PID/maps`: what is mapped where in a process.

use super::process::Mapping;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// One line of a process's map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "the line has a letter for each")]
pub struct MapLine {
    /// First address.
    pub start: u64,
    /// The address behind the last one.
    pub end: u64,
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether its code may run.
    pub executable: bool,
    /// Whether writes reach the file or other processes.
    pub shared: bool,
    /// Offset in the file of the first address.
    pub offset: u64,
    /// The file's device: major and minor number.
    pub device: (u32, u32),
    /// The file's inode, 0 for memory without a file.
    pub inode: u64,
    /// The file, or a name such as `[heap]`; empty for memory without a name. Without the mark for deleted files,
    /// and with newlines as they are in the file's name.
    pub path: PathBuf,
    /// Whether the file has been deleted or replaced. A file whose name ends in ` (deleted)` looks the same.
    pub deleted: bool,
}

impl MapLine {
    /// Reads one line; `None` when it is not of this format.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let (range, rest) = word(line)?;
        let (permissions, rest) = word(rest)?;
        let (offset, rest) = word(rest)?;
        let (device, rest) = word(rest)?;
        let (inode, rest) = word(rest)?;
        let (start, end) = split(range, b'-')?;
        let (major, minor) = split(device, b':')?;
        let &[read, write, execute, share, ..] = permissions else { return None };
        // Blanks before the name are padding; a path begins with a slash, other names with a bracket.
        let name = rest.trim_ascii_start();
        let (name, deleted) = match name.strip_suffix(b" (deleted)") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let line = Self {
            start: hex(start)?,
            end: hex(end)?,
            readable: read == b'r',
            writable: write == b'w',
            executable: execute == b'x',
            shared: share == b's',
            offset: hex(offset)?,
            device: (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
            inode: decimal(inode)?,
            path: PathBuf::from(OsStr::from_bytes(&unescape(name))),
            deleted,
        };
        (line.start < line.end).then_some(line)
    }

    /// Whether a file lies behind the mapping.
    pub fn is_file(&self) -> bool {
        self.inode != 0 && self.path.as_os_str().as_bytes().starts_with(b"/")
    }

    /// The link in `/proc` by which the very file that is mapped can be opened, even when its path now names another
    /// file, or none, or one of another mount namespace. Needs `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`.
    pub fn link(&self, pid: u32) -> PathBuf {
        PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end))
    }

    /// The path of the file as the process's own root directory leads to it.
    pub fn path_in_root(&self, pid: u32) -> PathBuf {
        let relative = self.path.strip_prefix("/").unwrap_or(&self.path);
        Path::new(&format!("/proc/{pid}/root")).join(relative)
    }

    /// What a recording keeps of the line.
    pub fn mapping(&self) -> Mapping {
        let mut path = self.path.clone();
        if self.deleted {
            path.as_mut_os_string().push(" (deleted)");
        }
        Mapping {
            start: self.start,
            end: self.end,
            offset: self.offset,
            executable: self.executable,
            path,
            inode: self.inode,
        }
    }
}

/// Reads a whole map. Lines of another format are passed over; their number comes second.
pub fn parse(text: &[u8]) -> (Vec<MapLine>, usize) {
    let mut lines = Vec::new();
    let mut unread = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match MapLine::parse(line) {
            Some(line) => lines.push(line),
            None => unread += 1,
        }
    }
    (lines, unread)
}

/// The mappings of files in a text like `/proc/PID/maps`; whatever else stands there is left out.
pub fn files(text: &[u8]) -> Vec<Mapping> {
    parse(text).0.iter().filter(|line| line.is_file()).map(MapLine::mapping).collect()
}

/// The text up to the next blank, and what follows that blank.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text.get(end + 1..).unwrap_or_default()))
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|&byte| byte == at)?;
    Some((&text[..position], &text[position + 1..]))
}

fn hex(digits: &[u8]) -> Option<u64> {
    number(digits, 16)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    number(digits, 10)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // The standard parser would take a sign.
    let first = digits.first()?;
    first.is_ascii_hexdigit().then(|| u64::from_str_radix(str::from_utf8(digits).ok()?, radix).ok())?
}

/// The kernel writes a newline in a name as `\012`, and nothing else that way.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(tail) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = tail;
        } else {
            plain.push(first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> MapLine {
        MapLine::parse(text.as_bytes()).expect("a line of the format")
    }

    #[test]
    fn reads_a_library() {
        let line = line(
            "7f1c2b400000-7f1c2b555000 r-xp 00026000 fd:01 18446744073709551615             /usr/lib/a b/libc.so.6",
        );
        assert_eq!((line.start, line.end, line.offset), (0x7f1c_2b40_0000, 0x7f1c_2b55_5000, 0x26000));
        assert_eq!((line.readable, line.writable, line.executable, line.shared), (true, false, true, false));
        assert_eq!((line.device, line.inode), ((0xfd, 1), u64::MAX));
        assert_eq!(line.path, Path::new("/usr/lib/a b/libc.so.6"));
        assert!(!line.deleted && line.is_file());
        assert_eq!(line.link(7), Path::new("/proc/7/map_files/7f1c2b400000-7f1c2b555000"));
        assert_eq!(line.path_in_root(7), Path::new("/proc/7/root/usr/lib/a b/libc.so.6"));
    }

    #[test]
    fn reads_deleted_files_and_newlines() {
        let line = line("1000-2000 rw-s 00000000 00:01 5 /tmp/a\\012b (deleted)");
        assert_eq!(line.path, Path::new("/tmp/a\nb"));
        assert!(line.deleted && line.shared);
        assert_eq!(line.mapping().path, Path::new("/tmp/a\nb (deleted)"));
    }

    #[test]
    fn reads_what_has_no_file() {
        assert_eq!(line("1000-2000 rw-p 00000000 00:00 0").path, Path::new(""));
        let heap = line("1000-2000 rw-p 00000000 00:00 0                          [heap]");
        assert_eq!(heap.path, Path::new("[heap]"));
        assert!(!heap.is_file());
        // The page of system calls lies in the upper half of the address space.
        assert_eq!(line("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]").offset, 0);
    }

    #[test]
    fn refuses_other_lines() {
        for text in ["", "x", "2000-1000 r-xp 0 0:0 0", "1000-2000 r 0 0:0 0", "+1-2 r-xp 0 0:0 0", "1-2 r-xp 0 0 0"] {
            assert_eq!(MapLine::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(b"nonsense\n1-2 r-xp 0 0:0 0\n\n").1, 1);
    }

    #[test]
    fn reads_the_own_process() {
        let (lines, unread) = parse(&std::fs::read("/proc/self/maps").expect("procfs is mounted"));
        assert_eq!(unread, 0);
        let here = reads_the_own_process as *const () as u64;
        let own = lines.iter().find(|line| (line.start..line.end).contains(&here)).expect("this code is mapped");
        assert!(own.executable && own.is_file());
        assert_eq!(own.path, std::env::current_exe().expect("it has a path"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&text);
        }

        #[test]
        fn a_written_line_is_read_back(
            start in 0u64..1 << 47, pages in 1u64..1 << 20, offset: u64, inode: u64, device: (u32, u32),
            name in "/[ -\\[\\]-~]{0,40}[!-\\[\\]-~]", deleted: bool,
        ) {
            prop_assume!(!name.ends_with(" (deleted)"));
            let end = start + pages * 4096;
            let (major, minor) = device;
            let mark = if deleted { " (deleted)" } else { "" };
            let text = format!("{start:x}-{end:x} r-xp {offset:08x} {major:02x}:{minor:02x} {inode} {:20}{name}{mark}", "");
            let line = MapLine::parse(text.as_bytes()).expect("a line of the format");
            prop_assert_eq!((line.start, line.end, line.offset, line.inode), (start, end, offset, inode));
            prop_assert_eq!((line.device, line.deleted), (device, deleted));
            prop_assert_eq!(line.path, PathBuf::from(name));
        }
    }
}
