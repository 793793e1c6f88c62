//! The two inner loops of convolution, on a tile that stays in the processor's registers.
//!
//! Images lie with the channels innermost, `[image, row, column, channel]`, so a window of the input is a few *segments* of
//! consecutive values, one a row of the kernel. Both loops read the windows where they are: there is no matrix of patches. Weights
//! are packed, and for many of them the gradients of some outputs at a time.
//!
//! - [`Correlate`]: every output is the sum over its window of value times weight. A tile is `ROWS` outputs by two
//!   vectors of channels: a broadcast value of each window against two vectors of weights.
//! - [`AccumulateWeights`]: every weight's gradient is the sum over all outputs of value times output gradient. A tile is
//!   `ROWS` consecutive values of a segment by two vectors of channels, summed over the outputs in order.
//!
//! Both add in an order that depends on nothing but the shapes, so a result does not depend on how many threads there are.
//!
//! # Safety
//!
//! Addresses are computed as `origin + row * row_stride + column` inside the input, as a position inside a panel of weights,
//! and as `target + channel` inside the output. [`Windows::check`] and the asserts at the head of each kernel establish, before
//! the first access, that the largest of each lies inside its slice.

#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "register tiles are indexed by constants once the loops are unrolled"
)]

use super::buffers;
use super::simd::{Instructions, Kernel, Lanes};
use rayon::prelude::*;

/// Lanes of the widest register.
const MAX_WIDTH: usize = 16;

/// From so many weights of a window on, the gradients of so many windows are gathered, to stay in the nearest cache while all weights pass by.
const MIN_WEIGHTS_TO_GATHER: usize = 192;
const WINDOWS_AT_ONCE: usize = 64;

/// Where the windows lie in a buffer of input values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows<'a> {
    /// The buffer.
    pub(super) values: &'a [f32],
    /// Where each window starts.
    pub(super) origins: &'a [usize],
    /// Segments in a window.
    pub(super) segments: usize,
    /// Distance from one segment to the next.
    pub(super) segment_stride: usize,
    /// Values in a segment.
    pub(super) segment_length: usize,
}

impl Windows<'_> {
    /// Values in a window.
    pub(super) fn window_length(&self) -> usize {
        self.segments * self.segment_length
    }

    /// Panics unless every window lies inside the buffer.
    fn check(&self) {
        assert!(self.segments > 0 && self.segment_length > 0, "a window has values");
        let last_origin = self.origins.iter().copied().max().unwrap_or(0);
        let end = last_origin + (self.segments - 1) * self.segment_stride + self.segment_length;
        assert!(
            self.origins.is_empty() || end <= self.values.len(),
            "every window lies inside the buffer"
        );
    }
}

/// What happens to a sum before it is written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epilogue<'a> {
    /// Added to each channel; padded with zeros to [`padded_channels`].
    pub(super) bias: Option<&'a [f32]>,
    /// Added position by position; laid out as the output is.
    pub(super) residual: Option<&'a [f32]>,
    /// Negative results become zero.
    pub(super) relu: bool,
}

/// How many channels a packed matrix of weights has room for.
pub(super) fn padded_channels(instructions: Instructions, channels: usize) -> usize {
    channels.next_multiple_of(instructions.width())
}

/// Where a weight lies in an array: `origin(position in the window) + channel * channel_stride`.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightLayout<F> {
    /// Positions in a window.
    pub(super) window_length: usize,
    /// Channels that a window is correlated into.
    pub(super) channels: usize,
    /// Distance from one such channel to the next.
    pub(super) channel_stride: usize,
    /// Where the weight of a position and the first channel lies.
    pub(super) origin: F,
}

/// Packs weights for [`correlate`]: panels of two vectors of output channels (the last may have one), and in each panel the
/// values of the window one after another.
pub(super) fn pack_weights(
    instructions: Instructions,
    weights: &[f32],
    layout: &WeightLayout<impl Fn(usize) -> usize + Sync>,
) -> Vec<f32> {
    let width = instructions.width();
    let padded = padded_channels(instructions, layout.channels);
    let mut packed = buffers::take(layout.window_length * padded);
    packed.par_chunks_mut(layout.window_length * 2 * width).enumerate().for_each(
        |(index, panel)| {
            let first = index * 2 * width;
            let panel_width = (2 * width).min(padded - first);
            let live = panel_width.min(layout.channels - first);
            for (position, row) in panel.chunks_exact_mut(panel_width).enumerate() {
                let origin = (layout.origin)(position) + first * layout.channel_stride;
                let (row, rest) = row.split_at_mut(live);
                for (target, &weight) in
                    row.iter_mut().zip(weights[origin..].iter().step_by(layout.channel_stride))
                {
                    *target = weight;
                }
                rest.fill(0.0);
            }
        },
    );
    packed
}

