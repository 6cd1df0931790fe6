//! How well any allocator could do, and how badly.

use crate::glibc::layout::ALIGNMENT;

/// The most memory that first fit can need for `most_live` bytes when no request is larger than `largest`, in bytes:
/// `n · H(m) / ln 2` with sizes in units of 16 bytes (Robson).
pub fn first_fit_worst_case(most_live: u64, largest: u64) -> f64 {
    let (live, largest) = (most_live.div_ceil(ALIGNMENT), largest.div_ceil(ALIGNMENT));
    live as f64 * harmonic(largest) / std::f64::consts::LN_2 * ALIGNMENT as f64
}

/// About the memory that best fit can be made to need, in bytes: `n · m` in units of 16 bytes (Robson), less a term
/// that does not matter unless `largest` is close to `most_live`.
pub fn best_fit_worst_case(most_live: u64, largest: u64) -> f64 {
    most_live.div_ceil(ALIGNMENT) as f64 * largest.div_ceil(ALIGNMENT) as f64 * ALIGNMENT as f64
}

/// `1 + 1/2 + … + 1/n`.
fn harmonic(n: u64) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    if n <= 64 {
        return (1..=n).map(|k| 1.0 / k as f64).sum();
    }
    let n = n as f64;
    n.ln() + EULER + 1.0 / (2.0 * n) - 1.0 / (12.0 * n * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmonic_numbers() {
        assert!((harmonic(4) - 25.0 / 12.0).abs() < 1e-12);
        let summed: f64 = (1..=1000).map(|k| 1.0 / f64::from(k)).sum();
        assert!((harmonic(1000) - summed).abs() < 1e-12);
    }

    #[test]
    fn blocks_of_one_size_cannot_fragment_much() {
        // One size of a unit: H(1) / ln 2.
        let bound = first_fit_worst_case(1600, 16);
        assert!((bound - 1600.0 / std::f64::consts::LN_2).abs() < 1e-6, "{bound}");
        assert!((best_fit_worst_case(1600, 64) - 6400.0).abs() < 1e-6);
        assert!((first_fit_worst_case(0, 0) - 0.0).abs() < f64::EPSILON);
    }
}
