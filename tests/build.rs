//! What the tests have to know of the system that builds them.

mod unprivileged;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=unprivileged.rs");
    unprivileged::tell();
}
