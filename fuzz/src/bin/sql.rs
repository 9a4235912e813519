//! A statement's text and binds, as the SQL fallback reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| provenance::fuzzing::sql(input));
