//! Which allocators a process has.

use super::elf::{ElfError, Image};
use super::file::MappedFile;
use super::link_map;
use super::maps::MapLine;
use super::process::{self, ProcessError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// An allocator that a process has mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// Which one it is.
    pub kind: AllocatorKind,
    /// Its version, where the file tells it.
    pub version: Option<String>,
    /// The file as `/proc/PID/maps` names it.
    pub path: PathBuf,
    /// A path by which the very file can be opened and probed now: its plain path if that leads there, else one
    /// through `/proc/PID`, for deleted files and those of containers.
    pub open: PathBuf,
    /// The file's build-id; empty when it has none.
    pub build_id: Vec<u8>,
    /// The file's inode. Together with the build-id it names the file: the device does not, since one file can show
    /// under several overlay mounts.
    pub inode: u64,
    /// The device under which the process sees the file.
    pub device: (u32, u32),
}

impl Allocator {
    /// Names the file, however it was reached: probes on two allocators with the same key would fire twice.
    pub fn key(&self) -> (&[u8], u64) {
        (&self.build_id, self.inode)
    }
}

/// What the search needs to know of a mapped file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The allocator, if the file defines `malloc`.
    pub allocator: Option<(AllocatorKind, Option<String>)>,
    /// The build-id; empty when there is none.
    pub build_id: Vec<u8>,
    /// The name that a library gives itself.
    pub soname: Option<String>,
    /// The libraries that it needs, in order.
    pub needed: Vec<String>,
    /// Whether it is a program that is linked statically and has no symbols.
    pub is_static_without_symbols: bool,
    /// Whether it is a Go program: what it allocates in Go does not pass through `malloc`.
    pub is_go: bool,
}

impl Facts {
    /// Reads them from a file's bytes; `path` helps to name the allocator.
    ///
    /// # Errors
    /// As [`Image::parse`].
    pub fn parse(data: &[u8], path: &Path) -> Result<Self, ElfError> {
        let image = Image::parse(data)?;
        // The loaders of old glibc carry a malloc for their own first steps, which programs do not get.
        let is_loader = image.soname.as_deref().is_some_and(|name| name.starts_with("ld-linux"));
        Ok(Self {
            allocator: (image.defines_malloc() && !is_loader).then(|| identify(&image, path)),
            is_static_without_symbols: image.is_static_without_symbols(),
            is_go: image.is_go,
            build_id: image.build_id,
            soname: image.soname,
            needed: image.needed,
        })
    }
}

/// A file's device and inode, as the map of a process gives them.
type Identity = ((u32, u32), u64);

/// What was read of files, by device and inode, so that a library that every process has is read once.
#[derive(Debug, Default)]
pub struct Cache {
    files: HashMap<Identity, Result<Arc<Facts>, ElfError>>,
}

/// The files that a process runs code from, each once, at its first executable mapping.
pub fn executables(map: &[MapLine]) -> Vec<&MapLine> {
    let mut seen = HashSet::new();
    map.iter().filter(|line| line.executable && line.is_file() && seen.insert((line.device, line.inode))).collect()
}

/// The order in which the loader searches files for a symbol: the program, what was preloaded, then what each needs,
/// nearest first; files that nothing needs were loaded later and come last. Gives positions in `files`.
///
/// `program` is the program's position; `preload` are file names or paths.
pub fn binding_order(files: &[(PathBuf, Arc<Facts>)], program: Option<usize>, preload: &[String]) -> Vec<usize> {
    let position = |name: &str| {
        let file_name = Path::new(name).file_name();
        files.iter().position(|(path, facts)| {
            facts.soname.as_deref() == Some(name) || path == Path::new(name) || path.file_name() == file_name
        })
    };
    let mut queue: VecDeque<usize> =
        program.into_iter().chain(preload.iter().filter_map(|name| position(name))).collect();
    let mut order = Vec::new();
    while let Some(next) = queue.pop_front() {
        if !order.contains(&next) {
            order.push(next);
            queue.extend(files[next].1.needed.iter().filter_map(|name| position(name)));
        }
    }
    let rest: Vec<usize> = (0..files.len()).filter(|at| !order.contains(at)).collect();
    order.extend(rest);
    order
}

