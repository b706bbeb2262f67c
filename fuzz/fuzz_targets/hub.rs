//! A Hugging Face hub cache: reference, link names and link targets.
//!
//! `cargo fuzz run hub` in the directory above; what must hold is in the trial itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nitro_user::catalog::layout::trial::hub(input));
