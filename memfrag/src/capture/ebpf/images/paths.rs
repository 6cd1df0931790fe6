//! Where files lie, for who is not in the place of the process that mapped them.

use crate::target::maps::MapLine;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// A file as processes name it: device and inode, and the path from their root directory.
type Name = ((u32, u32), u64, PathBuf);

/// Most names that are remembered.
const MOST: usize = 1 << 16;

/// The paths of files that were looked for.
#[derive(Debug, Default)]
pub(super) struct Paths {
    found: HashMap<Name, PathBuf>,
}

impl Paths {
    /// Processes tell paths from their own root directory. Where another file lies there, or none, that of the mapping is asked
    /// for from here, as long as the process has it; what nobody can find keeps its name.
    pub(super) fn put_right(&mut self, pid: u32, line: &mut MapLine) {
        if line.deleted || !line.is_file() {
            return;
        }
        let name = (line.device, line.inode, line.path.clone());
        if let Some(path) = self.found.get(&name) {
            line.path.clone_from(path);
            return;
        }
        let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.ino() == line.inode);
        if !is_it(&line.path) {
            let Some(path) = fs::read_link(line.link(pid)).ok().filter(is_it) else { return };
            line.path = path;
        }
        if self.found.len() >= MOST {
            self.found.clear();
        }
        self.found.insert(name, line.path.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_its_mapping_where_its_path_leads_elsewhere() {
        let own = std::process::id();
        let exe = std::env::current_exe().expect("it has a path");
        let lines = crate::target::process::map(own).expect("procfs is mounted");
        let line = lines.into_iter().find(|line| line.executable && line.path == exe).expect("this code is mapped");
        let mut paths = Paths::default();
        let mut told = line.clone();
        paths.put_right(own, &mut told);
        assert_eq!(told, line);
        if fs::read_link(line.link(own)).is_err() {
            eprintln!("skipped: no right to read map_files");
            return;
        }
        let elsewhere = MapLine { path: "/etc/passwd".into(), ..line.clone() };
        let mut told = elsewhere.clone();
        paths.put_right(u32::MAX, &mut told);
        assert_eq!(told, elsewhere, "nobody can tell any more");
        for _ in 0..2 {
            let mut told = elsewhere.clone();
            paths.put_right(own, &mut told);
            assert_eq!(told, line);
        }
        let mut told = elsewhere;
        paths.put_right(u32::MAX, &mut told);
        assert_eq!(told, line, "it is known by now");
    }
}
