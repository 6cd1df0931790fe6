//! A control group for a run, by which the kernel holds its memory to a limit.
//!
//! It is made below memfrag's own, so whatever that one is held to holds for the run as well, and nothing but the run is ever
//! in it.

use super::run::LimitedBy;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the names of the groups begin; the id of the memfrag that made it follows.
const NAME: &str = "memfrag-replay-";
/// How often the removal of a group is tried: the kernel may still hold it for a moment after its last process.
const TRIES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(4);

/// A hierarchy of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// One for each controller, or some of them.
    V1,
    /// The one for all.
    V2,
}

/// The control groups of a process in which there may be a memory controller, by what its `cgroup` and `mountinfo` in
/// `/proc` say: that of version 2 first. What does not lie in what is mounted is left out.
fn own(cgroup: &str, mountinfo: &str) -> Vec<(Version, PathBuf)> {
    let find = |version| {
        let path = cgroup.lines().find_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = match version {
                Version::V2 => number == "0" && controllers.is_empty(),
                Version::V1 => controllers.split(',').any(|name| name == "memory"),
            };
            is_it.then_some(path)
        })?;
        let place = mountinfo.lines().find_map(|line| place(line, version, path))?;
        Some((version, place))
    };
    [Version::V2, Version::V1].into_iter().filter_map(find).collect()
}

/// Where a group lies by a line of `mountinfo`, if that mounts its hierarchy.
fn place(line: &str, version: Version, path: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.next_back()?);
    let is_it = match version {
        Version::V2 => name == "cgroup2",
        Version::V1 => name == "cgroup" && options.split(',').any(|name| name == "memory"),
    };
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    let below = Path::new(path).strip_prefix(root).ok()?;
    let is_plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (is_it && is_plain).then(|| Path::new(&point).join(below))
}

/// A field of `mountinfo`, in which blanks and the like are octal.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(field.to_owned(), |text, (code, meaning)| text.replace(code, meaning))
}

/// A number behind a word in lines of words and numbers.
fn count(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// A group with a limit, removed when it goes out of scope.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    path: PathBuf,
}

impl Group {
    /// One below memfrag's own for so many bytes, nothing of which may be swapped out. `None` where the kernel, or whoever
    /// set up the machine, does not let us.
    pub(super) fn new(memory: u64) -> Option<Self> {
        let [cgroup, mountinfo] = ["/proc/self/cgroup", "/proc/self/mountinfo"].map(fs::read_to_string);
        own(&cgroup.ok()?, &mountinfo.ok()?).into_iter().find_map(|(version, own)| Self::below(version, &own, memory))
    }

    fn below(version: Version, own: &Path, memory: u64) -> Option<Self> {
        let passes_on = match version {
            Version::V2 => {
                let below = fs::read_to_string(own.join("cgroup.subtree_control")).unwrap_or_default();
                below.split_whitespace().any(|name| name == "memory")
            }
            // Else the run would not count where memfrag does.
            Version::V1 => fs::read_to_string(own.join("memory.use_hierarchy")).is_ok_and(|text| text.trim() == "1"),
        };
        if !passes_on {
            return None;
        }
        remove_left_over(own);
        let group = Self { version, path: own.join(format!("{NAME}{}", std::process::id())) };
        fs::create_dir(&group.path).ok()?;
        let (limit, swap) = match version {
            Version::V2 => ("memory.max", "memory.swap.max"),
            Version::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        };
        group.set(limit, memory).ok()?;
        // Not there where the kernel does not count what is swapped out.
        let swap_limit = if version == Version::V2 { 0 } else { memory };
        let _ = group.set(swap, swap_limit);
        // Something must be open by which the run gets in.
        group.entrance().ok()?;
        Some(group)
    }

    fn set(&self, name: &str, value: u64) -> io::Result<()> {
        fs::write(self.path.join(name), value.to_string())
    }

    /// The file to which a process writes `0` to be in the group.
    pub(super) fn entrance(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// How often the kernel killed a process of the group because it had come to the limit.
    pub(super) fn kills(&self) -> u64 {
        let name = match self.version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        };
        fs::read_to_string(self.path.join(name)).map_or(0, |text| count(&text, "oom_kill"))
    }

    /// What holds the run to its limit.
    pub(super) const fn limited_by(&self) -> LimitedBy {
        match self.version {
            Version::V2 => LimitedBy::CgroupV2,
            Version::V1 => LimitedBy::CgroupV1,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(BETWEEN),
                _ => return,
            }
        }
    }
}

/// Removes the groups of memfrags that were killed. One in which there is a process cannot be removed.
fn remove_left_over(own: &Path) {
    for entry in fs::read_dir(own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(NAME)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v1(path: &str) -> (Version, PathBuf) {
        (Version::V1, PathBuf::from(path))
    }

    fn v2(path: &str) -> (Version, PathBuf) {
        (Version::V2, PathBuf::from(path))
    }

    const UNIFIED: &str = "24 30 0:22 / /proc rw,nosuid - proc proc rw\n\
                           35 24 0:29 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                          32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                          35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:10 - cgroup cgroup rw,memory\n\
                          41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_own_group_is_found_in_every_kind_of_hierarchy() {
        let scope = "0::/user.slice/user-1000.slice/session-3.scope\n";
        let found = own(scope, UNIFIED);
        assert_eq!(found, [v2("/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope")]);
        let hybrid = "9:name=systemd:/a\n4:memory:/jobs/one\n2:cpu,cpuacct:/b\n0::/a\n";
        assert_eq!(own(hybrid, HYBRID), [v2("/sys/fs/cgroup/unified/a"), v1("/sys/fs/cgroup/memory/jobs/one")]);
        let only_v1: String = HYBRID.lines().take(3).flat_map(|line| [line, "\n"]).collect();
        assert_eq!(own("4:memory,hugetlb:/\n", &only_v1), [v1("/sys/fs/cgroup/memory")]);
        assert_eq!(own("4:hugetlb:/\n", &only_v1), []);
    }

    #[test]
    fn a_container_sees_its_own_part() {
        let mounted = "35 31 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        assert_eq!(own("4:memory:/docker/1f/sub\n", mounted), [v1("/sys/fs/cgroup/memory/sub")]);
        assert_eq!(own("4:memory:/docker/1f\n", mounted), [v1("/sys/fs/cgroup/memory")]);
        // What lies outside of what is mounted, or of the name space, cannot be reached.
        assert_eq!(own("4:memory:/docker/22\n", mounted), []);
        assert_eq!(own("0::/../other.scope\n", UNIFIED), []);
    }

    #[test]
    fn odd_names_and_counts_are_read() {
        let mounted = "35 31 0:32 / /mnt/my\\040groups rw - cgroup2 none rw\n";
        assert_eq!(own("0::/a:b\n", mounted), [v2("/mnt/my groups/a:b")]);
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!([count(events, "oom_kill"), count(events, "oom"), count(events, "none")], [2, 3, 0]);
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "oom_kill"), 1);
        assert_eq!(count("oom_kill many\n", "oom_kill"), 0);
    }

    proptest! {
        #[test]
        fn whatever_the_files_hold_is_survived(cgroup in ".*", mountinfo in ".*", version in any::<bool>()) {
            let _ = own(&cgroup, &mountinfo);
            let version = if version { Version::V1 } else { Version::V2 };
            let _ = (place(&mountinfo, version, &cgroup), count(&cgroup, &mountinfo));
        }
    }
}
