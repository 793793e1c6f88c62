//! Convolution by 3x3 kernels with fewer multiplications: Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2015, arXiv 1509.09308).
//!
//! Four neighbouring outputs take 36 products of the definition. Here the 4x4 inputs that they depend on and the 3x3 weights are transformed by a few
//! additions into 16 values each, *points*, whose products, summed over the input channels, are transformed back: 16 products. With the channels innermost
//! each point is a product of matrices, tiles by channels, which [`microkernel`](super::microkernel) computes; the transforms are additions of whole
//! rows of channels.
//!
//! | | transforms | products, a point |
//! | --- | --- | --- |
//! | forward | input by `Bt d B`, weights by `G g Gt`, result by `At m A` | tiles x in times in x out |
//! | gradient of the input | as forward, of the output's gradient by the weights turned round | tiles x out times out x in |
//! | gradient of the weights | input by `Bt d B`, output's gradient by `A y At`, result by `Gt s G` | in x tiles times tiles x out |
//!
//! The tiles of a size that is odd reach over its end, where they read zeros and write nothing. Work is shared out by rows of tiles,
//! a fixed number a task, and sums of the widest weight gradients by points, so results are the same bits with any number of threads, and for an image alone as in a batch. Rounding differs from the
//! definition's by a few units in the last place.
//!
//! Beside the direct kernels, 128 images of 14x14 with 32 channels to 4x4 with 128, on an AMD EPYC with AVX-512: forward 1.4 to 1.7 times as fast,
//! gradient of the input 1.4 to 1.7, of the weights 1.5 to 1.7. A training step of the compact encoder takes four fifths of its time.

#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "tiles in registers are indexed by constants once the loops are unrolled"
)]

use super::buffers;
use super::convolution::{self, Finish, Geometry, WEIGHT_GRADIENT_PARTS};
use super::microkernel::{Epilogue, Windows, accumulate_weights, correlate};
use super::simd::{Instructions, Kernel, Lanes};
use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Channels come in multiples of this, which every register divides.
const LANES: usize = 16;

/// Places along a side of a tile of the input, and of the transformed weights.
const SIDE: usize = 4;

/// Points of a tile.
const POINTS: usize = SIDE * SIDE;

/// Weights of a kernel.
const TAPS: usize = 9;

/// Fewer channels than this are transformed for longer than they save.
const MIN_CHANNELS: usize = 32;

/// Values of the transformed input and output that one task holds at most, about; they should stay in the cache of a core.
const VALUES_PER_TASK: usize = 192 << 10;

/// Tasks that a batch should be divided into at least.
const MIN_TASKS: usize = 16;

/// The register tile of every instruction set divides this number of tiles.
const WHOLE_TILES: usize = 12;

/// Tiles that a partial sum of a weight gradient is worth.
const TILES_PER_PART: usize = 64;

/// From so many weights of a point on, a weight gradient has one sum, and this many blocks of [`TILES_PER_PART`] tiles are transformed at once.
const MIN_WEIGHTS_BY_POINTS: usize = 1 << 17;
const BLOCKS_AT_ONCE: usize = 8;

