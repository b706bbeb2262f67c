//! What loads teach beyond their own end, and what of it survives a restart.
//!
//! [`row`] is the form in which it is kept: the engine hands out changed rows and is told all of them when the agent starts.

pub mod row;
