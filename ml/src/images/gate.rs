//! A bound on the pixels that are decoded at the same time, by all threads and for whatever purpose: many large images side by side would otherwise
//! need a multiple of the memory that [`ImageLimits`](super::ImageLimits) promise.

use std::sync::{Condvar, Mutex, PoisonError};

static IN_USE: Mutex<u64> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// Room for an image's pixels, given back when it is dropped.
pub(super) struct PixelPass {
    pixels: u64,
}

/// Waits until all that is being decoded, this image with it, has at most `most` pixels, or until nothing else is being decoded. Whoever has room waits
/// for no thread that could stand here, so somebody always goes on.
pub(super) fn enter(pixels: u64, most: u64) -> PixelPass {
    let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut in_use = FREED
        .wait_while(in_use, |in_use| *in_use > 0 && *in_use + pixels > most)
        .unwrap_or_else(PoisonError::into_inner);
    *in_use += pixels;
    PixelPass { pixels }
}

impl Drop for PixelPass {
    fn drop(&mut self) {
        *IN_USE.lock().unwrap_or_else(PoisonError::into_inner) -= self.pixels;
        FREED.notify_all();
    }
}