thread_local! {
    /// A buffer of each thread for transformed values.
    static POINTS_OF_TILES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Values from one point of some tiles to the next: a cache line more than they take, because points whose distance is a power of two would
/// push each other out of the cache.
fn point_stride(tiles: usize, channels: usize) -> usize {
    tiles * channels + LANES
}

/// Whether a convolution is computed here.
pub(super) fn suits(geometry: &Geometry) -> bool {
    let suits = |channels: usize| channels >= MIN_CHANNELS && channels.is_multiple_of(LANES);
    geometry.kernel == [3, 3]
        && geometry.stride == [1, 1]
        && geometry.padding == [1, 1]
        && suits(geometry.in_channels)
        && suits(geometry.out_channels)
}

/// The weights of every point, for [`forward`] with images of any size.
pub(super) fn pack(
    instructions: Instructions,
    geometry: &Geometry,
    weight: &[f32],
) -> Vec<Vec<f32>> {
    let channels = [geometry.in_channels, geometry.out_channels];
    transform_weights(instructions, weight, channels, Taps::forward(geometry))
}

/// See [`convolution::forward`]; `packed` is from [`pack`].
pub(super) fn forward(
    instructions: Instructions,
    geometry: &Geometry,
    input: &[f32],
    packed: &[Vec<f32>],
    finish: Finish<'_>,
    output: &mut [f32],
) {
    if let Some(bias) = finish.bias {
        assert_eq!(bias.len(), geometry.out_channels, "bias");
    }
    let plane = Plane::new(geometry, [geometry.in_channels, geometry.out_channels]);
    correlate_tiles(instructions, plane, input, packed, finish, output);
}

/// See [`convolution::input_gradient`].
pub(super) fn input_gradient(
    instructions: Instructions,
    geometry: &Geometry,
    weight: &[f32],
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    let channels = [geometry.out_channels, geometry.in_channels];
    let packed = transform_weights(instructions, weight, channels, Taps::backward(geometry));
    let plane = Plane::new(geometry, channels);
    let finish = Finish::default();
    correlate_tiles(instructions, plane, output_gradient, &packed, finish, input_gradient);
    packed.into_iter().for_each(buffers::give);
}

/// See [`convolution::weight_gradient`].
pub(super) fn weight_gradient(
    instructions: Instructions,
    geometry: &Geometry,
    input: &[f32],
    output_gradient: &[f32],
    weight_gradient: &mut [f32],
) {
    let [ins, outs] = [geometry.in_channels, geometry.out_channels];
    let plane = Plane::new(geometry, [ins, outs]);
    let mut sums = if ins * outs < MIN_WEIGHTS_BY_POINTS {
        sums_by_parts(instructions, plane, input, output_gradient)
    } else {
        sums_by_points(instructions, plane, input, output_gradient)
    };
    let width = 2 * instructions.width();
    panels(instructions, [ins, outs], sums.chunks_exact_mut(ins * outs))
        .into_par_iter()
        .zip(weight_gradient.par_chunks_mut(width * ins * TAPS))
        .for_each(|((_, panel), gradient)| {
            instructions.run(WeightsFromPoints { panel, ins, gradient });
        });
    buffers::give(sums);
}

/// The sums of all points over all tiles, packed: each part of the tiles by itself, then all parts.
fn sums_by_parts(
    instructions: Instructions,
    plane: Plane,
    input: &[f32],
    output_gradient: &[f32],
) -> Vec<f32> {
    let [ins, outs] = plane.channels;
    let units = plane.units();
    let parts = (units * plane.columns).div_ceil(TILES_PER_PART).clamp(1, WEIGHT_GRADIENT_PARTS);
    let per_part = units.div_ceil(parts);
    let per_task = plane.units_per_task().min(per_part);
    let origins = plane.offsets(per_task, ins);
    let parts: Vec<Vec<f32>> = (0..units.div_ceil(per_part))
        .into_par_iter()
        .map(|part| {
            let mut sums = buffers::take(POINTS * ins * outs);
            sums.fill(0.0);
            let end = ((part + 1) * per_part).min(units);
            for start in (part * per_part..end).step_by(per_task) {
                let rows = start..(start + per_task).min(end);
                let tiles = rows.len() * plane.columns;
                POINTS_OF_TILES.with_borrow_mut(|points| {
                    plane.transform_both(instructions, &rows, [input, output_gradient], points);
                    for (point, sums) in sums.chunks_exact_mut(ins * outs).enumerate() {
                        plane.accumulate(instructions, points, point, &origins[..tiles], sums);
                    }
                });
            }
            sums
        })
        .collect();
    convolution::total(parts)
}

/// As [`sums_by_parts`], where sums of every part would take too much memory: all tiles of some blocks are transformed, then every point by itself is summed over them.
fn sums_by_points(
    instructions: Instructions,
    plane: Plane,
    input: &[f32],
    output_gradient: &[f32],
) -> Vec<f32> {
    let [ins, outs] = plane.channels;
    let per_block = TILES_PER_PART.div_ceil(plane.columns);
    let origins = plane.offsets(per_block, ins);
    let mut sums = buffers::take(POINTS * ins * outs);
    sums.fill(0.0);
    for first in (0..plane.units()).step_by(per_block * BLOCKS_AT_ONCE) {
        let end = (first + per_block * BLOCKS_AT_ONCE).min(plane.units());
        let starts: Vec<usize> = (first..end).step_by(per_block).collect();
        let blocks: Vec<(usize, Vec<f32>)> = starts
            .into_par_iter()
            .map(|start| {
                let rows = start..(start + per_block).min(end);
                let tiles = rows.len() * plane.columns;
                let length = POINTS * (point_stride(tiles, ins) + point_stride(tiles, outs));
                let mut points = buffers::take(length);
                plane.transform_both(instructions, &rows, [input, output_gradient], &mut points);
                (tiles, points)
            })
            .collect();
        sums.par_chunks_exact_mut(ins * outs).enumerate().for_each(|(point, sums)| {
            for (tiles, points) in &blocks {
                plane.accumulate(instructions, points, point, &origins[..*tiles], sums);
            }
        });
        blocks.into_iter().for_each(|(_, points)| buffers::give(points));
    }
    sums
}

/// The values of one point of some tiles.
fn of_point(points: &[f32], point: usize, channels: usize, tiles: usize) -> &[f32] {
    &points[point * point_stride(tiles, channels)..][..tiles * channels]
}

/// Images of one size, cut into tiles of two by two outputs.
#[derive(Clone, Copy)]
struct Plane {
    images: usize,
    height: usize,
    width: usize,
    /// Channels that are read, and channels that are written.
    channels: [usize; 2],
    /// Tiles down and across.
    rows: usize,
    columns: usize,
}

impl Plane {
    fn new(geometry: &Geometry, channels: [usize; 2]) -> Plane {
        let [height, width] = geometry.input;
        let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
        Plane { images: geometry.batch, height, width, channels, rows, columns }
    }

    /// Writes the points of rows of tiles of images with these channels.
    fn transform<const N: usize, T: IntoPoints<N>>(
        self,
        instructions: Instructions,
        rows: &Range<usize>,
        channels: usize,
        values: &[f32],
        points: &mut [f32],
    ) {
        let (rows, by) = (rows.clone(), PhantomData::<T>);
        instructions.run(Transform { plane: self, channels, rows, values, points, by });
    }

    /// Writes the points of rows of tiles of the input, then of its convolution's gradient.
    fn transform_both(
        self,
        instructions: Instructions,
        rows: &Range<usize>,
        [input, output_gradient]: [&[f32]; 2],
        points: &mut Vec<f32>,
    ) {
        let tiles = rows.len() * self.columns;
        let [of_input, of_gradient] = halves(points, tiles, self.channels);
        let [ins, outs] = self.channels;
        self.transform::<_, OfInput>(instructions, rows, ins, input, of_input);
        self.transform::<_, OfGradient>(instructions, rows, outs, output_gradient, of_gradient);
    }

    /// Adds to `sums` what one point of tiles gives that [`transform_both`](Self::transform_both) has written. `origins` has one number a tile.
    fn accumulate(
        self,
        instructions: Instructions,
        points: &[f32],
        point: usize,
        origins: &[usize],
        sums: &mut [f32],
    ) {
        let ([ins, outs], tiles) = (self.channels, origins.len());
        let (of_input, of_gradient) = points.split_at(POINTS * point_stride(tiles, ins));
        let windows = one_segment(of_point(of_input, point, ins, tiles), origins, ins);
        let gradients = of_point(of_gradient, point, outs, tiles);
        accumulate_weights(instructions, windows, gradients, outs, sums);
    }

    /// Rows of tiles of all images.
    fn units(&self) -> usize {
        self.images * self.rows
    }

    /// Rows of tiles that a task takes.
    fn units_per_task(&self) -> usize {
        let tiles = VALUES_PER_TASK / (POINTS * (self.channels[0] + self.channels[1]));
        let most = (tiles / self.columns).min(self.units().div_ceil(MIN_TASKS));
        // As many as fill the register tiles.
        let step = (1..=WHOLE_TILES)
            .find(|step| (step * self.columns).is_multiple_of(WHOLE_TILES))
            .unwrap_or(1);
        if most >= step { most / step * step } else { most.max(1) }
    }

    /// Where each tile of rows of tiles starts, of as many channels.
    fn offsets(&self, rows: usize, channels: usize) -> Vec<usize> {
        (0..rows * self.columns).map(|tile| tile * channels).collect()
    }

    /// The image of a row of tiles, and its first row of pixels there.
    fn place(&self, unit: usize) -> (usize, usize) {
        (unit / self.rows, unit % self.rows * 2)
    }

    /// Where the pixels of a row of tiles start, of images with these channels; `unit` may be the number of all.
    fn start(&self, unit: usize, channels: usize) -> usize {
        let (image, row) = self.place(unit);
        (image * self.height + row) * self.width * channels
    }
}

/// How the nine weights of two channels lie: from one channel that is read to the next, and from one that is written to the next; turned round or not.
#[derive(Clone, Copy)]
struct Taps {
    strides: [usize; 2],
    turned: bool,
}

impl Taps {
    /// Of the forward pass.
    fn forward(geometry: &Geometry) -> Taps {
        Taps { strides: [TAPS, geometry.in_channels * TAPS], turned: false }
    }

    /// Of the gradient of the input, which reads the channels that the forward pass writes.
    fn backward(geometry: &Geometry) -> Taps {
        Taps { strides: [geometry.in_channels * TAPS, TAPS], turned: true }
    }
}

/// The weights of every point, packed as by [`pack_weights`](super::microkernel::pack_weights) with a window of the channels that are read.
fn transform_weights(
    instructions: Instructions,
    weight: &[f32],
    [ins, outs]: [usize; 2],
    taps: Taps,
) -> Vec<Vec<f32>> {
    let mut points: Vec<Vec<f32>> = (0..POINTS).map(|_| buffers::take(ins * outs)).collect();
    let slices = points.iter_mut().map(Vec::as_mut_slice);
    panels(instructions, [ins, outs], slices).into_par_iter().for_each(|(first, panel)| {
        instructions.run(TransformWeights { weight, taps, first, ins, panel });
    });
    points
}

/// The panels of packed weights, each with the same panel of all points: their first channel, and the slices.
fn panels<'a>(
    instructions: Instructions,
    [ins, outs]: [usize; 2],
    points: impl Iterator<Item = &'a mut [f32]>,
) -> Vec<(usize, Vec<&'a mut [f32]>)> {
    let width = 2 * instructions.width();
    let mut panels: Vec<(usize, Vec<&mut [f32]>)> =
        (0..outs).step_by(width).map(|first| (first, Vec::with_capacity(POINTS))).collect();
    for point in points {
        for ((_, panel), of_point) in panels.iter_mut().zip(point.chunks_mut(ins * width)) {
            panel.push(of_point);
        }
    }
    panels
}

