//! Work that has time until nobody else wants the processor.

use std::fs;
use std::time::Duration;

/// Has the calling thread run only while a processor has nothing else to do (`SCHED_IDLE`). Where the system refuses
/// that, it runs as all others do.
pub fn only_when_idle() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the structure, and concerns no thread but this one.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) };
}

/// Has the calling thread get a tenth of a processor that others want as well. It is not put aside altogether, so that
/// nobody waits long for a lock in its hands. Where the system refuses that, it runs as all others do.
pub fn after_others() {
    const NICE: libc::c_int = 10;
    // SAFETY: takes no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// What a process of one working thread has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Costs {
    /// Time that its first thread has had a processor.
    pub ran: Duration,
    /// Time that this thread was ready to run and had none.
    pub waited: Duration,
    /// The most bytes that were resident.
    pub memory: u64,
}

impl Costs {
    /// Reads what the kernel knows of a process. One that has ended and was not yet waited for has no memory, so that
    /// what was read last stays. Nothing changes where the kernel does not tell.
    pub fn read(&mut self, pid: u32) {
        // Absent in kernels without CONFIG_SCHED_INFO.
        if let Some((ran, waited)) =
            fs::read_to_string(format!("/proc/{pid}/schedstat")).ok().and_then(|text| times(&text))
        {
            (self.ran, self.waited) = (ran, waited);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        self.memory = most_memory(&status).unwrap_or(self.memory);
    }
}

/// The first two of the three numbers in `/proc/PID/schedstat`, nanoseconds.
fn times(schedstat: &str) -> Option<(Duration, Duration)> {
    let mut fields = schedstat.split_ascii_whitespace().map(|field| field.parse().ok().map(Duration::from_nanos));
    fields.next()?.zip(fields.next()?)
}

/// `VmHWM` in `/proc/PID/status`, in bytes.
fn most_memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read_or_left_alone() {
        let ns = Duration::from_nanos;
        assert_eq!(times("1500000000 20 33\n"), Some((ns(1_500_000_000), ns(20))));
        assert_eq!((times("1500000000"), times(""), times("a b c")), (None, None, None));
        assert_eq!(most_memory("VmPeak:\t 9 kB\nVmHWM:\t    8 kB\nVmRSS:\t 1 kB\n"), Some(8192));
        assert_eq!((most_memory("State:\tZ (zombie)\n"), most_memory("VmHWM:\t99999999999999999999 kB")), (None, None));
    }

    #[test]
    fn this_process_has_run_and_has_memory() {
        let mut costs = Costs::default();
        costs.read(std::process::id());
        assert!(costs.memory > 1 << 16, "{costs:?}");
        let before = costs;
        // No process has this number.
        costs.read(u32::MAX);
        assert_eq!(costs, before);
    }
}
