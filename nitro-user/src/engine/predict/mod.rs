//! What comes next. One method per file; each knows nothing of budgets.

pub mod calibration;
pub mod lead;
pub mod order;
pub mod sequence;
pub mod successors;