/// Writes a gradient that [`accumulate_weights`] has summed, in the layout of [`pack_weights`], to its place in `weights`.
pub(super) fn unpack_weights(
    instructions: Instructions,
    packed: &[f32],
    layout: &WeightLayout<impl Fn(usize) -> usize>,
    weights: &mut [f32],
) {
    let width = instructions.width();
    let padded = padded_channels(instructions, layout.channels);
    for first in (0..padded).step_by(2 * width) {
        let panel_width = (2 * width).min(padded - first);
        let live = panel_width.min(layout.channels - first);
        let panel = &packed[first * layout.window_length..][..panel_width * layout.window_length];
        for (position, row) in panel.chunks_exact(panel_width).enumerate() {
            let origin = (layout.origin)(position) + first * layout.channel_stride;
            let targets = weights[origin..].iter_mut().step_by(layout.channel_stride);
            for (target, &value) in targets.zip(&row[..live]) {
                *target = value;
            }
        }
    }
}

/// For each window: its products with the packed weights, written to `output[target..target + channels]`.
pub(super) fn correlate(
    instructions: Instructions,
    windows: Windows<'_>,
    weights: &[f32],
    channels: usize,
    targets: &[usize],
    epilogue: Epilogue<'_>,
    output: &mut [f32],
) {
    instructions.run(Correlate { windows, weights, channels, targets, epilogue, output });
}

/// Adds to `sums`, laid out as [`pack_weights`] does, each window's outer product with its output gradient;
/// `gradients` holds `channels` values a window.
pub(super) fn accumulate_weights(
    instructions: Instructions,
    windows: Windows<'_>,
    gradients: &[f32],
    channels: usize,
    sums: &mut [f32],
) {
    instructions.run(AccumulateWeights { windows, gradients, channels, sums });
}

struct Correlate<'a> {
    windows: Windows<'a>,
    weights: &'a [f32],
    channels: usize,
    targets: &'a [usize],
    epilogue: Epilogue<'a>,
    output: &'a mut [f32],
}

impl Kernel for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const ROWS: usize>(mut self, lanes: L) {
        const { assert!(L::WIDTH <= MAX_WIDTH, "a register has at most 16 lanes") };
        self.windows.check();
        let window_length = self.windows.window_length();
        let padded = self.channels.next_multiple_of(L::WIDTH);
        assert_eq!(self.targets.len(), self.windows.origins.len(), "a target for every window");
        assert_eq!(
            self.weights.len(),
            window_length * padded,
            "the weights are packed for this window"
        );
        let last_target = self.targets.iter().copied().max().unwrap_or(0);
        assert!(
            self.targets.is_empty() || last_target + self.channels <= self.output.len(),
            "targets lie in the output"
        );
        if let Some(bias) = self.epilogue.bias {
            assert_eq!(bias.len(), padded, "the bias is padded");
        }
        if let Some(residual) = self.epilogue.residual {
            assert_eq!(
                residual.len(),
                self.output.len(),
                "the residual has the shape of the output"
            );
        }

        for first in (0..padded).step_by(2 * L::WIDTH) {
            if first + 2 * L::WIDTH <= padded {
                // SAFETY: all that `panel` demands has been asserted above.
                unsafe { self.panel::<L, ROWS, 2>(lanes, first) };
            } else {
                // SAFETY: as above.
                unsafe { self.panel::<L, ROWS, 1>(lanes, first) };
            }
        }
    }
}