/// Transforms the weights of one panel of channels that are written.
struct TransformWeights<'a> {
    weight: &'a [f32],
    taps: Taps,
    /// The panel's first channel.
    first: usize,
    /// Channels that are read.
    ins: usize,
    /// `[ins, channels of the panel]` of every point.
    panel: Vec<&'a mut [f32]>,
}

impl Kernel for TransformWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const ROWS: usize>(self, lanes: L) {
        let mut panel: [&mut [f32]; POINTS] =
            self.panel.try_into().unwrap_or_else(|_| unreachable!("there are 16 points"));
        const { assert!(L::WIDTH <= LANES, "an array of lanes holds a register") };
        let width = panel[0].len() / self.ins;
        assert!(width.is_multiple_of(L::WIDTH), "channels fill registers");
        let half = lanes.splat(0.5);
        let along = |[a, b, c]: [L::Vector; 3]| {
            let sum = lanes.add(a, c);
            let zero = lanes.splat(0.0);
            let between = lanes.multiply_add(half, lanes.add(sum, b), zero);
            [a, between, lanes.multiply_add(half, lanes.subtract(sum, b), zero), c]
        };
        let [read, written] = self.taps.strides;
        for input in 0..self.ins {
            for channel in (0..width).step_by(L::WIDTH) {
                // The weights of a tap lie far apart from channel to channel.
                let mut gathered = [[0.0_f32; LANES]; TAPS];
                for lane in 0..L::WIDTH {
                    let origin = input * read + (self.first + channel + lane) * written;
                    let weights: &[f32; TAPS] =
                        self.weight[origin..].first_chunk().expect("nine weights");
                    for tap in 0..TAPS {
                        gathered[tap][lane] = weights[tap];
                    }
                }
                let mut taps = [lanes.splat(0.0); TAPS];
                for tap in 0..TAPS {
                    let from = if self.taps.turned { TAPS - 1 - tap } else { tap };
                    taps[tap] = load(lanes, &gathered[from], 0);
                }
                let mut rows = [[lanes.splat(0.0); SIDE]; 3];
                for row in 0..3 {
                    rows[row] = along([taps[3 * row], taps[3 * row + 1], taps[3 * row + 2]]);
                }
                for across in 0..SIDE {
                    let column = along([rows[0][across], rows[1][across], rows[2][across]]);
                    for down in 0..SIDE {
                        let point = &mut panel[down * SIDE + across];
                        let target = &mut point[input * width + channel..][..L::WIDTH];
                        // SAFETY: the slice has as many values as the register.
                        unsafe { lanes.store(target.as_mut_ptr(), column[down]) };
                    }
                }
            }
        }
    }
}

