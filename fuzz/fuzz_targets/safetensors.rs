//! The header of a safetensors file, and the index beside it.
//!
//! `cargo fuzz run safetensors` in the directory above; what must hold is in the trial itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nitro_user::catalog::layout::trial::safetensors(input));
