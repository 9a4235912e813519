//! This program's own inventory section, in memory.

/// The bytes that [`inventory_entry!`](crate::inventory_entry) left in this program; empty where
/// the linker gives no way to find them at run time.
#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly",
    target_os = "illumos",
    target_os = "fuchsia"
))]
#[cfg(not(miri))]
pub(super) fn bytes() -> &'static [u8] {
    // ELF linkers define these for every section whose name is a C identifier. The runtime's
    // own entry is always in the section, so the symbols always exist.
    unsafe extern "C" {
        #[link_name = "__start_prov_inv"]
        static START: [u8; 0];
        #[link_name = "__stop_prov_inv"]
        static STOP: [u8; 0];
    }
    // Opaque to the optimiser, which knows `START` as an object without bytes.
    let start = std::hint::black_box(&raw const START).cast::<u8>();
    let stop = std::hint::black_box(&raw const STOP).cast::<u8>();
    let length = stop.addr().saturating_sub(start.addr());
    // SAFETY: the linker places both symbols at the ends of one loaded section, so `length` bytes
    // from `start` are mapped for as long as the program runs. The section holds nothing but
    // statics of bytes without interior mutability (and the linker's zero padding): initialised,
    // never written, of alignment 1.
    unsafe { std::slice::from_raw_parts(start, length) }
}

#[cfg(any(
    miri,
    not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
        target_os = "illumos",
        target_os = "fuchsia"
    ))
))]
pub(super) fn bytes() -> &'static [u8] {
    &[]
}