/// Transforms one panel of the points' sums back into the gradient of the weights.
struct WeightsFromPoints<'a> {
    /// `[ins, channels of the panel]` of every point.
    panel: Vec<&'a mut [f32]>,
    /// Channels that are read.
    ins: usize,
    /// `[channels of the panel, ins, 3, 3]`
    gradient: &'a mut [f32],
}

impl Kernel for WeightsFromPoints<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const ROWS: usize>(self, lanes: L) {
        let panel: [&mut [f32]; POINTS] =
            self.panel.try_into().unwrap_or_else(|_| unreachable!("there are 16 points"));
        const { assert!(L::WIDTH <= LANES, "an array of lanes holds a register") };
        let width = panel[0].len() / self.ins;
        assert!(width.is_multiple_of(L::WIDTH), "channels fill registers");
        let half = lanes.splat(0.5);
        let along = |[a, b, c, d]: [L::Vector; SIDE]| {
            let sum = lanes.multiply_add(half, lanes.add(b, c), lanes.splat(0.0));
            let difference = lanes.multiply_add(half, lanes.subtract(b, c), lanes.splat(0.0));
            [lanes.add(a, sum), difference, lanes.add(sum, d)]
        };
        for input in 0..self.ins {
            for channel in (0..width).step_by(L::WIDTH) {
                let mut rows = [[lanes.splat(0.0); 3]; SIDE];
                for down in 0..SIDE {
                    let mut row = [lanes.splat(0.0); SIDE];
                    for across in 0..SIDE {
                        let point = &panel[down * SIDE + across];
                        row[across] = load(lanes, point, input * width + channel);
                    }
                    rows[down] = along(row);
                }
                let mut scattered = [[0.0_f32; LANES]; TAPS];
                for across in 0..3 {
                    let column = std::array::from_fn(|down| rows[down][across]);
                    let column = along(column);
                    for down in 0..3 {
                        let taps = &mut scattered[down * 3 + across];
                        // SAFETY: the array has at least as many values as the register.
                        unsafe { lanes.store(taps.as_mut_ptr(), column[down]) };
                    }
                }
                for lane in 0..L::WIDTH {
                    let origin = ((channel + lane) * self.ins + input) * TAPS;
                    let weights: &mut [f32; TAPS] =
                        self.gradient[origin..].first_chunk_mut().expect("nine weights");
                    for tap in 0..TAPS {
                        weights[tap] = scattered[tap][lane];
                    }
                }
            }
        }
    }
}

