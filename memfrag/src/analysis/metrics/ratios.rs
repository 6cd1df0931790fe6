//! Measures that are a ratio of two sums.

/// `part / whole`; `None` for an empty whole.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Internal fragmentation: the part of the live chunks that nobody asked for, header and rounding, as
/// `1 − requested / chunks`.
pub fn internal_fragmentation(requested: u64, chunks: u64) -> Option<f64> {
    ratio(requested, chunks).map(|used| 1.0 - used)
}

/// Resident bytes over live ones. Redis calls it `mem_fragmentation_ratio`.
pub fn overhead_ratio(resident: u64, live: u64) -> Option<f64> {
    ratio(resident, live)
}

/// By how much, in percent, the memory used at its peak exceeds what was in use then: `used / live − 1`. The measure
/// is tcmalloc's.
pub fn realized_fragmentation(used_at_peak: u64, live_at_peak: u64) -> Option<f64> {
    excess(used_at_peak, live_at_peak)
}

/// By how much, in percent, the heap's size at the end exceeds what is live then: `heap / live − 1` (Bohra and
/// Gabber). `None` when nothing is live.
pub fn end_fragmentation(heap: u64, live: u64) -> Option<f64> {
    excess(heap, live)
}

/// By how much, in percent, a heap exceeds what is live in it.
pub(super) fn excess(heap: u64, live: u64) -> Option<f64> {
    ratio(heap, live).map(|ratio| (ratio - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(measured: Option<f64>, expected: f64) {
        let measured = measured.expect("there is a value");
        assert!((measured - expected).abs() < 5e-5, "{measured} is not {expected}");
    }

    #[test]
    fn tcmallocs_published_peak() {
        assert_close(realized_fragmentation(12_238_113_346, 11_626_207_678), 5.263_2);
    }

    #[test]
    fn a_quarter_of_a_48_byte_chunk_was_not_asked_for() {
        assert_close(internal_fragmentation(36, 48), 0.25);
        assert_close(internal_fragmentation(48, 48), 0.0);
    }

    #[test]
    fn nothing_live_has_no_ratio() {
        assert_eq!(internal_fragmentation(0, 0), None);
        assert_eq!(overhead_ratio(4096, 0), None);
        assert_eq!(realized_fragmentation(4096, 0), None);
        assert_eq!(end_fragmentation(4096, 0), None);
        assert_close(end_fragmentation(4096, 1024), 300.0);
    }
}
