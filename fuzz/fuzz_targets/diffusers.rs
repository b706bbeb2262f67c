//! A diffusers pipeline: its index, and names below the components.
//!
//! `cargo fuzz run diffusers` in the directory above; what must hold is in the trial itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nitro_user::catalog::layout::trial::diffusers(input));
