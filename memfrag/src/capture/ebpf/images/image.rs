//! The image of one process: the program that it runs, and the code that it has mapped.

use super::super::sideband::{Told, What};
use crate::target::maps::MapLine;
use crate::target::{ProcessInfo, process};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::rc::Rc;

/// What a process runs, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// Its name and file, where the process told them as it began.
    pub(super) program: Option<Rc<Program>>,
    /// What it has mapped that can run, by address.
    pub(super) code: Rc<Vec<MapLine>>,
    /// The moment since which it is known whole, by `CLOCK_MONOTONIC` in nanoseconds.
    pub(super) since: u64,
}

/// A program that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) comm: String,
    /// Its file and that file's inode: what it maps first. Empty until then.
    pub(super) file: PathBuf,
    pub(super) inode: u64,
}

impl Program {
    /// That of a process that was looked at; `None` when it has gone.
    pub(super) fn of(seen: &ProcessInfo) -> Option<Self> {
        let inode = inode(seen.pid)?;
        Some(Self { comm: seen.comm.clone(), file: seen.exe.clone(), inode })
    }

    /// Whether it is what a process that was looked at runs: the same file, wherever it lies.
    pub(super) fn is_that_of(&self, seen: &ProcessInfo) -> bool {
        self.inode == 0 || self.file == seen.exe || inode(seen.pid) == Some(self.inode)
    }
}

/// The inode of the program that a process runs now.
fn inode(pid: u32) -> Option<u64> {
    fs::metadata(process::program(pid)).ok().map(|file| file.ino())
}

impl Image {
    /// One that was looked at.
    pub(super) fn of(lines: Vec<MapLine>, since: u64) -> Self {
        let code = lines.into_iter().filter(|line| line.executable && line.is_file()).collect();
        Self { code: Rc::new(code), since, ..Self::default() }
    }

    /// Takes what the process told next; tells whether its code is another now.
    pub(super) fn take(&mut self, told: Told) -> bool {
        match told.what {
            What::Exec { comm } => {
                let program = Program { comm, file: PathBuf::new(), inode: 0 };
                *self = Self { program: Some(Rc::new(program)), since: told.time, ..Self::default() };
                true
            }
            What::Code(line) => {
                // The kernel maps the program before the loader that it names.
                if let Some(program) = &mut self.program
                    && program.inode == 0
                    && line.is_file()
                {
                    let program = Rc::make_mut(program);
                    program.file = line.mapping().path;
                    program.inode = line.inode;
                }
                self.lay(line)
            }
        }
    }

    /// Puts a mapping over what was there before.
    fn lay(&mut self, line: MapLine) -> bool {
        // A file is mapped and then made unreadable, readable, or the like: it is told each time.
        if self.at(line.start) == Some(&line) {
            return false;
        }
        let was_cut = self.cut(line.start, line.end);
        if !line.is_file() {
            return was_cut;
        }
        let code = Rc::make_mut(&mut self.code);
        let at = code.partition_point(|other| other.start < line.start);
        code.insert(at, line);
        true
    }

    /// Takes away what is there from one address to before another; tells whether something was.
    pub(super) fn cut(&mut self, start: u64, end: u64) -> bool {
        let first = self.code.partition_point(|line| line.end <= start);
        let behind = self.code.partition_point(|line| line.start < end);
        if first >= behind {
            return false;
        }
        let pieces = self.code[first..behind].iter().flat_map(|line| {
            let before = (line.start < start).then(|| MapLine { end: start, ..line.clone() });
            let after = (line.end > end).then(|| {
                let offset = line.offset.wrapping_add(end - line.start);
                MapLine { start: end, offset, ..line.clone() }
            });
            before.into_iter().chain(after)
        });
        let pieces: Vec<MapLine> = pieces.collect();
        Rc::make_mut(&mut self.code).splice(first..behind, pieces);
        true
    }

    /// The mapping in which an address lies.
    pub(super) fn at(&self, address: u64) -> Option<&MapLine> {
        let after = self.code.partition_point(|line| line.start <= address);
        self.code.get(after.checked_sub(1)?).filter(|line| address < line.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;

    fn line(start: u64, pages: u64, inode: u64) -> MapLine {
        let (start, end) = (start * PAGE, (start + pages) * PAGE);
        let text = format!("{start:x}-{end:x} r-xp {:08x} 00:01 {inode} /file-{inode}", start * 2);
        MapLine::parse(text.as_bytes()).expect("a line of the format")
    }

    fn told(time: u64, what: What) -> Told {
        Told { time, pid: 7, what }
    }

    fn exec(comm: &str) -> What {
        What::Exec { comm: comm.to_owned() }
    }

    #[test]
    fn a_program_begins_with_nothing_and_is_what_it_maps_first() {
        let mut image = Image::of(vec![line(1, 1, 9)], 5);
        assert!(image.take(told(10, exec("x"))) && image.code.is_empty());
        assert_eq!(image.since, 10);
        image.take(told(11, What::Code(line(3, 2, 1))));
        image.take(told(12, What::Code(line(8, 2, 2))));
        let program = image.program.as_deref().cloned();
        assert_eq!(program, Some(Program { comm: "x".to_owned(), file: "/file-1".into(), inode: 1 }));
        assert_eq!(image.at(8 * PAGE), Some(&line(8, 2, 2)));
        assert_eq!((image.at(10 * PAGE), image.at(0)), (None, None));
    }

    #[test]
    fn the_same_told_twice_is_nothing_new() {
        let mut image = Image::default();
        assert!(image.take(told(1, What::Code(line(3, 2, 1)))));
        assert!(!image.take(told(2, What::Code(line(3, 2, 1)))));
        assert!(image.take(told(3, What::Code(line(3, 2, 2)))));
        // Code that belongs to no file hides what was there, and is none that could be named.
        let memory = MapLine { inode: 0, path: PathBuf::new(), ..line(3, 1, 1) };
        assert!(image.take(told(4, What::Code(memory))));
        assert_eq!(*image.code, [MapLine { offset: 7 * PAGE, ..line(4, 1, 2) }]);
    }

    proptest! {
        /// What lies on each page is what was put there last, at the right place of its file.
        #[test]
        fn newer_lies_over_older(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, 1u64..12, 1u64..4), 0..40),
        ) {
            let mut image = Image::default();
            let mut pages = [None; 64];
            for (is_code, start, count, inode) in steps {
                let new = is_code.then(|| line(start, count, inode));
                match &new {
                    Some(line) => {
                        image.take(told(1, What::Code(line.clone())));
                    }
                    None => {
                        image.cut(start * PAGE, (start + count) * PAGE);
                    }
                }
                for page in start..start + count {
                    pages[page as usize] = new.as_ref().map(|line| (inode, line.offset + (page - start) * PAGE));
                }
                prop_assert!(image.code.is_sorted_by(|one, next| one.start < one.end && one.end <= next.start));
                for (page, expected) in (0..).zip(&pages) {
                    let found = image.at(page * PAGE + 5);
                    let found = found.map(|line| (line.inode, line.offset + page * PAGE - line.start));
                    prop_assert_eq!(found, *expected, "page {}", page);
                }
            }
        }
    }
}
