//! Metrics of the running gateway, read from Prometheus' text format.

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// Without the gateway's prefix.
    pub(super) name: String,
    /// The value of its only label, or of the last one; empty: it has none.
    pub(super) label: String,
    pub(super) value: f64,
}

/// The gateway's own metrics; lines that cannot be read are left out.
pub(super) fn parse(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (name, value) = line.rsplit_once(' ')?;
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let name = name
        .strip_prefix(crate::metrics::PREFIX)?
        .strip_prefix('_')?;
    let label = labels.strip_suffix("\"}").unwrap_or_default();
    let label = label.rsplit_once("=\"").map_or("", |(_, value)| value);
    Some(Sample {
        name: name.to_owned(),
        label: label.to_owned(),
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn what_the_gateway_writes_is_read() {
        let metrics = Metrics::default();
        metrics
            .manager_requests
            .count(crate::metrics::ManagerResult::Timeout);
        let text = metrics.encode(crate::admin::Now::default()).unwrap();
        let samples = parse(&text);
        let value = |name: &str, label: &str| {
            let mut found = samples.iter();
            let found = found.find(|sample| sample.name == name && sample.label == label);
            found.map(|sample| sample.value)
        };
        assert_eq!(value("manager_requests_total", "timeout"), Some(1.0));
        assert_eq!(value("manager_requests_total", "answered"), Some(0.0));
        assert_eq!(value("desktops_assigned_total", ""), Some(0.0));
        assert_eq!(value("no_such", ""), None);
    }
}
