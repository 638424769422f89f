//! The page for browsers: complete without scripts, renewed by one where there are scripts.

use std::fmt::{self, Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Admin;
use super::certificates::told;
use super::history::{INTERVAL, Rates};
use super::legs::LegStatus;
use super::status::{SessionStatus, Status};
use super::units::{age, bytes, counted, milliseconds, percent, whole_bytes};
use crate::session::SessionId;

/// The page's style sheet.
pub(super) const STYLE: &str = include_str!("page/page.css");
/// What renews the page.
pub(super) const SCRIPT: &str = include_str!("page/page.js");

const DAY: u64 = 86_400;
/// A certificate that ends sooner is marked.
const CERTIFICATE_NOTICE: u64 = 14 * DAY;

/// The page as it is now.
pub(super) fn render(admin: &Admin) -> String {
    let status = admin.status();
    let all = admin.history.of_all();
    let mut page = String::with_capacity(4_096 + 1_024 * status.sessions.len());
    // Writing into a string cannot fail.
    let _ = write_page(&mut page, &status, &all, &|session| {
        admin.history.of_session(session)
    });
    page
}

fn write_page(
    page: &mut String,
    status: &Status,
    all: &[Rates],
    history: &dyn Fn(SessionId) -> Vec<Rates>,
) -> fmt::Result {
    let seconds = INTERVAL.as_secs();
    writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>flexVDI Gateway: {}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <link rel=\"stylesheet\" href=\"page.css\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"{seconds}\"></noscript>\n\
         <script src=\"page.js\" defer></script>\n</head>\n\
         <body data-seconds=\"{seconds}\">",
        counted(status.sessions.len(), "session")
    )?;
    write_header(page, status)?;
    page.push_str("<main>\n");
    write_tiles(page, status, all)?;
    write_sessions(page, status, history)?;
    write_facts(page, status)?;
    page.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn write_header(page: &mut String, status: &Status) -> fmt::Result {
    let (class, word) = if status.draining {
        ("draining", "draining")
    } else {
        ("serving", "serving")
    };
    writeln!(
        page,
        "<header>\n<h1>flexVDI Gateway</h1>\n<p class=\"state {class}\">{word}</p>\n\
         <p class=\"meta\">version {} · up {}<span id=\"stale\" role=\"status\"></span></p>\n\
         </header>",
        Escaped(&status.version),
        age(status.uptime_seconds)
    )
}

fn write_tiles(page: &mut String, status: &Status, all: &[Rates]) -> fmt::Result {
    let channels: usize = status.sessions.iter().map(|s| s.channels.len()).sum();
    let (up, down): (Vec<_>, Vec<_>) = all.iter().copied().unzip();
    page.push_str("<section class=\"tiles\" aria-label=\"Overview\">\n");
    let plain = [
        (
            "Desktop sessions",
            status.sessions.len().to_string(),
            format!("{} in total", status.sessions_opened),
        ),
        (
            "Channels",
            channels.to_string(),
            format!("{} in total", status.channels_opened),
        ),
    ];
    for (title, value, note) in plain {
        writeln!(
            page,
            "<div class=\"tile\"><h2>{title}</h2><p class=\"value\">{value}</p>\
             <p class=\"note\">{note}</p></div>"
        )?;
    }
    let moving = [
        (
            "To clients",
            "down",
            status.moved.down_rate,
            down,
            status.moved.down_bytes,
        ),
        (
            "To hosts",
            "up",
            status.moved.up_rate,
            up,
            status.moved.up_bytes,
        ),
    ];
    for (title, class, rate, rates, total) in moving {
        writeln!(
            page,
            "<div class=\"tile\"><h2>{title}</h2><p class=\"value\">{}/s</p>{}\
             <p class=\"note\">{} in total</p></div>",
            bytes(rate),
            Sparkline {
                rates: &rates,
                class,
                size: (220, 36)
            },
            whole_bytes(total)
        )?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn write_sessions(
    page: &mut String,
    status: &Status,
    history: &dyn Fn(SessionId) -> Vec<Rates>,
) -> fmt::Result {
    page.push_str(
        "<section aria-labelledby=\"sessions\">\n<h2 id=\"sessions\">Desktop sessions</h2>\n",
    );
    if status.sessions.is_empty() {
        page.push_str("<p class=\"empty\">No desktop session is open.</p>\n</section>\n");
        return Ok(());
    }
    page.push_str(
        "<div class=\"scroll\" role=\"region\" aria-labelledby=\"sessions\" tabindex=\"0\">\n\
         <table>\n<thead><tr><th scope=\"col\">Session</th><th scope=\"col\">Client</th>\
         <th scope=\"col\">Host</th><th scope=\"col\">Channels</th>\
         <th scope=\"col\">Data path</th><th scope=\"col\" class=\"number\">To client</th>\
         <th scope=\"col\"><span class=\"hidden\">Bytes to the client in the last two \
         minutes</span></th><th scope=\"col\" class=\"number\">To host</th>\
         <th scope=\"col\" class=\"number\">Round trip</th>\
         <th scope=\"col\" class=\"number\">Waits here</th>\
         <th scope=\"col\" class=\"number\">Sent again</th>\
         <th scope=\"col\" class=\"number\">Moved</th><th scope=\"col\" class=\"number\">Age</th>\
         </tr></thead>\n<tbody>\n",
    );
    for session in &status.sessions {
        let rates = session.session.parse().map_or_else(|_| Vec::new(), history);
        write_session(page, session, &rates)?;
    }
    page.push_str("</tbody>\n</table>\n</div>\n</section>\n");
    Ok(())
}

fn write_session(page: &mut String, session: &SessionStatus, rates: &[Rates]) -> fmt::Result {
    let down: Vec<_> = rates.iter().map(|&(_, down)| down).collect();
    let moved = session.moved;
    writeln!(
        page,
        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"kinds\">{}</td>\
         <td><span class=\"path\">{}</span></td><td class=\"number\">{}/s</td><td>{}</td>\
         <td class=\"number\">{}/s</td>{}<td class=\"number\">{}</td>\
         <td class=\"number\">{}</td></tr>",
        Escaped(&session.session),
        Escaped(&session.client),
        Escaped(&session.host),
        Escaped(&session.kinds()),
        Escaped(&session.paths()),
        bytes(moved.down_rate),
        Sparkline {
            rates: &down,
            class: "down",
            size: (96, 20)
        },
        bytes(moved.up_rate),
        LegCells(session.legs),
        whole_bytes(moved.up_bytes + moved.down_bytes),
        age(session.age_seconds)
    )
}

/// Three cells: the round trip to the client, what waits for it and how long, what was sent again.
struct LegCells(Option<LegStatus>);

impl Display for LegCells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(legs) = self.0 else {
            return f.write_str("<td></td><td></td><td></td>");
        };
        if legs.stalled {
            f.write_str("<td class=\"number bad\">no answer</td>")?;
        } else {
            write!(
                f,
                "<td class=\"number\">{} <small>min {}</small></td>",
                Escaped(&milliseconds(legs.client_rtt_ms)),
                Escaped(&milliseconds(legs.client_min_rtt_ms))
            )?;
        }
        write!(
            f,
            "<td class=\"number\">{} <small>{}</small></td><td class=\"number\">{}</td>",
            Escaped(&milliseconds(legs.queue_delay_ms)),
            whole_bytes(legs.queued_bytes),
            Escaped(&percent(legs.retransmitted_share))
        )
    }
}

fn write_facts(page: &mut String, status: &Status) -> fmt::Result {
    page.push_str("<section aria-labelledby=\"gateway\">\n<h2 id=\"gateway\">Gateway</h2>\n<dl>\n");
    let known = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |v| v.to_string());
    let mut fact = |name: &str, class: &str, value: &str| {
        writeln!(
            page,
            "<div><dt>{name}</dt><dd class=\"{class}\">{}</dd></div>",
            Escaped(value)
        )
    };
    fact("Connections", "", &status.connections.to_string())?;
    fact("Tickets in memory", "", &status.tickets.to_string())?;
    let files = format!(
        "{} of {}",
        known(status.open_files),
        known(status.open_files_limit)
    );
    fact("Open files", "", &files)?;
    let (class, certificate) = certificate(status.certificate_end, SystemTime::now());
    fact("Certificate", class, &certificate)?;
    if let Some(acme) = &status.acme {
        let class = if acme.failures > 0 { "bad" } else { "" };
        fact("ACME", class, &told(acme, SystemTime::now()))?;
    }
    for path in &status.paths {
        let (class, text) = match (path.works, &path.reason) {
            (true, _) => ("good", "works".to_owned()),
            (false, Some(reason)) => ("bad", format!("does not work here: {reason}")),
            (false, None) => ("bad", "does not work here".to_owned()),
        };
        fact(&format!("Data path {}", Escaped(&path.path)), class, &text)?;
    }
    page.push_str("</dl>\n</section>\n");
    Ok(())
}

