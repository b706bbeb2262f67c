//! Pictures of a trace: for each file offset against time, with one colour for each process, and below it how much of the file came into the page cache.
//!
//! In: a trace, read twice: once for how far the axes reach, once for what is in them. Out: an SVG. However long the trace is, what is drawn are cells of a grid, so that picture and memory stay
//! small.

mod extent;
mod grid;
mod picture;

pub use self::{
    extent::Extent,
    grid::Grids,
    picture::{STYLE, draw},
};

/// Files that are drawn: those that were read most.
pub const MOST_FILES: usize = 8;

/// Processes with a colour of their own; the others share one.
pub const MOST_PROCESSES: usize = 7;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// Nothing was read.
    #[error("no process read a file in this trace: there is nothing to draw")]
    Empty,
    /// The drawing library refuses.
    #[error("cannot draw: {0}")]
    Drawing(String),
}
