//! The data paths by their names.

/// A data path, as it can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPath {
    /// `auto`: `relay`, or what a measurement on this machine has found cheaper.
    Auto,
    /// `relay`: through the process.
    Relay,
    /// `sockmap`: the downlink of plaintext client legs by eBPF.
    Sockmap,
    /// `ktls`: TLS records made and opened by the kernel; the downlink is copied, or spliced where
    /// that is configured.
    Ktls,
    /// `ktls-sockmap`: the downlink of TLS client legs by eBPF, into records made by the kernel.
    KtlsSockmap,
}

impl DataPath {
    /// Every choice.
    pub const ALL: [Self; 5] = [
        Self::Auto,
        Self::Relay,
        Self::Sockmap,
        Self::Ktls,
        Self::KtlsSockmap,
    ];

    /// Descriptors of a channel: a socket to the client, one to the host, and what the kernel
    /// needs besides.
    pub const fn descriptors(self) -> u64 {
        match self {
            Self::Auto | Self::Relay => 2,
            // While bytes are in hand, a pipe for each direction.
            Self::Ktls | Self::Sockmap => 6,
            Self::KtlsSockmap => 7,
        }
    }

    /// Whether it needs eBPF programs.
    pub const fn has_programs(self) -> bool {
        matches!(self, Self::Sockmap | Self::KtlsSockmap)
    }

    /// Its name in configurations, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Relay => "relay",
            Self::Sockmap => "sockmap",
            Self::Ktls => "ktls",
            Self::KtlsSockmap => "ktls-sockmap",
        }
    }
}
