//! What the gateway and its eBPF programs share: limits and the rule that frames a downlink.
//!
//! `no_std` and free of dependencies, so that the BPF target can build it.
#![no_std]

pub mod frame;