/// The allocators that a process has mapped, the one that its calls of `malloc` bind to first.
///
/// It is empty for a process that has none yet, or none that could be recognised.
///
/// # Errors
/// When the process has gone, may not be looked at, or runs a program that cannot be traced.
pub fn of_process(pid: u32, cache: &mut Cache) -> Result<Vec<Allocator>, ProcessError> {
    process::check(pid)?;
    let map = process::map(pid)?;
    let exe = fs::metadata(process::program(pid)).ok().map(|metadata| metadata.ino());
    let mut files = Vec::new();
    let mut opened = Vec::new();
    let mut program = None;
    for line in executables(&map) {
        let is_program = program.is_none() && exe == Some(line.inode);
        let Some((open, facts)) = cache.read(pid, line, is_program) else { continue };
        match facts {
            Ok(facts) => {
                if is_program {
                    if facts.is_static_without_symbols {
                        return Err(ProcessError::StaticWithoutSymbols { pid, exe: line.path.clone() });
                    }
                    program = Some(files.len());
                }
                files.push((line.path.clone(), facts));
                opened.push((line, open));
            }
            Err(ElfError::ThirtyTwoBit) if is_program => {
                return Err(ProcessError::ThirtyTwoBit { pid, exe: line.path.clone() });
            }
            // Other files are no ELF files: data that is mapped to run, as some interpreters do.
            Err(_) => {}
        }
    }
    let order = match loaded(pid, &map, &opened) {
        Some(order) => order,
        None => binding_order(&files, program, &preloaded(pid)),
    };
    let allocators = order.into_iter().filter_map(|at| {
        let facts = &files[at].1;
        let (kind, version) = facts.allocator.clone()?;
        let (line, open) = &opened[at];
        Some(Allocator {
            kind,
            version,
            path: line.path.clone(),
            open: open.clone(),
            build_id: facts.build_id.clone(),
            inode: line.inode,
            device: line.device,
        })
    });
    Ok(allocators.collect())
}

/// The order in which the loader searches the files by its own account, where it has one: a program may overwrite the
/// environment that it was started with, and what was preloaded cannot be seen there any more.
fn loaded(pid: u32, map: &[MapLine], files: &[(&MapLine, PathBuf)]) -> Option<Vec<usize>> {
    let sections = link_map::dynamic_sections(pid)?;
    let position = |section: u64| {
        let line = map.iter().find(|line| (line.start..line.end).contains(&section))?;
        files.iter().position(|(file, _)| (file.device, file.inode) == (line.device, line.inode))
    };
    let mut order: Vec<usize> = Vec::new();
    for at in sections.into_iter().filter_map(position).chain(0..files.len()) {
        if !order.contains(&at) {
            order.push(at);
        }
    }
    Some(order)
}