fn certificate(end: Option<u64>, now: SystemTime) -> (&'static str, String) {
    let Some(end) = end else {
        return ("", "its end is unknown".to_owned());
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (left, gone) = (end.saturating_sub(now), now.saturating_sub(end));
    match left {
        0 => ("bad", format!("ended {} ago", age(gone))),
        _ if left < CERTIFICATE_NOTICE => ("bad", format!("ends in {}", age(left))),
        _ => ("", format!("ends in {} d", left / DAY)),
    }
}

/// Text that is safe between tags and in quoted attributes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A line of rates, the newest at the right edge; an image that its cell or tile says in words.
struct Sparkline<'a> {
    rates: &'a [f64],
    class: &'a str,
    /// Width and height in pixels.
    size: (u32, u32),
}

/// Places of a sparkline, so that a short history does not fill it.
const PLACES: u32 = 60;

impl Display for Sparkline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (width, height) = self.size;
        write!(
            f,
            "<svg class=\"spark {}\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
            self.class
        )?;
        let highest = self.rates.iter().copied().fold(0.0, f64::max);
        let (width, height) = (f64::from(width), f64::from(height));
        let step = width / f64::from(PLACES - 1);
        let count = u32::try_from(self.rates.len())
            .unwrap_or(PLACES)
            .min(PLACES);
        let left = width - step * f64::from(count.saturating_sub(1));
        let mut line = String::new();
        for (rate, place) in self.rates.iter().zip(0..count) {
            let part = if highest > 0.0 { rate / highest } else { 0.0 };
            let x = left + step * f64::from(place);
            let y = height - 1.5 - part * (height - 3.0);
            write!(line, "{}{x:.1},{y:.1}", if place == 0 { "" } else { " " })?;
        }
        if count > 1 {
            write!(
                f,
                "<polygon points=\"{left:.1},{height} {line} {width},{height}\"/>\
                 <polyline points=\"{line}\"/>"
            )?;
        }
        f.write_str("</svg>")
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::{ChannelStatus, Moved};
    use super::*;

    fn status() -> Status {
        Status {
            version: "1".to_owned(),
            pid: 1,
            uptime_seconds: 5,
            draining: false,
            refusing: false,
            tls: Vec::new(),
            certificate_end: None,
            acme: None,
            connections: 1,
            tickets: 1,
            congestion_control: None,
            capabilities: Vec::new(),
            open_files: None,
            open_files_limit: None,
            sessions_opened: 1,
            channels_opened: 1,
            moved: Moved::default(),
            paths: Vec::new(),
            auto: None,
            sessions: vec![SessionStatus {
                session: "s1".to_owned(),
                client: "192.0.2.7".to_owned(),
                host: "<script>\"'&:5900".to_owned(),
                age_seconds: 1,
                moved: Moved::default(),
                legs: None,
                channels: vec![ChannelStatus {
                    channel: "c1".to_owned(),
                    kind: "main".to_owned(),
                    number: Some(0),
                    path: "relay".to_owned(),
                    age_seconds: 1,
                    up_bytes: 0,
                    down_bytes: 0,
                    legs: None,
                }],
            }],
        }
    }

    #[test]
    fn what_others_named_is_escaped() {
        let mut page = String::new();
        write_page(&mut page, &status(), &[], &|_| Vec::new()).unwrap();
        assert!(page.contains("<td>&lt;script&gt;&quot;&#39;&amp;:5900</td>"));
    }

    #[test]
    fn a_client_that_answers_nothing_is_marked() {
        let legs = LegStatus {
            client_rtt_ms: 82.4,
            client_min_rtt_ms: 0.01,
            queued_bytes: 2_048,
            queue_delay_ms: 24.0,
            retransmitted_share: 0.042,
            ..LegStatus::default()
        };
        let answers = LegCells(Some(legs)).to_string();
        assert!(answers.contains("82 ms <small>min &lt;0.1 ms</small>"));
        assert!(answers.contains("24 ms <small>2.00 KiB</small>") && answers.contains("4.2 %"));
        let stalled = LegStatus {
            stalled: true,
            ..legs
        };
        let stalled = LegCells(Some(stalled)).to_string();
        assert!(stalled.contains("bad\">no answer<") && !stalled.contains("82 ms"));
        let columns = |cells: &str| cells.matches("<td").count();
        for cells in [answers, stalled, LegCells(None).to_string()] {
            assert_eq!(columns(&cells), 3, "{cells}");
        }
    }

    #[test]
    fn sparklines_stay_inside() {
        let rates = [0.0, 50.0, 100.0];
        let svg = Sparkline {
            rates: &rates,
            class: "down",
            size: (59, 20),
        };
        let text = svg.to_string();
        let line = "57.0,18.5 58.0,10.0 59.0,1.5";
        assert!(
            text.contains(&format!("<polyline points=\"{line}\"/>")),
            "{text}"
        );
        let empty = Sparkline { rates: &[], ..svg };
        assert!(!empty.to_string().contains("NaN"));
    }

    #[test]
    fn a_certificate_near_its_end_is_marked() {
        let now = UNIX_EPOCH + std::time::Duration::from_secs(100 * DAY);
        assert_eq!(
            certificate(Some(99 * DAY), now),
            ("bad", "ended 1 d 0 h ago".to_owned())
        );
        assert_eq!(
            certificate(Some(102 * DAY), now),
            ("bad", "ends in 2 d 0 h".to_owned())
        );
        assert_eq!(
            certificate(Some(200 * DAY), now),
            ("", "ends in 100 d".to_owned())
        );
    }
}
