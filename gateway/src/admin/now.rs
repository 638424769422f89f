//! What holds at the moment of a scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_common::layout::State;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::acme::AcmeStatus;
use crate::channel::Totals;
use crate::measured::Chosen;
use crate::metrics::Carried;
use crate::metrics::PREFIX;
use gateway_datapath::end_reason::EndKind;
use gateway_datapath::label::Label as _;
use gateway_datapath::measure::Leg;
use gateway_datapath::{Queues, Sent};

/// Facts that are gathered for one scrape.
#[derive(Clone, Debug)]
pub struct Now {
    /// Channels and desktop sessions.
    pub totals: Totals,
    /// Channels that use `relay` although another path was wanted, by reason.
    pub fallbacks: BTreeMap<&'static str, u64>,
    /// Bytes that wait in the kernel, by data path.
    pub queues: BTreeMap<&'static str, Queues>,
    /// What was sent to clients, by what the channels carry.
    pub sent: BTreeMap<Carried, Sent>,
    /// Open channels whose client answers nothing.
    pub stalled: BTreeMap<Carried, u64>,
    /// What the eBPF programs have counted, and the data path that uses them.
    pub programs: (&'static str, State),
    /// Whether each data path works here.
    pub paths: Vec<(&'static str, bool)>,
    /// What `"DataPath": "auto"` has taken at the start.
    pub auto: Option<Arc<Chosen>>,
    /// Connections of clients that are open.
    pub connections: usize,
    /// Tickets in memory.
    pub tickets: usize,
    /// Whether new desktop sessions are refused.
    pub draining: bool,
    /// How often draining began.
    pub drains: u64,
    /// The congestion control of clients that come now and are not near.
    pub congestion_control: Option<String>,
    /// When the certificate ends, in seconds since the Unix epoch.
    pub certificate_end: Option<u64>,
    /// Certificates that the gateway gets by itself; `None`: it gets none.
    pub acme: Option<AcmeStatus>,
    /// When the process began.
    pub started: SystemTime,
    /// How long it has been running.
    pub uptime: Duration,
    /// Descriptors that are open.
    pub open_files: Option<u64>,
    /// Most descriptors that may be open.
    pub open_files_limit: Option<u64>,
}

impl Default for Now {
    fn default() -> Self {
        Self {
            totals: Totals::default(),
            fallbacks: BTreeMap::new(),
            queues: BTreeMap::new(),
            sent: BTreeMap::new(),
            stalled: BTreeMap::new(),
            programs: ("sockmap", State::default()),
            paths: Vec::new(),
            auto: None,
            connections: 0,
            tickets: 0,
            draining: false,
            drains: 0,
            congestion_control: None,
            certificate_end: None,
            acme: None,
            started: UNIX_EPOCH,
            uptime: Duration::ZERO,
            open_files: None,
            open_files_limit: None,
        }
    }
}

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.encode_channels(&mut out)?;
        self.encode_queues(&mut out)?;
        self.encode_clients(&mut out)?;
        self.encode_programs(&mut out)?;
        let fallbacks = self.fallbacks.iter();
        out.counters(
            "fallbacks",
            "Channels that use relay although another data path was wanted",
            fallbacks.map(|(&reason, &count)| ([("reason", reason)], count)),
        )?;
        out.gauges(
            "data_path_works",
            "1: the data path passed its probe at the start",
            self.paths
                .iter()
                .map(|&(path, works)| ([("path", path)], u64::from(works))),
        )?;
        self.encode_auto(&mut out)?;
        let ended_by = &self.totals.ended_by;
        out.counters(
            "channels_closed",
            "Channels that have ended",
            EndKind::ALL.iter().map(|kind| {
                let count = ended_by.get(kind).copied().unwrap_or_default();
                ([("reason", kind.text())], count)
            }),
        )?;
        out.gauge(
            "connections",
            "Connections of clients that are open",
            self.connections as u64,
        )?;
        out.gauge("tickets", "Tickets in memory", self.tickets as u64)?;
        out.gauge(
            "draining",
            "1: new desktop sessions are refused",
            u64::from(self.draining),
        )?;
        out.counter("drains", "How often draining began", self.drains)?;
        let algorithm = self.congestion_control.as_deref();
        out.gauges(
            "congestion_control_info",
            "1; its label is the congestion control of clients that come now and are not near",
            algorithm.map(|name| ([("algorithm", name)], 1)).into_iter(),
        )?;
        if let Some(end) = self.certificate_end {
            out.gauge(
                "certificate_expiry_timestamp_seconds",
                "When the certificate ends, in seconds since the Unix epoch",
                end,
            )?;
        }
        if let Some(acme) = &self.acme {
            out.gauge(
                "acme_failures",
                "How often in a row the authority of Acme gave no certificate",
                acme.failures.into(),
            )?;
            if let Some(time) = acme.last_attempt {
                out.gauge(
                    "acme_last_attempt_timestamp_seconds",
                    "When a certificate was last ordered, in seconds since the Unix epoch",
                    time,
                )?;
            }
        }
        out.gauge_f64(
            &name("uptime_seconds"),
            "How long the process has been running",
            self.uptime.as_secs_f64(),
        )?;
        out.gauges(
            "build_info",
            "1; its label is the version",
            [([("version", env!("CARGO_PKG_VERSION"))], 1)].into_iter(),
        )?;
        self.encode_process(&mut out)
    }
}

