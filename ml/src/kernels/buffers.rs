//! Large buffers kept for the next operation.
//!
//! A training step makes and drops the same few dozen tensors of some megabytes each time. Fresh memory of that size comes from
//! the operating system, zeroed page by page, which costs about as much as the normalisation that writes to it. So an operation
//! takes its output from here, and gives back its operands when it was their last user. What is kept is bounded; what does not
//! fit is freed as usual, and [`release`] frees the rest when a training is over.

use std::sync::{Mutex, PoisonError};

/// Smaller buffers come from the allocator as they are.
const MIN_LENGTH: usize = 1 << 12;

/// Bytes kept at most.
const MAX_KEPT_BYTES: usize = 256 << 20;

/// The buffers kept, none of them empty.
static KEPT: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// A buffer of `length` values: zeros or whatever its last user has left. For outputs that are overwritten as a whole.
pub(super) fn take(length: usize) -> Vec<f32> {
    if length >= MIN_LENGTH {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one given back is the likeliest to be in the cache.
        if let Some(index) = kept.iter().rposition(|buffer| buffer.len() == length) {
            return kept.swap_remove(index);
        }
    }
    vec![0.0; length]
}

/// Keeps a buffer for a later [`take`] of its length.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.len() < MIN_LENGTH {
        return;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = |buffer: &Vec<f32>| buffer.len() * size_of::<f32>();
    if kept.iter().map(bytes).sum::<usize>() + bytes(&buffer) <= MAX_KEPT_BYTES {
        kept.push(buffer);
    }
}

/// Frees all buffers kept.
pub(super) fn release() {
    let kept = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    drop(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_for_its_own_length_and_not_after_a_release() {
        // Lengths that no other test uses, since the buffers are shared.
        let length = MIN_LENGTH + 12_345;
        give(vec![7.0; length]);
        assert_eq!(take(length + 1), vec![0.0; length + 1]);
        assert_eq!(take(length), vec![7.0; length]);
        assert_eq!(take(length), vec![0.0; length]);
        give(vec![7.0; length]);
        release();
        assert_eq!(take(length), vec![0.0; length]);
    }
}
