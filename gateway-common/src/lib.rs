//! What the gateway and its eBPF programs share: limits, the rule that frames a downlink, and the
//! layouts of their maps.
//!
//! `no_std` and, without the feature `user`, free of dependencies, so that the BPF target can
//! build it.
#![no_std]

pub mod frame;
pub mod layout;