impl Now {
    fn encode_channels(&self, out: &mut Out<'_>) -> fmt::Result {
        let totals = &self.totals;
        out.gauge(
            "sessions",
            "Desktop sessions with an open channel",
            totals.sessions_open as u64,
        )?;
        out.counter(
            "sessions_opened",
            "Desktop sessions that began; one whose client comes back counts again",
            totals.sessions_opened,
        )?;
        let channels = || {
            totals
                .channels
                .iter()
                .map(|(carried, tally)| (labels(*carried), tally))
        };
        out.gauges(
            "channels",
            "Channels that are open",
            channels().map(|(labels, tally)| (labels, tally.open)),
        )?;
        out.counters(
            "channels_opened",
            "Channels that were opened",
            channels().map(|(labels, tally)| (labels, tally.opened)),
        )?;
        let bytes = channels().flat_map(|(labels, tally)| {
            let [path, kind] = labels;
            [
                ([path, kind, ("direction", "up")], tally.uplink),
                ([path, kind, ("direction", "down")], tally.downlink),
            ]
        });
        out.counters(
            "channel_bytes",
            "Payload that channels have moved, up to hosts and down to clients",
            bytes,
        )
    }

    fn encode_queues(&self, out: &mut Out<'_>) -> fmt::Result {
        let queues = self.queues.iter().flat_map(|(&path, queues)| {
            let named = queues.named().into_iter();
            named.map(move |(queue, bytes)| ([("path", path), ("queue", queue)], bytes))
        });
        out.gauges(
            "kernel_queue_bytes",
            "Bytes of open channels that wait in the kernel",
            queues,
        )
    }

    fn encode_clients(&self, out: &mut Out<'_>) -> fmt::Result {
        for (name, help, count) in [
            (
                "client_sent_bytes",
                "Bytes sent to clients over TCP, those included that were sent again",
                (|sent| sent.bytes) as fn(&Sent) -> u64,
            ),
            (
                "client_retransmitted_bytes",
                "Bytes sent to clients again, as they were lost or seemed so",
                |sent| sent.retransmitted_bytes,
            ),
            (
                "client_retransmitted_segments",
                "Segments of TCP sent to clients again",
                |sent| sent.retransmitted_segments,
            ),
        ] {
            let sent = self.sent.iter();
            out.counters(
                name,
                help,
                sent.map(|(carried, sent)| (labels(*carried), count(sent))),
            )?;
        }
        let stalled = self.stalled.iter();
        out.gauges(
            "client_stalled_channels",
            "Open channels whose client answers nothing at present",
            stalled.map(|(carried, count)| (labels(*carried), *count)),
        )
    }

    fn encode_programs(&self, out: &mut Out<'_>) -> fmt::Result {
        let (path, state) = &self.programs;
        let of = |kind| [("path", *path), ("verdict", kind)];
        out.counters(
            "sockmap_segments",
            "Segments of hosts that eBPF redirected to clients, or passed to the process",
            [
                (of("redirected"), state.messages),
                (of("passed"), state.passes),
            ]
            .into_iter(),
        )?;
        out.counters(
            "sockmap_bytes",
            "Bytes of hosts that eBPF redirected to clients, passed to the process, cut off or lost",
            [
                (of("redirected"), state.redirected),
                (of("passed"), state.passed),
                (of("repeated"), state.repeated),
                (of("dropped"), state.dropped()),
            ]
            .into_iter(),
        )?;
        for (name, help, count) in [
            (
                "sockmap_stops",
                "How often channels stopped redirecting, as too much was waiting",
                state.stops,
            ),
            (
                "sockmap_resumes",
                "How often channels began to redirect, the first time included",
                state.resumes,
            ),
            (
                "sockmap_frames",
                "Frames that eBPF made for clients",
                state.frames,
            ),
        ] {
            out.counters(name, help, [([("path", *path)], count)].into_iter())?;
        }
        Ok(())
    }