impl Correlate<'_> {
    /// All windows against the panel of weights whose first channel is `first`.
    ///
    /// # Safety
    ///
    /// Windows, targets, weights, bias and residual must fit their slices, as `run` asserts.
    #[inline(always)]
    unsafe fn panel<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        lanes: L,
        first: usize,
    ) where
        Self: Sized,
    {
        let window_length = self.windows.window_length();
        let live_channels = (VECTORS * L::WIDTH).min(self.channels - first);
        let panel =
            self.weights[first * window_length..][..VECTORS * L::WIDTH * window_length].as_ptr();
        let values = self.windows.values.as_ptr();

        for (origins, targets) in self.windows.origins.chunks(ROWS).zip(self.targets.chunks(ROWS)) {
            // A last tile that is not full computes its last window again and does not write it.
            let starts: [*const f32; ROWS] =
                std::array::from_fn(|row| values.wrapping_add(origins[row.min(origins.len() - 1)]));

            let initial: [L::Vector; VECTORS] =
                std::array::from_fn(|vector| match self.epilogue.bias {
                    // SAFETY: the bias has `padded` values and `first + VECTORS * WIDTH` is at most that.
                    Some(bias) => unsafe {
                        lanes.load(bias.as_ptr().add(first + vector * L::WIDTH))
                    },
                    None => lanes.splat(0.0),
                });
            let mut sums = [initial; ROWS];
            let mut weights = panel;
            for segment in 0..self.windows.segments {
                let segment_start = segment * self.windows.segment_stride;
                for position in segment_start..segment_start + self.windows.segment_length {
                    // SAFETY: the panel holds `VECTORS * WIDTH` weights for each position of the window, and
                    // `Windows::check` found every position of every window inside the buffer.
                    unsafe {
                        let row_of_weights: [L::Vector; VECTORS] = std::array::from_fn(|vector| {
                            lanes.load(weights.add(vector * L::WIDTH))
                        });
                        weights = weights.add(VECTORS * L::WIDTH);
                        for row in 0..ROWS {
                            let value = lanes.splat(*starts[row].add(position));
                            for vector in 0..VECTORS {
                                sums[row][vector] = lanes.multiply_add(
                                    value,
                                    row_of_weights[vector],
                                    sums[row][vector],
                                );
                            }
                        }
                    }
                }
            }

            // The sums leave the registers here and in the simplest way: what is done with them below is too much to be unrolled, and an array
            // that a loop indexes lies in memory, also while the loop above adds to it (88 instead of 200 GFLOP/s).
            let mut finished = [[0.0_f32; 2 * MAX_WIDTH]; ROWS];
            for row in 0..ROWS {
                for vector in 0..VECTORS {
                    // SAFETY: a row has room for two of the widest registers.
                    unsafe {
                        lanes.store(
                            finished[row].as_mut_ptr().add(vector * L::WIDTH),
                            sums[row][vector],
                        );
                    }
                }
            }
            for (finished, &target) in finished.iter().zip(targets) {
                for vector in 0..VECTORS {
                    let channel = vector * L::WIDTH;
                    // SAFETY: as above.
                    let mut sum = unsafe { lanes.load(finished.as_ptr().add(channel)) };
                    if channel + L::WIDTH <= live_channels {
                        let place = target + first + channel;
                        // SAFETY: `target + channels` lies inside the output, and the residual is as long as the output.
                        unsafe {
                            if let Some(residual) = self.epilogue.residual {
                                sum = lanes.add(sum, lanes.load(residual.as_ptr().add(place)));
                            }
                            if self.epilogue.relu {
                                sum = lanes.relu(sum);
                            }
                            lanes.store(self.output.as_mut_ptr().add(place), sum);
                        }
                    } else if channel < live_channels {
                        self.write_part(
                            lanes,
                            sum,
                            target + first + channel,
                            live_channels - channel,
                        );
                    }
                }
            }
        }
    }

    /// Writes the first `count` lanes: the last channels of a number that does not fill a register.
    #[inline(always)]
    fn write_part<L: Lanes>(&mut self, lanes: L, sum: L::Vector, place: usize, count: usize) {
        let mut buffer = [0.0; MAX_WIDTH];
        // SAFETY: the buffer holds a register.
        unsafe { lanes.store(buffer.as_mut_ptr(), sum) };
        let target = &mut self.output[place..place + count];
        target.copy_from_slice(&buffer[..count]);
        if let Some(residual) = self.epilogue.residual {
            for (value, added) in target.iter_mut().zip(&residual[place..place + count]) {
                *value += added;
            }
        }
        if self.epilogue.relu {
            for value in target {
                *value = if *value < 0.0 { 0.0 } else { *value };
            }
        }
    }
}

struct AccumulateWeights<'a> {
    windows: Windows<'a>,
    gradients: &'a [f32],
    channels: usize,
    sums: &'a mut [f32],
}

impl Kernel for AccumulateWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const ROWS: usize>(self, lanes: L) {
        self.windows.check();
        let windows = self.windows;
        let window_length = windows.window_length();
        let padded = self.channels.next_multiple_of(L::WIDTH);
        assert_eq!(
            self.sums.len(),
            window_length * padded,
            "the sums are laid out for this window"
        );
        assert_eq!(
            self.gradients.len(),
            windows.origins.len() * self.channels,
            "a gradient for every window"
        );

