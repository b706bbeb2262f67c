//! What comes next. One method per file; each knows nothing of budgets.

pub mod calibration;
pub mod sequence;
pub mod successors;