/// `output = convolution(input, weights)`, then what `finish` asks for.
fn correlate_tiles(
    instructions: Instructions,
    plane: Plane,
    input: &[f32],
    packed: &[Vec<f32>],
    finish: Finish<'_>,
    output: &mut [f32],
) {
    let [ins, outs] = plane.channels;
    let per_task = plane.units_per_task();
    let (origins, targets) = (plane.offsets(per_task, ins), plane.offsets(per_task, outs));
    let mut tasks = Vec::with_capacity(plane.units().div_ceil(per_task));
    let mut rest = output;
    for start in (0..plane.units()).step_by(per_task) {
        let rows = start..(start + per_task).min(plane.units());
        let length = plane.start(rows.end, outs) - plane.start(rows.start, outs);
        let (own, others) = std::mem::take(&mut rest).split_at_mut(length);
        tasks.push((rows, own));
        rest = others;
    }
    tasks.into_par_iter().for_each(|(rows, output)| {
        let tiles = rows.len() * plane.columns;
        POINTS_OF_TILES.with_borrow_mut(|points| {
            let [of_input, of_output] = halves(points, tiles, plane.channels);
            plane.transform::<_, OfInput>(instructions, &rows, ins, input, of_input);
            let of_outputs = of_output.chunks_exact_mut(point_stride(tiles, outs));
            for (point, (output, packed)) in of_outputs.zip(packed).enumerate() {
                let values = of_point(of_input, point, ins, tiles);
                let windows = one_segment(values, &origins[..tiles], ins);
                let targets = &targets[..tiles];
                let plain = Epilogue::default();
                correlate(instructions, windows, packed, outs, targets, plain, output);
            }
            let channels = outs;
            instructions.run(FromPoints {
                plane,
                channels,
                rows,
                points: of_output,
                finish,
                output,
            });
        });
    });
}

