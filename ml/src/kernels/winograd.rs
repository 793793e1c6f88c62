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
//! a fixed number a task, so results are the same bits with any number of threads, and for an image alone as in a batch. Rounding differs from the
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
use super::convolution::{Finish, Geometry};
use super::microkernel::{
    Epilogue, WeightLayout, Windows, accumulate_weights, correlate, pack_weights, padded_channels,
    unpack_weights,
};
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

/// Fewer channels than this are transformed for longer than they save.
const MIN_CHANNELS: usize = 32;

/// Values of the transformed input and output that one task holds at most, about; they should stay in the cache of a core.
const VALUES_PER_TASK: usize = 192 << 10;

/// Tasks that a batch should be divided into at least.
const MIN_TASKS: usize = 16;

/// The register tile of every instruction set divides this number of tiles.
const WHOLE_TILES: usize = 12;

/// Partial sums of a weight gradient at most, and the tiles that each is worth.
const WEIGHT_GRADIENT_PARTS: usize = 16;
const TILES_PER_PART: usize = 64;

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

/// See [`convolution::forward`](super::convolution::forward).
pub(super) fn forward(
    instructions: Instructions,
    geometry: &Geometry,
    input: &[f32],
    weight: &[f32],
    finish: Finish<'_>,
    output: &mut [f32],
) {
    if let Some(bias) = finish.bias {
        assert_eq!(bias.len(), geometry.out_channels, "bias");
    }
    let origin = |input: usize, output: usize| geometry.weight_index(output, input, 0, 0);
    let channels = [geometry.in_channels, geometry.out_channels];
    let packed = transform_weights(instructions, weight, channels, origin, false);
    correlate_tiles(instructions, Plane::new(geometry, channels), input, &packed, finish, output);
    packed.into_iter().for_each(buffers::give);
}

/// See [`convolution::input_gradient`](super::convolution::input_gradient).
pub(super) fn input_gradient(
    instructions: Instructions,
    geometry: &Geometry,
    weight: &[f32],
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    let origin = |output: usize, input: usize| geometry.weight_index(output, input, 0, 0);
    let channels = [geometry.out_channels, geometry.in_channels];
    let packed = transform_weights(instructions, weight, channels, origin, true);
    let plane = Plane::new(geometry, channels);
    let finish = Finish::default();
    correlate_tiles(instructions, plane, output_gradient, &packed, finish, input_gradient);
    packed.into_iter().for_each(buffers::give);
}

