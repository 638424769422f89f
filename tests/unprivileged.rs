//! For build scripts: tells the tests of a package whether whoever builds them may do what only
//! root may. `unprivileged` stands for no: `cargo test` then leaves out what would fail, and says
//! so.

use std::os::unix::fs::MetadataExt;

pub(crate) fn tell() {
    println!("cargo::rustc-check-cfg=cfg(unprivileged)");
    // Another user in the same folder.
    for name in ["USER", "HOME", "SUDO_USER"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root {
        println!("cargo::rustc-cfg=unprivileged");
    }
}
