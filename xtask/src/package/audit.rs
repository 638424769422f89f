//! The list of what is inside a program, which cargo-auditable puts there: programs that look for
//! known faults read it (`cargo audit bin`, trivy, syft).

use std::fs;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::read::ZlibDecoder;
use serde::Deserialize;
use tempfile::TempDir;
use testkit::command::run_bounded;

use super::binary::Binary;

/// Where the list is: JSON, packed by zlib.
const SECTION: &str = ".dep-v0";
/// Longest list, in bytes.
const MOST: u64 = 8 * 1024 * 1024;
const LIMIT: Duration = Duration::from_mins(1);
/// Crates that are inside in any case.
const KNOWN: [&str; 3] = ["aws-lc-rs", "rustls", "tokio"];

#[derive(Deserialize)]
struct List {
    packages: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    version: String,
}

/// Fails unless the stripped program has a list that can be true; gives back how many libraries it
/// has.
pub(super) fn check(binary: &Binary) -> Result<usize> {
    let work = TempDir::with_prefix("flexvdi-gateway-audit-")?;
    let (program, section) = (work.path().join("program"), work.path().join("section"));
    binary.strip(&program)?;
    let mut objcopy = binary.architecture().binutils("objcopy")?;
    objcopy
        .arg("--dump-section")
        .arg(format!("{SECTION}={}", section.display()))
        .arg(&program)
        // Without it, the program itself is written again.
        .arg(work.path().join("copy"));
    run_bounded(objcopy, LIMIT)?;
    let packed = fs::read(&section)
        .with_context(|| format!("the program does not list what is inside ({SECTION})"))?;
    libraries(&packed, &binary.version()?)
}

fn libraries(packed: &[u8], version: &str) -> Result<usize> {
    let mut text = Vec::new();
    let read = ZlibDecoder::new(packed).take(MOST).read_to_end(&mut text);
    read.context("the list of what is inside is not packed by zlib")?;
    let list: List = serde_json::from_slice(&text).context("the list of what is inside")?;
    let has = |name: &str, version: Option<&str>| {
        list.packages.iter().any(|listed| {
            listed.name == name && version.is_none_or(|version| listed.version == version)
        })
    };
    ensure!(
        has("gateway", Some(version)),
        "the list of what is inside is not that of gateway {version}"
    );
    for name in KNOWN {
        ensure!(has(name, None), "the list of what is inside lacks {name}");
    }
    Ok(list.packages.len())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use serde_json::{Value, json};

    use super::*;

    fn packed(names: &[&str]) -> Vec<u8> {
        let packages: Vec<Value> = names
            .iter()
            .map(|name| json!({"name": name, "version": "1.2.3", "source": "local"}))
            .collect();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        write!(zlib, "{}", json!({"packages": packages})).unwrap();
        zlib.finish().unwrap()
    }

    #[test]
    fn a_list_of_something_else_is_none() {
        let all = ["gateway", "tokio", "rustls", "aws-lc-rs", "libc"];
        assert_eq!(libraries(&packed(&all), "1.2.3").unwrap(), 5);
        let told = |packed: &[u8], version| libraries(packed, version).unwrap_err().to_string();
        assert!(told(&packed(&all), "1.2.4").contains("gateway 1.2.4"));
        assert!(told(&packed(&all[..3]), "1.2.3").contains("aws-lc-rs"));
        assert!(told(b"no list", "1.2.3").contains("zlib"));
    }
}
