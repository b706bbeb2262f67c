//! The names in a directory: splits, numbers, natural order.
//!
//! `cargo fuzz run names` in the directory above; what must hold is in the trial itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nitro_user::catalog::layout::trial::names(input));