/// Room for the points of tiles, for two numbers of channels.
fn halves(points: &mut Vec<f32>, tiles: usize, channels: [usize; 2]) -> [&mut [f32]; 2] {
    let lengths = channels.map(|channels| POINTS * point_stride(tiles, channels));
    points.resize(points.len().max(lengths[0] + lengths[1]), 0.0);
    let (first, rest) = points.split_at_mut(lengths[0]);
    [first, &mut rest[..lengths[1]]]
}

fn one_segment<'a>(values: &'a [f32], origins: &'a [usize], length: usize) -> Windows<'a> {
    Windows { values, origins, segments: 1, segment_stride: 0, segment_length: length }
}

/// What makes the points of a tile: the same along its rows and its columns.
trait IntoPoints<const N: usize> {
    /// The tile's first place, relative to its first output.
    const FIRST: isize;

    /// From a row or column of places.
    fn line<L: Lanes>(lanes: L, places: [L::Vector; N]) -> [L::Vector; SIDE];
}

/// `Bt d`, of a tile of the input.
struct OfInput;

impl IntoPoints<SIDE> for OfInput {
    const FIRST: isize = -1;

    #[inline(always)]
    fn line<L: Lanes>(lanes: L, [a, b, c, d]: [L::Vector; SIDE]) -> [L::Vector; SIDE] {
        [lanes.subtract(a, c), lanes.add(b, c), lanes.subtract(c, b), lanes.subtract(b, d)]
    }
}

