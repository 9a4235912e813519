//! The inventory that every build carries: what its attributes declare, readable from the
//! program and from its file. INVENTORY.md specifies the format.

#[cfg(feature = "runtime")]
mod entry;
#[cfg(feature = "runtime")]
mod section;

#[cfg(feature = "sql-fallback")]
pub(crate) use entry::serves;
#[cfg(feature = "runtime")]
pub use entry::{Entry, hash, inventory, models_without_hook, parse, runtimes};
#[cfg(feature = "runtime")]
pub(crate) use entry::{build_hash, unvisited};

#[cfg(feature = "runtime")]
#[doc(hidden)]
pub use crate::vocabulary::category::{
    canonical as canonical_category, is_known as is_known_category, nearest as nearest_category,
};

/// Leaves one line of JSON in the program's inventory section. Called by generated code:
/// `head`, the item's path below the invoking module, and `tail` make one JSON object.
///
/// `concat!` expands `module_path!()` where the attribute stands, so the line needs no code at
/// run time. The section names and why they keep the line: INVENTORY.md.
#[cfg(feature = "runtime")]
#[doc(hidden)]
#[macro_export]
macro_rules! inventory_entry {
    (head: $head:literal, path: $path:literal, tail: $tail:literal $(,)?) => {
        $crate::inventory_entry!(line: ::core::concat!($head, ::core::module_path!(), "::", $path, $tail));
    };
    // The same, unless an extractor of this type can be visited.
    (unless_read: $ty:ty, head: $head:literal, path: $path:literal, tail: $tail:literal $(,)?) => {
        $crate::inventory_entry!(
            read: {
                #[allow(unused_imports)]
                use $crate::__private::probe::Unread;
                type Visits<T> = $crate::__private::probe::Visits<T>;
                Visits::<$ty>::TRACKED
                    || Visits::<$ty>::OF_TRACKED
                    || Visits::<$ty>::SERIALIZE
                    || Visits::<$ty>::OF_SERIALIZE
            },
            line: ::core::concat!($head, ::core::module_path!(), "::", $path, $tail)
        );
    };
    (line: $line:expr) => {
        $crate::inventory_entry!(read: false, line: $line);
    };
    (read: $read:expr, line: $line:expr) => {
        #[cfg(not(any(target_family = "wasm", miri)))]
        const _: () = {
            const LINE: &[u8] = ::core::concat!($line, "\n").as_bytes();
            const READ: bool = $read;
            // A NUL is padding to every reader.
            const LENGTH: usize = if READ { 1 } else { LINE.len() };
            #[used]
            #[cfg_attr(
                target_vendor = "apple",
                unsafe(link_section = "__DATA,__prov_inv,regular,no_dead_strip")
            )]
            #[cfg_attr(any(windows, target_os = "uefi"), unsafe(link_section = ".prov$b"))]
            #[cfg_attr(
                not(any(target_vendor = "apple", windows, target_os = "uefi")),
                unsafe(link_section = "prov_inv")
            )]
            static ENTRY: [u8; LENGTH] = match LINE.first_chunk() {
                ::core::option::Option::Some(line) if !READ => *line,
                _ => [0; LENGTH],
            };
        };
    };
}

/// Without `runtime` a build carries no inventory.
#[cfg(not(feature = "runtime"))]
#[doc(hidden)]
#[macro_export]
macro_rules! inventory_entry {
    ($($line:tt)*) => {};
}

// Names this runtime, and keeps the section from being absent where nothing is declared.
#[cfg(feature = "runtime")]
crate::inventory_entry!(line: concat!(
    r#"{"v":1,"kind":"runtime","path":"provenance","at":"src/inventory.rs:"#,
    line!(),
    r#"","crate":"provenance","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}"#
));
