//! Running programs with a time limit, signals, and the code of a process as it lies in memory.

use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hung.
pub const LIMIT: Duration = Duration::from_mins(3);

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// Its wait status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, where it was text.
    pub stderr: String,
}

impl Ended {
    /// The status as a shell gives it: 128 + n for signal n.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Fails unless the program ended with 0.
    pub fn success(self) -> Result<Self> {
        ensure!(self.status.success(), "ended with {}; it wrote:\n{}", self.status, self.stderr);
        Ok(self)
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program at work, in a process group of its own; the whole group is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts the command. Its output goes to files, so that nobody has to read along.
    pub fn start(command: &mut Command) -> Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, stdout, stderr, ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn alive(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended.is_none())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        send(self.pid(), signal)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut at = 0;
        let mut part = [0; 4096];
        // Positioned reads leave the offset alone, which the program shares.
        loop {
            let n = self.stderr.read_at(&mut part, at)?;
            if n == 0 {
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            bytes.extend_from_slice(&part[..n]);
            at += n as u64;
        }
    }

    /// Waits for its end, at most for `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<Ended> {
        let begun = Instant::now();
        while self.alive()? {
            if begun.elapsed() > limit {
                bail!("still at work after {limit:?}; it wrote:\n{}", self.stderr()?);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let status = self.ended.context("no status")?;
        let mut stdout = Vec::new();
        self.stdout.seek(SeekFrom::Start(0))?;
        self.stdout.read_to_end(&mut stdout)?;
        let stderr = self.stderr()?;
        Ok(Ended { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.child.id().cast_signed();
        // SAFETY: `kill` takes no pointers. The group was made for this child. Its number stays taken while the child
        // is not waited for or members are left; after that the kernel has to go once through all numbers before it
        // comes to this one again.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        // It has ended, or does so now; there is nobody to tell about an error.
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Ended> {
    Running::start(command)?.wait(LIMIT).with_context(|| format!("{command:?}"))
}

/// Sends a signal to a process.
pub fn send(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: `kill` takes no pointers; a positive number names one process, which the caller started.
    let result = unsafe { libc::kill(pid.cast_signed(), signal) };
    ensure!(pid > 0 && result == 0, "cannot signal {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Gives a process that runs only while a processor is idle the same right to one as others, where that is permitted.
pub fn run_as_others(pid: u32) {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the structure, and concerns a process that the caller started, which runs later if this fails.
    unsafe { libc::sched_setscheduler(pid.cast_signed(), libc::SCHED_OTHER, &raw const parameters) };
}

/// Whether the process exists and is no zombie.
pub fn exists(pid: u32) -> bool {
    stat_state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

fn stat_state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until `ready` says so.
pub fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !ready()? {
        ensure!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Where a process's code differs from the files that it came from: the first place of each mapping. A probe is such
/// a difference, and code is not changed by anything else in the programs that the tests use.
pub fn changed_text(pid: u32) -> Result<Vec<String>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).with_context(|| format!("process {pid}"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut changes = Vec::new();
    for line in maps.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [range, protection, offset, _, _, path] = fields[..] else { continue };
        if !protection.contains('x') || !path.starts_with('/') {
            continue;
        }
        let (start, end) = range.split_once('-').context("a mapping without a range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let file = File::open(PathBuf::from(path)).with_context(|| format!("{path} of process {pid}"))?;
        let mut there = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut there, start).with_context(|| format!("memory of process {pid} at {start:#x}"))?;
        let mut here = vec![0; there.len()];
        let offset = u64::from_str_radix(offset, 16)?;
        // The last page may go beyond the end of the file.
        let known = file.read_at(&mut here, offset)?;
        if let Some(at) = (0..known).find(|&at| there[at] != here[at]) {
            changes.push(format!("{path} at {:#x}: {:02x} instead of {:02x}", offset + at as u64, there[at], here[at]));
        }
    }
    Ok(changes)
}

/// Waits until a process's code is as in its files again.
pub fn text_restored(pid: u32, limit: Duration) -> Result<()> {
    until("the target's code is as in its files", limit, || Ok(changed_text(pid)?.is_empty()))
        .with_context(|| format!("{:?}", changed_text(pid)))
}

/// Milliseconds since boot.
pub fn since_boot() -> Result<u64> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let (seconds, hundredths) = uptime.split_whitespace().next().and_then(|up| up.split_once('.')).context("uptime")?;
    Ok(seconds.parse::<u64>()? * 1000 + hundredths.parse::<u64>()? * 10)
}