/// `A y`, of the gradient of a tile of the output.
struct OfGradient;

impl IntoPoints<2> for OfGradient {
    const FIRST: isize = 0;

    #[inline(always)]
    fn line<L: Lanes>(lanes: L, [a, b]: [L::Vector; 2]) -> [L::Vector; SIDE] {
        [a, lanes.add(a, b), lanes.subtract(a, b), lanes.subtract(lanes.splat(0.0), b)]
    }
}

/// `At m`
#[inline(always)]
fn output_line<L: Lanes>(lanes: L, [a, b, c, d]: [L::Vector; SIDE]) -> [L::Vector; 2] {
    [lanes.add(lanes.add(a, b), c), lanes.subtract(lanes.subtract(b, c), d)]
}

/// Transforms the places of tiles into points `[POINTS, tiles, channels]`.
struct Transform<'a, const N: usize, T> {
    plane: Plane,
    channels: usize,
    /// Rows of tiles.
    rows: Range<usize>,
    /// All images.
    values: &'a [f32],
    points: &'a mut [f32],
    by: PhantomData<T>,
}

impl<const N: usize, T: IntoPoints<N>> Kernel for Transform<'_, N, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const ROWS: usize>(self, lanes: L) {
        let Plane { height, width, columns, .. } = self.plane;
        let channels = self.channels;
        let stride = point_stride(self.rows.len() * columns, channels);
        assert_eq!(self.points.len(), POINTS * stride, "room for every point");
        assert!(channels.is_multiple_of(L::WIDTH), "channels fill registers");
        let points = self.points.as_mut_ptr();
        let zeros = vec![0.0; channels];
        for (index, unit) in self.rows.enumerate() {
            let (image, row) = self.plane.place(unit);
            let length = height * width * channels;
            let image = &self.values[image * length..][..length];
            for column in 0..columns {
                let places: [[&[f32]; N]; N] = std::array::from_fn(|down| {
                    let y = (row + down).wrapping_add_signed(T::FIRST);
                    std::array::from_fn(|across| {
                        let x = (column * 2 + across).wrapping_add_signed(T::FIRST);
                        if y < height && x < width {
                            &image[(y * width + x) * channels..][..channels]
                        } else {
                            &zeros[..]
                        }
                    })
                });
                let tile = (index * columns + column) * channels;
                for channel in (0..channels).step_by(L::WIDTH) {
                    let mut rows = [[lanes.splat(0.0); SIDE]; N];
                    for down in 0..N {
                        let mut row = [lanes.splat(0.0); N];
                        for across in 0..N {
                            let place = places[down][across].as_ptr();
                            // SAFETY: every place has `channels` values, a multiple of the register's.
                            row[across] = unsafe { lanes.load(place.add(channel)) };
                        }
                        rows[down] = T::line(lanes, row);
                    }
                    for across in 0..SIDE {
                        let mut column = [lanes.splat(0.0); N];
                        for down in 0..N {
                            column[down] = rows[down][across];
                        }
                        let column = T::line(lanes, column);
                        for down in 0..SIDE {
                            let point = (down * SIDE + across) * stride;
                            // SAFETY: the tile is one of these rows', and there is room for every point of it.
                            unsafe {
                                lanes.store(points.add(point + tile + channel), column[down])
                            };
                        }
                    }
                }
            }
        }
    }
}

/// Transforms points back into outputs.
struct FromPoints<'a> {
    plane: Plane,
    channels: usize,
    rows: Range<usize>,
    points: &'a [f32],
    finish: Finish<'a>,
    /// The outputs of these rows of tiles.
    output: &'a mut [f32],
}

