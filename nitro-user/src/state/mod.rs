//! What survives a restart, in the state directory.
//!
//! In: what the engine wants kept. Out: what was kept. Everything on disk is read with a bound and taken for what it is: somebody else may have written it. Writing
//! is done on a thread of its own, and a disk that is full or gone costs the agent nothing but its memory.

pub mod devices;
