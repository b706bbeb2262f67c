//! What the agent tells of itself, as values: its state, and the receipts of the last loads.
//!
//! In: values that the daemon's task collects. Out: values for whoever asks over the control socket. It calls back into no stage, and knows
//! neither sockets nor terminals.

pub mod history;
pub mod status;