impl Kernel for FromPoints<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes, const ROWS: usize>(self, lanes: L) {
        let Plane { height, width, columns, .. } = self.plane;
        let channels = self.channels;
        let stride = point_stride(self.rows.len() * columns, channels);
        assert_eq!(self.points.len(), POINTS * stride, "every point is there");
        assert!(channels.is_multiple_of(L::WIDTH), "channels fill registers");
        let first = self.plane.start(self.rows.start, channels);
        let Finish { bias, residual, relu } = self.finish;
        for (index, unit) in self.rows.enumerate() {
            let (_, row) = self.plane.place(unit);
            let start = self.plane.start(unit, channels);
            for column_of_tiles in 0..columns {
                let tile = (index * columns + column_of_tiles) * channels;
                for channel in (0..channels).step_by(L::WIDTH) {
                    let mut rows = [[lanes.splat(0.0); 2]; SIDE];
                    for down in 0..SIDE {
                        let mut row = [lanes.splat(0.0); SIDE];
                        for across in 0..SIDE {
                            let point = (down * SIDE + across) * stride;
                            // SAFETY: the tile is one of these rows', and all its points are there.
                            row[across] = unsafe {
                                lanes.load(self.points.as_ptr().add(point + tile + channel))
                            };
                        }
                        rows[down] = output_line(lanes, row);
                    }
                    for across in 0..2 {
                        let column = std::array::from_fn(|down| rows[down][across]);
                        let column = output_line(lanes, column);
                        for down in 0..2 {
                            if row + down >= height || column_of_tiles * 2 + across >= width {
                                continue;
                            }
                            let place = start
                                + (down * width + column_of_tiles * 2 + across) * channels
                                + channel;
                            let mut values = column[down];
                            if let Some(bias) = bias {
                                values = lanes.add(values, load(lanes, bias, channel));
                            }
                            if let Some(residual) = residual {
                                values = lanes.add(values, load(lanes, residual, place));
                            }
                            if relu {
                                values = lanes.relu(values);
                            }
                            let target = &mut self.output[place - first..][..L::WIDTH];
                            // SAFETY: the slice has as many values as the register.
                            unsafe { lanes.store(target.as_mut_ptr(), values) };
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn load<L: Lanes>(lanes: L, values: &[f32], start: usize) -> L::Vector {
    let values = &values[start..][..L::WIDTH];
    // SAFETY: the slice has as many values as the register.
    unsafe { lanes.load(values.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_summing_a_weight_gradient_agree_over_many_blocks() {
        let geometry = Geometry {
            batch: 37,
            in_channels: 32,
            out_channels: 48,
            input: [14, 13],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
        };
        let plane = Plane::new(&geometry, [32, 48]);
        let blocks = plane.units().div_ceil(TILES_PER_PART.div_ceil(plane.columns));
        assert!(blocks > 3 * BLOCKS_AT_ONCE && !blocks.is_multiple_of(BLOCKS_AT_ONCE));
        let numbers = |count: usize, factor: usize| -> Vec<f32> {
            (0..count).map(|index| (index * factor % 1013) as f32 / 1013.0 - 0.5).collect()
        };
        let x = numbers(37 * 14 * 13 * 32, 7919);
        let gradient = numbers(geometry.output_values(), 6133);
        for set in Instructions::available() {
            let by_parts = sums_by_parts(set, plane, &x, &gradient);
            let by_points = sums_by_points(set, plane, &x, &gradient);
            assert_eq!(by_parts.len(), by_points.len());
            let largest = by_parts.iter().fold(0.0_f32, |largest, sum| largest.max(sum.abs()));
            for (a, b) in by_parts.iter().zip(&by_points) {
                assert!((a - b).abs() < 1e-4 * largest, "{a} and {b}, of up to {largest}");
            }
        }
    }
}
