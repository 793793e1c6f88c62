//! A bound on the pixels that are decoded at the same time, by all threads and for whatever purpose: many large images side by side would otherwise
//! need a multiple of the memory that [`ImageLimits`](super::ImageLimits) promise.

use std::sync::{Condvar, Mutex, PoisonError};

static GATE: Mutex<Gate> = Mutex::new(Gate { in_use: 0, next: 0, served: 0 });
static CHANGED: Condvar = Condvar::new();

struct Gate {
    /// Pixels of the images that are being decoded.
    in_use: u64,
    /// How many have come, and how many of them have been let in.
    next: u64,
    served: u64,
}

/// Room for an image's pixels, given back when it is dropped.
pub(super) struct PixelPass {
    pixels: u64,
}

/// Waits until all that is being decoded, this image with it, has at most `most` pixels, or until nothing else is being decoded. Who comes first is let in
/// first, so that large images get their turn among small ones; whoever is in waits for no thread that could stand here, so somebody always goes on.
pub(super) fn enter(pixels: u64, most: u64) -> PixelPass {
    let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let ticket = gate.next;
    gate.next += 1;
    let must_wait =
        |gate: &mut Gate| gate.served != ticket || (gate.in_use > 0 && gate.in_use + pixels > most);
    let mut gate = CHANGED.wait_while(gate, must_wait).unwrap_or_else(PoisonError::into_inner);
    gate.served += 1;
    gate.in_use += pixels;
    if gate.served < gate.next {
        CHANGED.notify_all();
    }
    PixelPass { pixels }
}

impl Drop for PixelPass {
    fn drop(&mut self) {
        GATE.lock().unwrap_or_else(PoisonError::into_inner).in_use -= self.pixels;
        CHANGED.notify_all();
    }
}
