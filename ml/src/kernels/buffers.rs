//! Large buffers kept for the next operation.
//!
//! A training step makes and drops the same few dozen tensors of some megabytes each time. Fresh memory of that size comes from
//! the operating system, zeroed page by page, which costs about as much as the normalisation that writes to it. So an operation
//! takes its output from here, and gives back its operands when it was their last user. What is kept is bounded: for one that does not
//! fit those go that have lain longest, and [`release`] frees the rest when a training is over.
//!
//! Operands may also come from operations that do not take from here. Of such a length more would be given than taken, step after step,
//! until nothing else fits. So of every length only as many are kept as have been taken before and not come back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller buffers come from the allocator as they are.
const MIN_LENGTH: usize = 1 << 12;

/// Bytes kept at most.
const MAX_KEPT_BYTES: usize = 256 << 20;

/// Taken buffers of one length that are counted at most: some end with others, and never come back.
const MAX_OUT: usize = 64;

static KEPT: Mutex<Kept> = Mutex::new(Kept { buffers: Vec::new(), bytes: 0, out: BTreeMap::new() });

struct Kept {
    /// None of them empty; the last was given back last.
    buffers: Vec<Vec<f32>>,
    bytes: usize,
    /// By length, how many have been taken and not come back.
    out: BTreeMap<usize, usize>,
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes_of(buffer: &[f32]) -> usize {
    size_of_val(buffer)
}

/// A buffer of `length` values: zeros or whatever its last user has left. For outputs that are overwritten as a whole.
pub(super) fn take(length: usize) -> Vec<f32> {
    if length >= MIN_LENGTH {
        let mut kept = kept();
        let out = kept.out.entry(length).or_default();
        *out = (*out + 1).min(MAX_OUT);
        // The last one given back is the likeliest to be in the cache.
        if let Some(index) = kept.buffers.iter().rposition(|buffer| buffer.len() == length) {
            let buffer = kept.buffers.remove(index);
            kept.bytes -= bytes_of(&buffer);
            return buffer;
        }
    }
    vec![0.0; length]
}

/// Keeps a buffer for a later [`take`] of its length.
pub(super) fn give(buffer: Vec<f32>) {
    if buffer.len() < MIN_LENGTH {
        return;
    }
    let mut kept = kept();
    let Some(out) = kept.out.get_mut(&buffer.len()).filter(|out| **out > 0) else { return };
    *out -= 1;
    if bytes_of(&buffer) > MAX_KEPT_BYTES {
        return;
    }
    kept.bytes += bytes_of(&buffer);
    let (mut old, mut freed) = (0, 0);
    while kept.bytes - freed > MAX_KEPT_BYTES {
        freed += bytes_of(&kept.buffers[old]);
        old += 1;
    }
    kept.bytes -= freed;
    let freed: Vec<Vec<f32>> = kept.buffers.drain(..old).collect();
    kept.buffers.push(buffer);
    drop(kept);
    drop(freed);
}

/// Frees all buffers kept.
pub(super) fn release() {
    let mut kept = kept();
    kept.bytes = 0;
    kept.out.clear();
    let buffers = std::mem::take(&mut kept.buffers);
    drop(kept);
    drop(buffers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_for_its_own_length_and_not_after_a_release() {
        // Lengths that no other test uses, since the buffers are shared.
        let length = MIN_LENGTH + 12_345;
        let mut buffer = take(length);
        assert_eq!(buffer, vec![0.0; length]);
        buffer.fill(7.0);
        give(buffer);
        assert_eq!(take(length + 1), vec![0.0; length + 1]);
        let again = take(length);
        assert_eq!(again, vec![7.0; length]);
        give(again);
        // One that was never taken is not kept beside it.
        give(vec![8.0; length]);
        assert_eq!(take(length), vec![7.0; length]);
        assert_eq!(take(length), vec![0.0; length]);
        give(vec![7.0; length]);
        release();
        assert_eq!(take(length), vec![0.0; length]);
    }
}