        // Gradients of a panel lie apart, and fall on few places of the nearest cache. Where many weights pass by, they are laid together, a few windows at a time.
        let panel_width = 2 * L::WIDTH;
        let gathers = self.channels != panel_width && window_length >= MIN_WEIGHTS_TO_GATHER;
        let at_once = if gathers { WINDOWS_AT_ONCE } else { windows.origins.len().max(1) };
        let mut gathered = Vec::new();
        for (origins, gradients) in
            windows.origins.chunks(at_once).zip(self.gradients.chunks(at_once * self.channels))
        {
            let windows = Windows { origins, ..windows };
            for first in (0..padded).step_by(panel_width) {
                let width = panel_width.min(padded - first);
                let live = width.min(self.channels - first);
                let sums = &mut self.sums[first * window_length..][..width * window_length];
                // The last vector may reach beyond the last channel: then it is filled up with zeros.
                let (gradients, stride) = if gathers || live < width {
                    gathered.clear();
                    for gradient in gradients.chunks_exact(self.channels) {
                        gathered.extend_from_slice(&gradient[first..first + live]);
                        gathered.resize(gathered.len() + width - live, 0.0);
                    }
                    (&gathered[..], width)
                } else {
                    (&gradients[first..], self.channels)
                };
                assert!(
                    (origins.len() - 1) * stride + width <= gradients.len(),
                    "every gradient lies in its slice"
                );
                // SAFETY: the windows and the gradients have just been found inside their slices, and `sums` holds `width` values
                // for each position of the window.
                unsafe {
                    if width == panel_width {
                        accumulate_panel::<L, ROWS, 2>(lanes, windows, gradients, stride, sums);
                    } else {
                        accumulate_panel::<L, ROWS, 1>(lanes, windows, gradients, stride, sums);
                    }
                }
            }
        }
    }
}

/// One panel of [`AccumulateWeights`].
///
/// # Safety
///
/// Every window must lie inside its buffer; `gradients` must hold `VECTORS * WIDTH` values at `stride` times the index of each
/// window; `sums` must hold `VECTORS * WIDTH` values for each position of the window.
#[inline(always)]
unsafe fn accumulate_panel<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    lanes: L,
    windows: Windows<'_>,
    gradients: &[f32],
    stride: usize,
    sums: &mut [f32],
) {
    let panel_width = VECTORS * L::WIDTH;
    for (segment, sums) in sums.chunks_exact_mut(panel_width * windows.segment_length).enumerate() {
        let values = windows.values.as_ptr().wrapping_add(segment * windows.segment_stride);
        let mut position = 0;
        while position < windows.segment_length {
            let left = windows.segment_length - position;
            let sums = sums[position * panel_width..].as_mut_ptr();
            let values = values.wrapping_add(position);
            let (origins, gradients) = (windows.origins, gradients.as_ptr());
            // SAFETY: `left` positions remain in this segment of every window and in `sums`, and no tile takes more.
            unsafe {
                // Inlined one by one: called by its address, a tile would lack the instructions.
                macro_rules! tile {
                    ($rows:expr) => {
                        accumulate_tile::<L, { $rows }, VECTORS>(
                            lanes, values, origins, gradients, stride, sums,
                        )
                    };
                }
                position += match left {
                    _ if left >= ROWS => tile!(ROWS),
                    6.. => tile!(6),
                    3.. => tile!(3),
                    2 => tile!(2),
                    _ => tile!(1),
                };
            }
        }
    }
}

/// `ROWS` positions of a segment by `VECTORS` vectors of channels, summed over all windows. Gives `ROWS`.
///
/// # Safety
///
/// `ROWS` values must be readable at `values` plus every origin, `VECTORS * WIDTH` at `gradients` plus `stride` times the index of
/// every window, and `ROWS * VECTORS * WIDTH` readable and writable at `sums`.
#[inline(always)]
unsafe fn accumulate_tile<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    lanes: L,
    values: *const f32,
    origins: &[usize],
    gradients: *const f32,
    stride: usize,
    sums: *mut f32,
) -> usize {
    // SAFETY: the caller vouches for every address.
    unsafe {
        let mut tile: [[L::Vector; VECTORS]; ROWS] = std::array::from_fn(|row| {
            std::array::from_fn(|vector| lanes.load(sums.add((row * VECTORS + vector) * L::WIDTH)))
        });
        let mut gradient = gradients;
        for &origin in origins {
            let row_of_gradients: [L::Vector; VECTORS] =
                std::array::from_fn(|vector| lanes.load(gradient.add(vector * L::WIDTH)));
            gradient = gradient.wrapping_add(stride);
            let window = values.wrapping_add(origin);
            for row in 0..ROWS {
                let value = lanes.splat(*window.add(row));
                for vector in 0..VECTORS {
                    tile[row][vector] =
                        lanes.multiply_add(value, row_of_gradients[vector], tile[row][vector]);
                }
            }
        }
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                lanes.store(sums.add((row * VECTORS + vector) * L::WIDTH), tile[row][vector]);
            }
        }
    }
    ROWS
}
