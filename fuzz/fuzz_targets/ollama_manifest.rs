//! An Ollama manifest beside its blobs.
//!
//! `cargo fuzz run ollama_manifest` in the directory above; what must hold is in the trial itself.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nitro_user::catalog::layout::trial::ollama_manifest(input));
