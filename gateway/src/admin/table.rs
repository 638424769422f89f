//! The status as a table for terminals.

use std::fmt::Write;
use std::time::SystemTime;

use super::certificates::told;
use super::legs::LegStatus;
use super::status::{SessionStatus, Status};
use super::units::{age, bytes, counted, milliseconds, percent, whole_bytes};

const HEADINGS: [&str; 11] = [
    "SESSION", "CLIENT", "HOST", "CHANNELS", "PATH", "UP/S", "DOWN/S", "RTT", "QUEUE", "RESENT",
    "AGE",
];

/// The gateway in two lines, then one line for each desktop session.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
    let draining = if status.draining { ", draining" } else { "" };
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "flexvdi-gateway {}, up {}{draining}",
        status.version,
        age(status.uptime_seconds)
    );
    let channels: usize = status.sessions.iter().map(|s| s.channels.len()).sum();
    let _ = writeln!(
        text,
        "{}, {}, {} up, {} down",
        counted(status.sessions.len(), "desktop session"),
        counted(channels, "channel"),
        whole_bytes(status.moved.up_bytes),
        whole_bytes(status.moved.down_bytes)
    );
    if let Some(acme) = &status.acme {
        let _ = writeln!(text, "certificate: {}", told(acme, SystemTime::now()));
    }
    if let Some(auto) = &status.auto {
        let _ = writeln!(text, "data path: auto: {}", auto.told());
    }
    if status.sessions.is_empty() {
        return text;
    }
    text.push('\n');
    let rows: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(status.sessions.iter().map(row))
        .collect();
    let widths: [usize; HEADINGS.len()] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    for row in &rows {
        let cells = row.iter().zip(widths);
        let padded: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(session: &SessionStatus) -> [String; HEADINGS.len()] {
    let known = |text: fn(LegStatus) -> String| session.legs.map_or_else(unknown, text);
    [
        session.session.clone(),
        session.client.clone(),
        session.host.clone(),
        session.kinds(),
        session.paths(),
        bytes(session.moved.up_rate),
        bytes(session.moved.down_rate),
        known(round_trip),
        known(|legs| milliseconds(legs.queue_delay_ms)),
        known(|legs| percent(legs.retransmitted_share)),
        age(session.age_seconds),
    ]
}

fn unknown() -> String {
    "-".to_owned()
}

/// That of a client that answers nothing is no more than what it was.
fn round_trip(legs: LegStatus) -> String {
    if legs.stalled {
        "stalled".to_owned()
    } else {
        milliseconds(legs.client_rtt_ms)
    }
}
