//! Numbers for people.

/// Bytes in IEC units with three or four digits: `131.4 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be printed as 1024.0 is 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with its digits in groups of three: `1,204,331`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count that need not be exact: `558 k`, `3.4 M`.
pub fn about(count: f64) -> String {
    match count {
        c if c >= 999_950_000.0 => format!("{:.1} G", c / 1e9),
        c if c >= 999_950.0 => format!("{:.1} M", c / 1e6),
        c if c >= 9_999.5 => format!("{:.0} k", c / 1e3),
        c if c >= 999.5 => format!("{:.1} k", c / 1e3),
        c => format!("{c:.0}"),
    }
}

/// A time in nanoseconds: `820 µs`, `12.4 s`, `3 min 05 s`, `2 h 11 min`.
pub fn duration(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    match ns {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.0} µs", seconds * 1e6),
        1_000_000..10_000_000 => format!("{:.1} ms", seconds * 1e3),
        10_000_000..1_000_000_000 => format!("{:.0} ms", seconds * 1e3),
        1_000_000_000..10_000_000_000 => format!("{seconds:.2} s"),
        10_000_000_000..100_000_000_000 => format!("{seconds:.1} s"),
        _ => {
            let seconds = ns / 1_000_000_000;
            if seconds < 3600 {
                format!("{} min {:02} s", seconds / 60, seconds % 60)
            } else {
                format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60)
            }
        }
    }
}

/// `1 block`, `2 blocks`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (137_800_000, "131.4 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (value, expected) in cases {
            assert_eq!(bytes(value), expected);
        }
    }

    #[test]
    fn counts() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_204_331, "1,204,331")];
        for (value, expected) in cases {
            assert_eq!(count(value), expected);
        }
        let cases =
            [(0.0, "0"), (999.4, "999"), (1000.0, "1.0 k"), (558_311.0, "558 k"), (3.44e6, "3.4 M"), (2e9, "2.0 G")];
        for (value, expected) in cases {
            assert_eq!(about(value), expected);
        }
    }

    #[test]
    fn times() {
        let cases = [
            (0, "0 s"),
            (999, "999 ns"),
            (820_400, "820 µs"),
            (1_500_000, "1.5 ms"),
            (45_000_000, "45 ms"),
            (8_213_000_000, "8.21 s"),
            (12_400_000_000, "12.4 s"),
            (185_000_000_000, "3 min 05 s"),
            (7_860_000_000_000, "2 h 11 min"),
        ];
        for (value, expected) in cases {
            assert_eq!(duration(value), expected);
        }
    }
}
