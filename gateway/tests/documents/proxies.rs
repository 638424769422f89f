//! The configurations of proxies, which the tests of `testkit` run.

use anyhow::Result;

use super::{blocks, read};

#[test]
fn the_files_are_shown_as_they_are() -> Result<()> {
    let page = read("docs/proxies.md")?;
    for (language, files) in [
        (
            "nginx",
            &["nginx.conf", "nginx-stream.conf", "nginx-pool.conf"][..],
        ),
        ("apache", &["apache.conf"]),
        ("keepalived", &["keepalived.conf"]),
        (
            "haproxy",
            &["haproxy.cfg", "haproxy-tcp.cfg", "haproxy-pool.cfg"],
        ),
    ] {
        let files: Result<Vec<_>> = files
            .iter()
            .map(|name| read(&format!("docs/proxies/{name}")))
            .collect();
        assert_eq!(blocks(&page, language), files?);
    }
    Ok(())
}
