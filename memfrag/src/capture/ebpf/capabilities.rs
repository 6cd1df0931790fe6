//! Whether this process may load programs and probe others.

/// The capabilities that tracing needs, with their numbers in `linux/capability.h`.
const NEEDED: [(&str, u32); 3] = [("CAP_SYS_PTRACE", 19), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];

/// Stands for those before kernel 5.8, and still does.
const CAP_SYS_ADMIN: u32 = 21;

/// The needed capabilities that this process does not have.
pub fn missing_capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_in(&status)
}

/// Whether this process has all of them.
pub fn has_capabilities() -> bool {
    missing_capabilities().is_empty()
}

fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |number: u32| effective >> number & 1 == 1;
    NEEDED
        .into_iter()
        .filter(|&(name, number)| !has(number) && (name == "CAP_SYS_PTRACE" || !has(CAP_SYS_ADMIN)))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_mask() {
        assert_eq!(missing_in("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing_in("CapEff:\t0000000000000000\n"), ["CAP_SYS_PTRACE", "CAP_PERFMON", "CAP_BPF"]);
        // CAP_SYS_ADMIN (bit 21) and CAP_SYS_PTRACE (bit 19).
        assert_eq!(missing_in("CapEff:\t0000000000280000\n"), Vec::<&str>::new());
        assert_eq!(missing_in("").len(), 3);
    }
}
