//! The metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use gateway::acme::AcmeStatus;
use gateway::admin::Now;
use gateway::measured::Chosen;
use gateway::metrics::Metrics;
use serde_json::json;

use super::{read, rows};

/// Rows of the table of metrics, by the names in their first cell.
fn documented(text: &str) -> Result<BTreeMap<String, Vec<&str>>> {
    let (_, section) = text.split_once("\n## Metrics\n").context("the section")?;
    let section = section
        .split_once("\n## ")
        .map_or(section, |(this, _)| this);
    let mut found = BTreeMap::new();
    for row in rows(section) {
        assert_eq!(row.len(), 4, "{row:?}");
        for name in row[0].split(", ") {
            found.insert(name.trim_matches('`').to_owned(), row.clone());
        }
    }
    Ok(found)
}

#[test]
fn every_metric_is_documented_with_its_type_and_the_values_of_its_labels() -> Result<()> {
    let text = read("docs/monitoring.md")?;
    let documented = documented(&text)?;
    // What has a label shows no value before it happens, but for those that are known before.
    let relay = json!({"path": "relay", "reason": ""});
    let spread = json!({"median": 1.0, "lower": 1.0, "upper": 1.0});
    let paths = json!([{"path": "relay", "outcome": "reference", "turns": 1, "messages": 1,
        "bytes": 1, "microseconds": spread}]);
    let auto: Chosen = serde_json::from_value(json!({
        "plaintext": relay,
        "tls": relay,
        "measurement": {
            "version": 2, "gateway": "", "measured_at": 0,
            "kernel": "", "processor": "", "processors": "",
            "link": {"kind": "ethernet"}, "counted": "ticks", "seconds": 1.0, "channels": 1, "others": 0.0,
            "legs": [{"leg": "plaintext", "paths": paths}, {"leg": "tls", "paths": paths}],
        },
    }))?;
    let now = Now {
        auto: Some(Arc::new(auto)),
        congestion_control: Some("bbr".to_owned()),
        certificate_end: Some(0),
        acme: Some(AcmeStatus {
            last_attempt: Some(0),
            ..AcmeStatus::default()
        }),
        open_files: Some(0),
        open_files_limit: Some(0),
        ..Now::default()
    };
    let encoded = Metrics::default().encode(now)?;
    let mut seen = 0;
    for line in encoded.lines() {
        let row = |name: &str| {
            let name = name.strip_prefix("flexvdi_gateway_").unwrap_or(name);
            documented.get(name).with_context(|| name.to_owned())
        };
        if let Some(metric) = line.strip_prefix("# TYPE ") {
            seen += 1;
            let (name, kind) = metric.split_once(' ').context("a type")?;
            let row = row(name)?;
            assert!(row[1].contains(kind), "{name} is a {kind}, not {row:?}");
        } else if !line.starts_with('#')
            && let Some((name, labels)) = line.split_once('{')
        {
            let name = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            let row = row(name)?;
            let labels = labels.split_once('}').context("labels")?.0;
            for label in labels.split("\",") {
                let (label, value) = label.split_once("=\"").context("a label")?;
                let value = value.trim_end_matches('"');
                if label == "le" || value == env!("CARGO_PKG_VERSION") {
                    continue;
                }
                assert!(row[2].contains(&format!("`{label}`")), "{line}: {row:?}");
                let enumerated = ["reason", "result", "leg", "verdict", "queue"];
                if enumerated.contains(&label) {
                    let said = format!("`{value}`");
                    assert!(row[3].contains(&said), "{line}: {row:?}");
                }
            }
        }
    }
    assert!(seen > 30, "{seen} metrics in\n{encoded}");
    Ok(())
}
