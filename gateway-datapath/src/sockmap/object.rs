//! The eBPF object that the build took in.

/// Where the object stands, aligned as its parser wants it.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/gateway-ebpf.o")));

/// The object; `None`: the gateway was built without.
pub(super) fn bytes() -> Option<&'static [u8]> {
    (!OBJECT.0.is_empty()).then_some(&OBJECT.0)
}
