//! The reader's own order: onwards in the file, then the next parts in the layout's order, then what a wandering reader left out.

use crate::catalog::model::LayoutKind;

/// Most parts taken up ahead where only a directory ties them together.
const MOST_SIBLINGS: usize = 5;

/// Parts after the current one that may be taken up, when `in_order` parts were read in order so far, the current one included.
pub fn reach(layout: LayoutKind, in_order: usize) -> usize {
    match layout {
        // Every loader of these reads all parts.
        LayoutKind::Ollama
        | LayoutKind::HuggingFace
        | LayoutKind::Gguf
        | LayoutKind::Safetensors
        | LayoutKind::Diffusers => usize::MAX,
        // A number in the name is a good reason for one, experience for more.
        LayoutKind::Numbered => in_order,
        LayoutKind::Siblings if in_order >= 2 => (in_order - 1).min(MOST_SIBLINGS),
        LayoutKind::Siblings | LayoutKind::Chunks | LayoutKind::TorchZip | LayoutKind::Single => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_taken_up_after_two_reads_in_order_and_five_at_most() {
        let ahead: Vec<usize> = (0..9).map(|read| reach(LayoutKind::Siblings, read)).collect();
        assert_eq!(ahead, [0, 0, 1, 2, 3, 4, 5, 5, 5]);
    }
}
