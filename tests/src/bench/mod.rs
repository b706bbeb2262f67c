//! What `nitro-bench` runs, one bench per file.
