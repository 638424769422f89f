//! Numbers as people read them.

/// Bytes with three significant digits: `0 B`, `1.50 KiB`, `117 MiB`.
pub(super) fn bytes(count: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count.max(0.0);
    let mut unit = 0;
    while value >= 1_023.5 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// The same of a count that is whole.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn whole_bytes(count: u64) -> String {
    bytes(count as f64)
}

/// A short time with two significant digits or more: `0.4 ms`, `82 ms`, `1.3 s`.
pub(super) fn milliseconds(time: f64) -> String {
    match time.max(0.0) {
        0.0 => "0 ms".to_owned(),
        time if time < 0.05 => "<0.1 ms".to_owned(),
        time if time < 9.95 => format!("{time:.1} ms"),
        time if time < 999.5 => format!("{time:.0} ms"),
        time => format!("{:.1} s", time / 1_000.0),
    }
}

/// A share from 0 to 1 in percent: `0 %`, `0.02 %`, `4.2 %`, `38 %`.
pub(super) fn percent(share: f64) -> String {
    match share.max(0.0) * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.005 => "<0.01 %".to_owned(),
        percent if percent < 0.995 => format!("{percent:.2} %"),
        percent if percent < 9.95 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

/// A time in its two largest units: `5 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days} d {} h", hours % 24)
    } else if hours > 0 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}

/// A number of things: `1 channel`, `2 channels`.
pub(crate) fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (10_240, "10.0 KiB"),
            (122_683_392, "117 MiB"),
            (1_048_575, "1.00 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(whole_bytes(count), text);
        }
    }

    #[test]
    fn short_times_and_shares_have_two_digits() {
        for (time, text) in [
            (0.0, "0 ms"),
            (0.02, "<0.1 ms"),
            (0.36, "0.4 ms"),
            (9.94, "9.9 ms"),
            (82.4, "82 ms"),
            (1_340.0, "1.3 s"),
        ] {
            assert_eq!(milliseconds(time), text);
        }
        for (share, text) in [
            (0.0, "0 %"),
            (0.000_01, "<0.01 %"),
            (0.000_2, "0.02 %"),
            (0.042, "4.2 %"),
            (0.375, "38 %"),
        ] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (7_500, "2 h 5 min"),
            (356_400, "4 d 3 h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
