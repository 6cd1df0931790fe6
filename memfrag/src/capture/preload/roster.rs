//! The images of a session: how they are found, how their appearance and their end are told.

use super::PreloadSession;
use super::image::{Image, Opened};
use super::output::Output;
use crate::capture::Sink;
use crate::target::{Mapping, ProcessInfo, process};
use memfrag_common::event::Op;
use memfrag_common::session::Origin;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::{fs, io};

impl PreloadSession {
    /// Looks into the session's directory for images that were not there before.
    pub(super) fn find_images(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.directory.data())? {
            let entry = entry?;
            let name = entry.file_name();
            // Names with a dot are further files of the same process.
            if self.known.contains(&name) || name.as_bytes().contains(&b'.') {
                continue;
            }
            match Image::open(&entry.path(), self.slots) {
                Ok(Opened::Image(image)) => {
                    self.known.insert(name);
                    self.add(*image);
                }
                Ok(Opened::Unfinished) => {}
                Ok(Opened::Foreign) => {
                    self.known.insert(name);
                    self.foreign += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.known.insert(name);
                    self.foreign += 1;
                    if error.raw_os_error() == Some(libc::EMFILE) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes an image in, and sees which others it has taken the place of.
    fn add(&mut self, image: Image) {
        let pid = image.pid;
        self.seen += 1;
        self.images.push(image);
        // Appearances are told in order.
        self.images.sort_by_key(|image| image.born);
        // Of the images of one process all but the last are gone. An image of the same id that started at another
        // time was another process, which must have ended.
        let mut later = self.images.iter_mut().rev().filter(|image| image.pid == pid);
        if let Some(last) = later.next() {
            let last = last.start_ticks;
            for old in later {
                old.replaced = old.start_ticks == last;
                old.dead = true;
            }
        }
    }

    /// Tells that an image has appeared.
    pub(super) fn announce(&mut self, index: usize, sink: &mut dyn Sink) {
        let image = &mut self.images[index];
        image.announced = true;
        let (pid, born, origin) = (image.pid, image.born, image.origin);
        // Who made it knows better than it does itself: it may have begun when that was gone already.
        let told = self.output.told.remove(&pid);
        let parent = told.unwrap_or(image.ppid);
        let time = self.output.ticker.nanoseconds(born);
        let (mut info, maps) = image.describe(time);
        info.ppid = parent;
        let exec_of_known = origin == Origin::Exec && self.descriptions.contains_key(&pid);
        let has_parent = told.is_some() || self.descriptions.contains_key(&parent);
        if has_parent && !exec_of_known && told.is_none() {
            let flags = match origin {
                Origin::Fork => {
                    self.output.appeared.insert(pid);
                    0
                }
                // It began in its parent's memory or in a copy, which does not matter any more.
                Origin::Exec => (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
            };
            self.output.remark(born, parent, parent, Op::Fork { child: pid, flags }, sink);
        }
        self.output.flush(sink);
        let maps = if origin == Origin::Fork {
            let inherited = self.orphans.remove(&pid).or_else(|| self.known(parent));
            if let Some((known, _)) = &inherited {
                info.comm.clone_from(&known.comm);
                info.exe.clone_from(&known.exe);
                info.cmdline.clone_from(&known.cmdline);
                info.settings.clone_from(&known.settings);
            }
            inherited.map(|(_, maps)| maps).unwrap_or_default()
        } else {
            Rc::new(maps)
        };
        sink.process(&info);
        sink.mappings(time, pid, &maps);
        self.mappings.insert(pid, maps);
        self.descriptions.insert(pid, info);
        if origin == Origin::Exec && (exec_of_known || has_parent) {
            self.output.remark(born, pid, pid, Op::Exec, sink);
        }
    }

    /// What is known of a process.
    fn known(&self, pid: u32) -> Option<(ProcessInfo, Rc<Vec<Mapping>>)> {
        let maps = self.mappings.get(&pid).map(Rc::clone).unwrap_or_default();
        Some((self.descriptions.get(&pid)?.clone(), maps))
    }

    /// Looks whether running processes have loaded libraries since.
    pub(super) fn refresh_mappings(&mut self, sink: &mut dyn Sink) {
        for image in self.images.iter().filter(|image| image.announced && !image.ended()) {
            let Ok(maps) = process::files(image.pid) else { continue };
            tell_mappings(&mut self.mappings, &mut self.output, image.pid, maps, sink);
        }
    }

    /// Lets go of images that have ended and been read to the end, of `which` ones.
    pub(super) fn retire(&mut self, sink: &mut dyn Sink, which: fn(&Image) -> bool) {
        let me = std::process::id();
        let mut index = 0;
        while let Some(image) = self.images.get(index) {
            let read = image.announced && image.rings.iter().all(|ring| ring.tail == ring.head);
            // The status of our own child will be told.
            let known = image.ppid != me || self.statuses.contains_key(&image.pid) || self.finishing || image.replaced;
            if !(image.ended() && read && known && which(image)) {
                index += 1;
                continue;
            }
            let image = self.images.remove(index);
            let entry = self.totals.entry(image.pid).or_default();
            for (total, value) in entry.iter_mut().zip(image.counters()) {
                *total += value;
            }
            if let Some(maps) = image.last_mappings() {
                tell_mappings(&mut self.mappings, &mut self.output, image.pid, maps, sink);
            }
            // Nothing can be written to them any more.
            for chunk in 0..=image.rings.len() {
                let mut path = image.path().as_os_str().to_owned();
                if chunk > 0 {
                    path.push(format!(".{chunk}"));
                }
                if fs::remove_file(&path).is_err() {
                    break;
                }
            }
            if let Some(name) = image.path().file_name() {
                self.known.remove(name);
            }
            let stamp = image.rings.iter().map(|ring| ring.last).max().unwrap_or(image.born);
            for ring in &image.rings {
                let owner = ring.header().owner.0.owner.load(Relaxed) as u32;
                if owner != 0 {
                    self.output.remark(stamp, image.pid, owner, Op::ThreadExit, sink);
                }
            }
            if !image.replaced {
                let status = self.statuses.remove(&image.pid);
                self.output.remark(stamp, image.pid, image.pid, Op::Exit { status }, sink);
                for (&child, _) in self.output.told.iter().filter(|&(_, &parent)| parent == image.pid) {
                    self.orphans.extend(self.known(image.pid).map(|known| (child, known)));
                }
                self.descriptions.remove(&image.pid);
                self.mappings.remove(&image.pid);
                self.output.told.remove(&image.pid);
                self.output.appeared.remove(&image.pid);
                self.orphans.remove(&image.pid);
            }
        }
    }
}

/// Tells a process's mappings if they have changed.
fn tell_mappings(
    known: &mut HashMap<u32, Rc<Vec<Mapping>>>,
    output: &mut Output,
    pid: u32,
    maps: Vec<Mapping>,
    sink: &mut dyn Sink,
) {
    if maps.is_empty() || known.get(&pid).is_some_and(|old| **old == maps) {
        return;
    }
    output.flush(sink);
    sink.mappings(output.last(), pid, &maps);
    known.insert(pid, Rc::new(maps));
}
