//! The kernel's own account of programs and of code that is mapped (`perf_event_open`, a dummy event on each CPU).
//!
//! What `/proc` tells of a process is gone with it; what the kernel says here is written by the process itself, as it
//! begins a program or maps code, before it goes on. Nothing here asks for samples, so the traced program pays for a few
//! records when it begins, and nobody for anything else. Records have the time of the BPF programs' clock.

mod record;
mod ring;

pub(super) use record::{Told, What};

use aya_obj::generated::{perf_event_attr, perf_event_sample_format, perf_sw_ids, perf_type_id};
use record::Record;
use ring::Ring;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Where the kernel lists the CPUs that run.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// The account of all CPUs that ran when it was begun.
#[derive(Debug)]
pub(super) struct Sideband {
    rings: Vec<Ring>,
    /// What was read of a ring and not yet taken apart.
    bytes: Vec<u8>,
    /// Records that found no room, or could not be read.
    pub(super) lost: u64,
    /// When the kernel last told of one, by its clock.
    pub(super) lost_at: u64,
}

impl Sideband {
    /// Begins the account.
    ///
    /// # Errors
    /// Those of `perf_event_open` and `mmap`: the kernel has no such events, or this user may not have them.
    pub(super) fn open() -> io::Result<Self> {
        let cpus = cpus(&std::fs::read_to_string(ONLINE)?);
        let size = ring::bytes(cpus.len());
        Self::on(cpus, size)
    }

    /// Begins it on these CPUs, with so many bytes for each.
    fn on(cpus: Vec<u32>, size: usize) -> io::Result<Self> {
        let mut rings = Vec::new();
        for cpu in cpus {
            match event(cpu).and_then(|event| Ring::new(event, size)) {
                Ok(ring) => rings.push(ring),
                // It was put to rest meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        if rings.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no CPU that runs is known"));
        }
        Ok(Self { rings, bytes: Vec::new(), lost: 0, lost_at: 0 })
    }

    /// Hands on everything that was told until now: in order for each CPU, in none among them.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Told)) {
        for ring in &mut self.rings {
            self.bytes.clear();
            if !ring.take(&mut self.bytes) {
                self.lost += 1;
            }
            let mut rest = &self.bytes[..];
            while let Some((record, behind)) = record::next(rest) {
                rest = behind;
                match record {
                    Record::Told(told) => each(told),
                    Record::Lost { time, records } => {
                        self.lost = self.lost.saturating_add(records);
                        self.lost_at = self.lost_at.max(time);
                    }
                    Record::Other => {}
                    Record::Damaged => self.lost += 1,
                }
            }
        }
    }
}

/// Opens an event on a CPU that counts nothing and tells what programs begin and what code is mapped there.
fn event(cpu: u32) -> io::Result<OwnedFd> {
    // SAFETY: a structure of numbers, for which zero means that nothing is asked for.
    let mut attributes: perf_event_attr = unsafe { std::mem::zeroed() };
    attributes.type_ = perf_type_id::PERF_TYPE_SOFTWARE as u32;
    attributes.size = size_of::<perf_event_attr>() as u32;
    attributes.config = perf_sw_ids::PERF_COUNT_SW_DUMMY as u64;
    attributes.sample_type = perf_event_sample_format::PERF_SAMPLE_TIME as u64;
    attributes.clockid = libc::CLOCK_MONOTONIC;
    attributes.set_use_clockid(1);
    attributes.set_sample_id_all(1);
    attributes.set_comm(1);
    attributes.set_comm_exec(1);
    attributes.set_mmap(1);
    attributes.set_mmap2(1);
    let (pid, group) = (-1, -1);
    // SAFETY: the kernel reads the structure, which says how long it is.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, pid, cpu, group, CLOSE_ON_EXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The numbers in a list such as `0-3,8`. What is no list gives none.
fn cpus(text: &str) -> Vec<u32> {
    /// More than any kernel supports.
    const MOST: u32 = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        (last < MOST).then_some(first..=last)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpus("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(cpus("0"), [0]);
        assert_eq!(cpus("1-0,x,7-,-,99999999999,4294967295,5"), [5]);
        assert_eq!(cpus(""), [0; 0]);
    }

    #[test]
    fn a_process_that_is_gone_has_told_its_program_and_code() {
        let mut sideband = match Sideband::open() {
            Ok(sideband) => sideband,
            Err(error) => {
                eprintln!("skipped: no side-band events here: {error}");
                return;
            }
        };
        let before = super::super::monotonic();
        let mut child = Command::new("/bin/true").spawn().expect("it runs");
        let pid = child.id();
        child.wait().expect("it ends");
        let mut told = Vec::new();
        sideband.drain(|one| told.push(one));
        told.retain(|one| one.pid == pid);
        told.sort_by_key(|one| one.time);
        let now = super::super::monotonic();
        assert!(told.iter().all(|one| (before..=now).contains(&one.time)), "{told:?}");
        let exec = told.iter().position(|one| matches!(&one.what, What::Exec { comm } if comm == "true"));
        let code = &told[exec.expect("it became another program") + 1..];
        let has = |name: &str| {
            code.iter().any(|one| {
                matches!(&one.what, What::Code(line) if line.executable && line.is_file()
                && line.path.file_name().is_some_and(|file| file == name))
            })
        };
        assert!(has("true") && has("libc.so.6"), "{code:?}");
        assert_eq!(sideband.lost, 0);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        const COUNT: u64 = 1000;
        // SAFETY: asks where this thread runs.
        let cpu = u32::try_from(unsafe { libc::sched_getcpu() }).expect("it runs somewhere");
        // SAFETY: a set of bits, for which zero means empty.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: sets a bit of it.
        unsafe { libc::CPU_SET(cpu as usize, &mut set) };
        // SAFETY: keeps this thread, which ends with the test, where it is.
        assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) }, 0);
        let Ok(mut sideband) = Sideband::on(vec![cpu], ring::LEAST) else {
            eprintln!("skipped: no side-band events here");
            return;
        };
        let file = std::fs::File::open("/proc/self/exe").expect("this test's own file");
        let map = || {
            // SAFETY: nobody reads it, let alone runs it.
            drop(unsafe { memmap2::MmapOptions::new().len(4096).map_exec(&file) }.expect("it can be mapped"));
        };
        (0..COUNT).for_each(|_| map());
        let own = std::process::id();
        let mut told = 0;
        sideband.drain(|one| told += u64::from(one.pid == own));
        assert!(told > 0 && told < COUNT, "{told}");
        assert_eq!(sideband.lost, 0, "told with the next record that finds room");
        map();
        sideband.drain(|one| told += u64::from(one.pid == own));
        assert!(told + sideband.lost > COUNT && sideband.lost_at > 0, "{told} and {} lost", sideband.lost);
    }
}