    fn encode_auto(&self, out: &mut Out<'_>) -> fmt::Result {
        let auto = self.auto.as_deref();
        let taken = auto.into_iter().flat_map(|auto| {
            Leg::ALL.map(|leg| {
                let path = auto.of_leg(leg).path.name();
                ([("leg", leg.name()), ("path", path)], 1)
            })
        });
        out.gauges(
            "data_path_auto",
            "1; its labels are what DataPath auto has taken at the start",
            taken,
        )?;
        let record = auto.and_then(|auto| auto.measurement.as_ref());
        let legs = record
            .into_iter()
            .flat_map(|record| &record.measurement.legs);
        let costs = legs.flat_map(|figures| {
            figures.paths.iter().filter_map(|path| {
                let labels = [("leg", figures.leg.name()), ("path", path.path.name())];
                Some((labels, path.microseconds?.median / 1e6))
            })
        });
        out.gauges_f64(
            "data_path_measured_seconds",
            "Processor time of the machine for each message of a desktop, as probe --measure found",
            costs,
        )?;
        match record {
            Some(record) => out.gauge(
                "data_path_measured_timestamp_seconds",
                "When probe --measure was run, in seconds since the Unix epoch",
                record.measured_at,
            ),
            None => Ok(()),
        }
    }

    fn encode_process(&self, out: &mut Out<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        out.gauge_f64(
            "process_start_time_seconds",
            "When the process began, in seconds since the Unix epoch",
            started.as_secs_f64(),
        )?;
        for (name, help, value) in [
            (
                "process_open_fds",
                "Descriptors that are open",
                self.open_files,
            ),
            (
                "process_max_fds",
                "Most descriptors that may be open",
                self.open_files_limit,
            ),
        ] {
            if let Some(value) = value {
                out.gauge_f64(name, help, float(value))?;
            }
        }
        Ok(())
    }
}

fn name(name: &str) -> String {
    format!("{PREFIX}_{name}")
}

fn labels(carried: Carried) -> [(&'static str, &'static str); 2] {
    [("path", carried.path), ("type", carried.kind)]
}

/// Prometheus knows no other numbers; a gauge of the crate's ends at 2^63, and limits lie beyond.
#[expect(clippy::cast_precision_loss, reason = "16 digits are enough")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Writes metrics with names of the gateway's own.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, of: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge_f64(&name(of), help, float(value))
    }

    fn gauge_f64(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counter(&mut self, of: &str, help: &str, value: u64) -> fmt::Result {
        let name = name(of);
        let encoder = self
            .0
            .encode_descriptor(&name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauges<'a, const N: usize>(
        &mut self,
        of: &str,
        help: &str,
        values: impl Iterator<Item = ([(&'static str, &'a str); N], u64)>,
    ) -> fmt::Result {
        self.gauges_f64(
            of,
            help,
            values.map(|(labels, value)| (labels, float(value))),
        )
    }

    fn gauges_f64<'a, const N: usize>(
        &mut self,
        of: &str,
        help: &str,
        values: impl Iterator<Item = ([(&'static str, &'a str); N], f64)>,
    ) -> fmt::Result {
        self.family(of, help, MetricType::Gauge, values, |value, encoder| {
            ConstGauge::new(value).encode(encoder)
        })
    }

    fn counters<'a, const N: usize>(
        &mut self,
        of: &str,
        help: &str,
        values: impl Iterator<Item = ([(&'static str, &'a str); N], u64)>,
    ) -> fmt::Result {
        self.family(of, help, MetricType::Counter, values, |value, encoder| {
            ConstCounter::new(value).encode(encoder)
        })
    }

    fn family<'a, V, const N: usize>(
        &mut self,
        of: &str,
        help: &str,
        kind: MetricType,
        values: impl Iterator<Item = ([(&'static str, &'a str); N], V)>,
        encode: impl Fn(V, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = name(of);
        let mut encoder = self.0.encode_descriptor(&name, help, None, kind)?;
        for (labels, value) in values {
            encode(value, encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
