//! Bytes that leave, read as each kind of body.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| provenance::fuzzing::scan(input));