/// See [`convolution::weight_gradient`](super::convolution::weight_gradient).
pub(super) fn weight_gradient(
    instructions: Instructions,
    geometry: &Geometry,
    input: &[f32],
    output_gradient: &[f32],
    weight_gradient: &mut [f32],
) {
    let [ins, outs] = [geometry.in_channels, geometry.out_channels];
    let plane = Plane::new(geometry, [ins, outs]);
    let sums_length = ins * padded_channels(instructions, outs);
    let units = plane.units();
    let parts = (units * plane.columns).div_ceil(TILES_PER_PART).clamp(1, WEIGHT_GRADIENT_PARTS);
    let per_part = units.div_ceil(parts);
    let per_task = plane.units_per_task().min(per_part);
    let origins = |channels: usize| -> Vec<usize> {
        (0..per_task * plane.columns).map(|tile| tile * channels).collect()
    };
    let origins = origins(ins);
    let parts: Vec<Vec<f32>> = (0..units.div_ceil(per_part))
        .into_par_iter()
        .map(|part| {
            let mut sums = buffers::take(POINTS * sums_length);
            sums.fill(0.0);
            let end = ((part + 1) * per_part).min(units);
            for start in (part * per_part..end).step_by(per_task) {
                let rows = start..(start + per_task).min(end);
                let tiles = rows.len() * plane.columns;
                POINTS_OF_TILES.with_borrow_mut(|points| {
                    let [of_input, of_gradient] = halves(points, tiles, [ins, outs]);
                    plane.transform(instructions, OfInput, &rows, input, of_input);
                    plane.transform(instructions, OfGradient, &rows, output_gradient, of_gradient);
                    let of_input = of_input.chunks_exact(point_stride(tiles, ins));
                    let of_gradient = of_gradient.chunks_exact(point_stride(tiles, outs));
                    let sums = sums.chunks_exact_mut(sums_length);
                    for ((values, gradients), sums) in of_input.zip(of_gradient).zip(sums) {
                        let windows = one_segment(values, &origins[..tiles], ins);
                        let gradients = &gradients[..tiles * outs];
                        accumulate_weights(instructions, windows, gradients, outs, sums);
                    }
                });
            }
            sums
        })
        .collect();

    // Each value is summed over the parts in their order, so it does not matter how the values are shared out.
    let mut parts = parts.into_iter();
    let mut total = parts.next().expect("a batch that is not empty has a first part");
    let parts: Vec<Vec<f32>> = parts.collect();
    total.par_chunks_mut(sums_length).enumerate().for_each(|(point, total)| {
        for part in &parts {
            let part = &part[point * sums_length..][..sums_length];
            total.iter_mut().zip(part).for_each(|(sum, &value)| *sum += value);
        }
    });
    parts.into_iter().for_each(buffers::give);
    let layout = point_layout([ins, outs]);
    let mut plain = buffers::take(POINTS * ins * outs);
    plain
        .par_chunks_exact_mut(ins * outs)
        .zip(total.par_chunks_exact(sums_length))
        .for_each(|(plain, packed)| unpack_weights(instructions, packed, &layout, plain));
    buffers::give(total);
    // Weights of one output channel lie together; points of one input and all output channels do.
    weight_gradient.par_chunks_exact_mut(ins * 9).enumerate().for_each(|(output, target)| {
        for (input, target) in target.as_chunks_mut::<9>().0.iter_mut().enumerate() {
            let at = input * outs + output;
            *target =
                gradient_of_weights(std::array::from_fn(|point| plain[point * ins * outs + at]));
        }
    });
    buffers::give(plain);
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

    /// Writes the points of rows of tiles.
    fn transform<const N: usize, T: IntoPoints<N>>(
        self,
        instructions: Instructions,
        _: T,
        rows: &Range<usize>,
        values: &[f32],
        points: &mut [f32],
    ) {
        let channels = (points.len() / POINTS - LANES) / (rows.len() * self.columns);
        let (rows, by) = (rows.clone(), PhantomData::<T>);
        instructions.run(Transform { plane: self, channels, rows, values, points, by });
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

/// Where the values of a point lie: input channel by input channel.
fn point_layout(channels: [usize; 2]) -> WeightLayout<impl Fn(usize) -> usize + Sync> {
    let [ins, outs] = channels;
    WeightLayout {
        window_length: ins,
        channels: outs,
        channel_stride: 1,
        origin: move |position| position * outs,
    }
}

/// The packed weights of every point. `origin` says where the nine weights of two channels start, the one that is read and the one that is written.
fn transform_weights(
    instructions: Instructions,
    weight: &[f32],
    channels: [usize; 2],
    origin: impl Fn(usize, usize) -> usize + Sync,
    turned: bool,
) -> Vec<Vec<f32>> {
    let [ins, outs] = channels;
    let mut plain = buffers::take(POINTS * ins * outs);
    // Row by row of all points, because points lie far apart.
    let mut rows: Vec<Vec<&mut [f32]>> = (0..ins).map(|_| Vec::with_capacity(POINTS)).collect();
    for point in plain.chunks_exact_mut(ins * outs) {
        for (rows, row) in rows.iter_mut().zip(point.chunks_exact_mut(outs)) {
            rows.push(row);
        }
    }
    rows.into_par_iter().enumerate().with_min_len(8).for_each(|(input, mut rows)| {
        for output in 0..outs {
            let mut taps: [f32; 9] = std::array::from_fn(|tap| weight[origin(input, output) + tap]);
            if turned {
                taps.reverse();
            }
            for (row, value) in rows.iter_mut().zip(weight_points(taps)) {
                row[output] = value;
            }
        }
    });
    let layout = point_layout(channels);
    let packed = plain
        .par_chunks_exact(ins * outs)
        .map(|point| pack_weights(instructions, point, &layout))
        .collect();
    buffers::give(plain);
    packed
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
    let offsets = |channels: usize| -> Vec<usize> {
        (0..per_task * plane.columns).map(|tile| tile * channels).collect()
    };
    let (origins, targets) = (offsets(ins), offsets(outs));
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
            plane.transform(instructions, OfInput, &rows, input, of_input);
            let of_both = of_input
                .chunks_exact(point_stride(tiles, ins))
                .zip(of_output.chunks_exact_mut(point_stride(tiles, outs)))
                .zip(packed);
            for ((values, output), packed) in of_both {
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

/// `G g Gt`
fn weight_points(taps: [f32; 9]) -> [f32; POINTS] {
    let along = |a: f32, b: f32, c: f32| [a, 0.5 * (a + c + b), 0.5 * (a + c - b), c];
    let rows: [[f32; SIDE]; 3] =
        std::array::from_fn(|row| along(taps[3 * row], taps[3 * row + 1], taps[3 * row + 2]));
    let columns: [[f32; SIDE]; SIDE] =
        std::array::from_fn(|column| along(rows[0][column], rows[1][column], rows[2][column]));
    std::array::from_fn(|point| columns[point % SIDE][point / SIDE])
}

/// `Gt s G`
fn gradient_of_weights(points: [f32; POINTS]) -> [f32; 9] {
    let along =
        |a: f32, b: f32, c: f32, d: f32| [a + 0.5 * (b + c), 0.5 * (b - c), 0.5 * (b + c) + d];
    let rows: [[f32; 3]; SIDE] = std::array::from_fn(|row| {
        let at = |column: usize| points[row * SIDE + column];
        along(at(0), at(1), at(2), at(3))
    });
    let columns: [[f32; 3]; 3] = std::array::from_fn(|column| {
        along(rows[0][column], rows[1][column], rows[2][column], rows[3][column])
    });
    std::array::from_fn(|tap| columns[tap % 3][tap / 3])
}
