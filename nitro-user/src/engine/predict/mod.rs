//! What comes next. One method per file; each offers a place in a model and knows nothing of budgets.

pub mod sequence;
