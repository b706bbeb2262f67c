//! What loads teach beyond their own end, and what of it survives a restart.
//!
//! [`row`] is the form in which it is kept: the engine hands out changed rows and is told all of them when the agent starts. [`names`] gives models and programs their
//! numbers, [`fading`] is how a number that was counted long ago counts less.

pub mod fading;
pub mod names;
pub mod row;
