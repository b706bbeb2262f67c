//! The `nitro-agent` command.

fn main() {}
