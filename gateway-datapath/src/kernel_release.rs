//! The version of the running kernel, for what nothing else tells.

/// Major, minor, patch level.
pub(crate) type Release = (u32, u32, u32);

/// What the running kernel says, as in `6.12.117+deb12-cloud-amd64`.
pub(crate) fn running() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// The numbers of a release such as `6.12.117+deb12-cloud-amd64` or `7.1-rc2`; `None`: there are
/// not even two.
pub(crate) fn parse(release: &str) -> Option<Release> {
    let end = release
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(release.len());
    let mut numbers = release[..end].split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_up_to_what_a_vendor_adds() {
        for (release, numbers) in [
            ("6.12.117+deb12-cloud-amd64", Some((6, 12, 117))),
            ("5.14.0-611.el9.x86_64", Some((5, 14, 0))),
            ("7.1-rc2", Some((7, 1, 0))),
            ("6.1", Some((6, 1, 0))),
            ("6", None),
            ("6.x", None),
            ("next", None),
            ("", None),
        ] {
            assert_eq!(parse(release), numbers, "{release}");
        }
    }
}
