//! Text, read as a configuration in each syntax.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| provenance::fuzzing::config(input));
