//! Takes the eBPF object into the binary where `cargo xtask build-ebpf` has left one, and tells the
//! tests whether they are root's.

#[path = "../tests/unprivileged.rs"]
mod unprivileged;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    unprivileged::tell();
    println!("cargo::rerun-if-changed=../tests/unprivileged.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let object = out.join("gateway-ebpf.o");
    let bytes = target_dir(&out).map_or_else(Vec::new, |target| {
        let folder = target.join("bpf");
        // A folder that is there is watched without a build for nothing each time.
        fs::create_dir_all(&folder).expect("the target folder is cargo's own");
        println!("cargo::rerun-if-changed={}", folder.display());
        fs::read(folder.join("gateway-ebpf.o")).unwrap_or_default()
    });
    println!("cargo::rerun-if-changed=build.rs");
    // An empty one stands for none.
    fs::write(object, bytes).expect("OUT_DIR can be written");
}

/// The outermost folder that cargo marks as one for caches: builds for other targets, or in a
/// folder below, take the same object.
fn target_dir(out: &Path) -> Option<&Path> {
    out.ancestors()
        .filter(|folder| folder.join("CACHEDIR.TAG").is_file())
        .last()
}
