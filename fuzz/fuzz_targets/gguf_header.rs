//! The header of a GGUF file.
//!
//! `cargo fuzz run gguf_header` in the directory above; what must hold is in the trial itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nitro_user::catalog::layout::trial::gguf_header(input));
