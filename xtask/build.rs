//! What the tests have to know of the system that builds them.

#[path = "../tests/unprivileged.rs"]
mod unprivileged;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../tests/unprivileged.rs");
    unprivileged::tell();
}