/// The names of the libraries that were preloaded into a process, by its environment or the machine's file.
fn preloaded(pid: u32) -> Vec<String> {
    let variable = process::environment(pid, "LD_PRELOAD").unwrap_or_default();
    let file = fs::read_to_string(format!("/proc/{pid}/root/etc/ld.so.preload")).unwrap_or_default();
    let both = format!("{} {file}", variable.to_string_lossy());
    both.split([' ', ':', '\n', '\t']).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Cache {
    /// The facts of a mapped file and a path by which it can be opened; `None` when it cannot be.
    fn read(&mut self, pid: u32, line: &MapLine, is_program: bool) -> Option<(PathBuf, Result<Arc<Facts>, ElfError>)> {
        let (open, file) = open(pid, line, is_program).ok()?;
        let facts = self.files.entry((line.device, line.inode)).or_insert_with(|| {
            let file = MappedFile::of(&file).map_err(|error| ElfError::Damaged(error.to_string()))?;
            Facts::parse(&file, &line.path).map(Arc::new)
        });
        Some((open, facts.clone()))
    }
}

/// Opens the very file that is mapped, by the plainest path that leads to it.
fn open(pid: u32, line: &MapLine, is_program: bool) -> io::Result<(PathBuf, File)> {
    let same_mounts = || {
        let own = fs::read_link("/proc/self/ns/mnt").ok()?;
        Some(own == fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?)
    };
    let mut paths = Vec::new();
    if !line.deleted {
        if same_mounts() == Some(true) {
            paths.push(line.path.clone());
        }
        paths.push(line.path_in_root(pid));
    }
    if is_program {
        paths.push(process::program(pid));
    }
    paths.push(line.link(pid));
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for path in paths {
        // Another file may have taken the path.
        match super::file::open(&path).and_then(|file| Ok((file.metadata()?.ino() == line.inode, file))) {
            Ok((true, file)) => return Ok((path, file)),
            Ok((false, _)) => {}
            Err(failed) => error = failed,
        }
    }
    Err(error)
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
        // What the library tells of itself at length is not linked into programs; its bare version is.
        let version = find(rodata(), b" release version ", version_behind);
        let bare = || image.soname.is_none().then(|| find(rodata(), b"\0", glibc_version)).flatten();
        return (AllocatorKind::Glibc, version.or_else(bare));
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
    // A static program of musl has none of its texts, but begins as every C program does.
    if kind == AllocatorKind::Other && image.soname.is_none() && markers.libc && !markers.glibc_stdio {
        return (AllocatorKind::Musl, None);
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

/// `2.36` as a text of its own.
fn glibc_version(text: &[u8], at: usize) -> Option<String> {
    let found = version(&text[at + 1..])?;
    let is_whole = text.get(at + 1 + found.len()) == Some(&0);
    let minor = found.strip_prefix("2.")?;
    (is_whole && minor.len() == 2 && minor.bytes().all(|byte| byte.is_ascii_digit())).then(|| found.to_owned())
}

/// `1.2.3` as a text of its own.
fn musl_version(text: &[u8], at: usize) -> Option<String> {
    let found = version(&text[at + 1..])?;
    let is_whole = text.get(at + 1 + found.len()) == Some(&0);
    (is_whole && found.starts_with("1.") && found.split('.').count() == 3).then(|| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(path: &str, soname: &str, needed: &[&str]) -> (PathBuf, Arc<Facts>) {
        let facts = Facts {
            soname: (!soname.is_empty()).then(|| soname.to_owned()),
            needed: needed.iter().map(|&name| name.to_owned()).collect(),
            ..Facts::default()
        };
        (PathBuf::from(path), Arc::new(facts))
    }

    #[test]
    fn binding_goes_breadth_first_from_the_program() {
        let files = [
            library("/lib/libc.so.6", "libc.so.6", &["ld-linux-x86-64.so.2"]),
            library("/opt/libplugin.so", "", &["libc.so.6"]),
            library("/lib/libfoo.so.1.2", "libfoo.so.1", &["libjemalloc.so.2", "libc.so.6"]),
            library("/usr/bin/program", "", &["libfoo.so.1", "libc.so.6"]),
            library("/lib/libjemalloc.so.2", "libjemalloc.so.2", &["libc.so.6"]),
        ];
        // The C library comes before jemalloc here: the program needs it itself.
        assert_eq!(binding_order(&files, Some(3), &[]), [3, 2, 0, 4, 1]);
        assert_eq!(binding_order(&files, Some(3), &["libjemalloc.so.2".into()]), [3, 4, 2, 0, 1]);
        assert_eq!(binding_order(&files, Some(3), &["/elsewhere/libjemalloc.so.2".into()])[1], 4);
        assert_eq!(binding_order(&files, None, &[]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn versions_are_read_from_texts() {
        let text = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright";
        assert_eq!(find(text, b" release version ", version_behind).as_deref(), Some("2.36"));
        let text = b"x\0a-g5\x005.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c\0";
        assert_eq!(find(text, b"-g", jemalloc_version).as_deref(), Some("5.3.0"));
        assert_eq!(find(b"\x001.2\x001.2.5x\x001.2.5\0", b"\0", musl_version).as_deref(), Some("1.2.5"));
        assert_eq!(find(b"", b"-g", jemalloc_version), None);
        assert_eq!(find(b" release version ", b" release version ", version_behind), None);
        assert_eq!(find(b"-g-g-g", b"-g", jemalloc_version), None);
    }

    #[test]
    fn the_own_process_has_a_c_library() {
        let mut cache = Cache::default();
        let pid = std::process::id();
        let allocators = of_process(pid, &mut cache).expect("it can be read");
        let first = allocators.first().expect("it allocates");
        assert_ne!(first.kind, AllocatorKind::Other, "{first:?}");
        assert_eq!(first.open, first.path, "its own file system needs no detour");
        assert_eq!(of_process(pid, &mut cache).expect("it still can"), allocators);
    }

    /// A process that runs until it is dropped.
    struct Running(std::process::Child);

    impl Running {
        fn start(preload: &Path) -> Option<Self> {
            let mut command = std::process::Command::new("sleep");
            let child = Self(command.arg("60").env("LD_PRELOAD", preload).spawn().ok()?);
            // The loader needs a moment before the library is mapped.
            for _ in 0..1000 {
                let map = fs::read_to_string(format!("/proc/{}/maps", child.0.id())).ok()?;
                if map.contains("libc.so.6") && map.contains("[heap]") {
                    return Some(child);
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Some(child)
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_preloaded_allocator_comes_first() {
        let library = Path::new("/lib/x86_64-linux-gnu/libjemalloc.so.2");
        let Some(child) = library.exists().then(|| Running::start(library)).flatten() else {
            eprintln!("skipped: jemalloc is not installed here");
            return;
        };
        let allocators = of_process(child.0.id(), &mut Cache::default()).expect("it runs");
        let kinds: Vec<_> = allocators.iter().map(|allocator| allocator.kind).collect();
        assert_eq!(kinds, [AllocatorKind::Jemalloc, AllocatorKind::Glibc]);
        assert_eq!(allocators[0].version.as_deref(), Some("5.3.0"));
    }

    #[test]
    fn a_deleted_allocator_can_still_be_opened() {
        let library = Path::new("/lib/x86_64-linux-gnu/libmimalloc.so.2");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let copy = directory.path().join("libmimalloc copy.so");
        if fs::copy(library, &copy).is_err() {
            eprintln!("skipped: mimalloc is not installed here");
            return;
        }
        // A path with a blank cannot be preloaded; the name with one is what the process gets afterwards.
        let plain = directory.path().join("libcopy.so");
        fs::rename(&copy, &plain).expect("both are ours");
        let Some(child) = Running::start(&plain) else { return };
        fs::rename(&plain, &copy).expect("both are ours");
        let find = || {
            let all = of_process(child.0.id(), &mut Cache::default()).expect("it runs");
            all.into_iter().find(|allocator| allocator.kind == AllocatorKind::Mimalloc).expect("it is mapped")
        };
        let renamed = find();
        assert_eq!((&renamed.path, &renamed.open), (&copy, &copy));
        fs::remove_file(&copy).expect("it is ours");
        // SAFETY: the call takes nothing and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            eprintln!("skipped: deleted files can be opened by root only");
            return;
        }
        let deleted = find();
        assert!(deleted.open.starts_with(format!("/proc/{}/map_files", child.0.id())), "{deleted:?}");
        let bytes = MappedFile::open(&deleted.open).expect("it can be opened");
        assert_eq!(Image::parse(&bytes).expect("it is whole").build_id, deleted.build_id);
    }
}
