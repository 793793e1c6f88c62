//! Convolutions of channels-last images on a GPU: forward with all that follows it, and both gradients, as products of matrices whose tiles lie in shared memory.
//!
//! Burn's convolutions are tuned among ways that suit large images; for a batch of small ones its tuner ends at a kernel that computes each number alone. The figures are in
//! `docs/learning.md`.
//!
//! All three are a product over the kernel's *taps*, its places: for each tap the rows of one matrix are pixels, shifted by the tap, and their channels are
//! what is summed over.
//!
//! | | rows | columns | summed over |
//! | --- | --- | --- | --- |
//! | forward | places of the output | its channels | taps, channels of the input |
//! | gradient of the input | places of the input | its channels | taps, channels of the output |
//! | gradient of the weights, for each tap | channels of the output | channels of the input | places of the output |
//!
//! The first two are one kernel. With a stride the input's places fall into classes by their remainder: those of a class are reached by the same taps, and
//! by no other, so that a class is a product without gaps.
//!
//! Sums and products are of 32-bit numbers, in an order that does not depend on anything but the shapes; images and their gradients may have 16 ([`half`]).

use burn::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::half;
use super::tensors::{element, like, like_of, spread};
use crate::kernels::Convolution;

/// Rows and columns of a tile of the product, and how much of the sum is done at a time.
const ROWS: usize = 64;
const COLUMNS: usize = 32;
const DEPTH: usize = 16;
/// Rows and columns of a unit.
const SIDE: usize = 4;
/// Units of a cube.
const UNITS: usize = ROWS * COLUMNS / (SIDE * SIDE);
/// Units side by side.
const ACROSS: usize = COLUMNS / SIDE;
/// A line of a tile in shared memory: one more than its numbers, so that lines begin in different banks.
const ROWS_LINE: usize = ROWS + 1;
const COLUMNS_LINE: usize = COLUMNS + 1;

/// A side of a tile of the weights' gradient, its units, and the places whose sources are found at a time.
const TILE: usize = 32;
const TILE_LINE: usize = TILE + 1;
const TILE_ACROSS: usize = TILE / SIDE;
const TILE_UNITS: usize = TILE_ACROSS * TILE_ACROSS;
const PLACES: usize = TILE_UNITS;
/// Cubes that the gradient of the weights is dealt to, about, and most parts of a sum.
const CUBES: usize = 1024;
const MOST_PARTS: usize = 128;

/// Stands for a pixel outside of the image.
const OUTSIDE: u32 = u32::MAX;

/// The shapes of one product; all but the number of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Form {
    /// Whether this is the gradient of the input: `from` is then the output's, `to` the input's.
    backward: bool,
    /// Height, width and channels of what is read, and of what is written.
    from_height: usize,
    from_width: usize,
    from_channels: usize,
    to_height: usize,
    to_width: usize,
    to_channels: usize,
    kernel_height: usize,
    kernel_width: usize,
    stride_down: usize,
    stride_across: usize,
    border_down: usize,
    border_across: usize,
}

/// What is done to the sums of a forward convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct After {
    adds_bias: bool,
    adds_residual: bool,
    relu: bool,
}

#[cube(launch)]
fn multiply<E: Float>(
    from: &[E],
    weight: &[f32],
    bias: &[f32],
    residual: &[E],
    to: &mut [E],
    images: u32,
    #[comptime] form: Form,
    #[comptime] after: After,
    #[comptime] is_half: bool,
    #[define(E)] _element: ElemType,
) {
    let mut rows_tile = Shared::<[f32]>::new_slice(DEPTH * ROWS_LINE);
    let mut columns_tile = Shared::<[f32]>::new_slice(DEPTH * COLUMNS_LINE);
    let mut sources = Shared::<[u32]>::new_slice(ROWS);
    let unit = UNIT_POS as usize;

    // The rows of the product are dealt along two axes, its columns and the classes along the third.
    let first_row = (CUBE_POS_Y as usize * CUBE_COUNT_X as usize + CUBE_POS_X as usize) * ROWS;
    let column_tiles = comptime!(form.to_channels.div_ceil(COLUMNS));
    let column = CUBE_POS_Z as usize % column_tiles * COLUMNS;
    let class = CUBE_POS_Z as usize / column_tiles;

    // The class, its first tap, and the steps from tap to tap.
    let step_down = comptime!(if form.backward { form.stride_down } else { 1 });
    let step_across = comptime!(if form.backward { form.stride_across } else { 1 });
    let class_down = class / step_across;
    let class_across = class % step_across;
    let first_down =
        (class_down + comptime!(if form.backward { form.border_down } else { 0 })) % step_down;
    let first_across = (class_across
        + comptime!(if form.backward { form.border_across } else { 0 }))
        % step_across;

    // The place that this unit finds the sources of.
    let height = comptime!(if form.backward {
        form.to_height.div_ceil(form.stride_down)
    } else {
        form.to_height
    });
    let width = comptime!(if form.backward {
        form.to_width.div_ceil(form.stride_across)
    } else {
        form.to_width
    });
    let rows = images as usize * comptime!(height * width);
    let row = first_row + unit;
    let image = row / comptime!(height * width);
    let down = (row % comptime!(height * width)) / width * step_down + class_down;
    let across = row % width * step_across + class_across;

    let unit_row = unit / ACROSS * SIDE;
    let unit_column = unit % ACROSS * SIDE;
    let mut sums = Array::<f32>::new(SIDE * SIDE);
    #[unroll]
    for place in 0..SIDE * SIDE {
        sums[place] = 0.0f32;
    }

    let mut tap_down = first_down;
    while tap_down < form.kernel_height {
        let mut tap_across = first_across;
        while tap_across < form.kernel_width {
            if unit < ROWS {
                let mut source = u32::new(OUTSIDE as i64);
                if row < rows {
                    source = find(image, down, across, tap_down, tap_across, form);
                }
                sources[unit] = source;
            }
            sync_cube();
            let mut block = 0usize;
            while block < form.from_channels {
                let depth = unit % DEPTH;
                let channel = block + depth;
                #[unroll]
                for pass in 0..ROWS * DEPTH / UNITS {
                    let line = pass * (UNITS / DEPTH) + unit / DEPTH;
                    let source = sources[line];
                    let mut value = 0.0f32;
                    if source != OUTSIDE && channel < form.from_channels {
                        value =
                            f32::cast_from(from[source as usize * form.from_channels + channel]);
                    }
                    rows_tile[depth * ROWS_LINE + line] = value;
                }
                #[unroll]
                for pass in 0..COLUMNS * DEPTH / UNITS {
                    let line = pass * (UNITS / DEPTH) + unit / DEPTH;
                    let target = column + line;
                    let mut value = 0.0f32;
                    if target < form.to_channels && channel < form.from_channels {
                        let tap = tap_down * form.kernel_width + tap_across;
                        let taps = comptime!(form.kernel_height * form.kernel_width);
                        let pair = if comptime!(form.backward) {
                            channel * form.to_channels + target
                        } else {
                            target * form.from_channels + channel
                        };
                        value = weight[pair * taps + tap];
                    }
                    columns_tile[depth * COLUMNS_LINE + line] = value;
                }
                sync_cube();
                add_products(
                    &rows_tile,
                    &columns_tile,
                    &mut sums,
                    unit_row,
                    unit_column,
                    [ROWS_LINE, COLUMNS_LINE],
                );
                sync_cube();
                block += DEPTH;
            }
            tap_across += step_across;
        }
        tap_down += step_down;
    }

    #[unroll]
    for line in 0..SIDE {
        let row = first_row + unit_row + line;
        let image = row / comptime!(height * width);
        let down = (row % comptime!(height * width)) / width * step_down + class_down;
        let across = row % width * step_across + class_across;
        if row < rows && down < form.to_height && across < form.to_width {
            let place =
                ((image * form.to_height + down) * form.to_width + across) * form.to_channels;
            #[unroll]
            for next in 0..SIDE {
                let channel = column + unit_column + next;
                if channel < form.to_channels {
                    let mut value = sums[line * SIDE + next];
                    if comptime!(after.adds_bias) {
                        value += bias[channel];
                    }
                    if comptime!(after.adds_residual) {
                        value += f32::cast_from(residual[place + channel]);
                    }
                    if comptime!(after.relu) {
                        value = f32::max(value, 0.0);
                    }
                    to[place + channel] = if comptime!(form.backward) {
                        half::gradient::<E>(value, is_half)
                    } else {
                        E::cast_from(value)
                    };
                }
            }
        }
    }
}

/// Adds, over the depth of two tiles, the products of a unit's rows and columns; `lines` are how many numbers a line of each tile takes.
#[cube]
fn add_products(
    rows: &[f32],
    columns: &[f32],
    sums: &mut Array<f32>,
    row: usize,
    column: usize,
    #[comptime] lines: [usize; 2],
) {
    for depth in 0..DEPTH {
        let mut factors = Array::<f32>::new(SIDE);
        #[unroll]
        for across in 0..SIDE {
            factors[across] = columns[depth * comptime!(lines[1]) + column + across];
        }
        #[unroll]
        for down in 0..SIDE {
            let value = rows[depth * comptime!(lines[0]) + row + down];
            #[unroll]
            for across in 0..SIDE {
                sums[down * SIDE + across] += value * factors[across];
            }
        }
    }
}

/// The pixel that a tap reads for a place, or [`OUTSIDE`].
#[cube]
fn find(
    image: usize,
    down: usize,
    across: usize,
    tap_down: usize,
    tap_across: usize,
    #[comptime] form: Form,
) -> u32 {
    let mut source = u32::new(OUTSIDE as i64);
    if comptime!(form.backward) {
        // The class has taps that leave no remainder.
        let from_down = down + form.border_down;
        let from_across = across + form.border_across;
        if down < form.to_height
            && across < form.to_width
            && from_down >= tap_down
            && from_across >= tap_across
        {
            let from_down = (from_down - tap_down) / form.stride_down;
            let from_across = (from_across - tap_across) / form.stride_across;
            if from_down < form.from_height && from_across < form.from_width {
                source =
                    ((image * form.from_height + from_down) * form.from_width + from_across) as u32;
            }
        }
    } else {
        let from_down = down * form.stride_down + tap_down;
        let from_across = across * form.stride_across + tap_across;
        if from_down >= form.border_down && from_across >= form.border_across {
            let from_down = from_down - form.border_down;
            let from_across = from_across - form.border_across;
            if from_down < form.from_height && from_across < form.from_width {
                source =
                    ((image * form.from_height + from_down) * form.from_width + from_across) as u32;
            }
        }
    }
    source
}

/// A part of the sum over places for a tap and a tile of the weights' gradient: `sums` is `[parts, outputs, inputs, taps]`. The form is that of the forward
/// convolution.
#[cube(launch)]
fn multiply_places<E: Float>(
    x: &[E],
    gradient: &[E],
    sums: &mut [f32],
    images: u32,
    places_of_part: u32,
    scale: f32,
    #[comptime] form: Form,
    #[define(E)] _element: ElemType,
) {
    let mut outputs_tile = Shared::<[f32]>::new_slice(DEPTH * TILE_LINE);
    let mut inputs_tile = Shared::<[f32]>::new_slice(DEPTH * TILE_LINE);
    let mut sources = Shared::<[u32]>::new_slice(PLACES);
    let unit = UNIT_POS as usize;
    let taps = comptime!(form.kernel_height * form.kernel_width);
    let tap = CUBE_POS_Y as usize % taps;
    let tile = CUBE_POS_Y as usize / taps;
    let tiles_across = comptime!(form.from_channels.div_ceil(TILE));
    let first_output = tile / tiles_across * TILE;
    let first_input = tile % tiles_across * TILE;

    let area = comptime!(form.to_height * form.to_width);
    let places = images as usize * area;
    let part = CUBE_POS_X as usize;
    let end = usize::min((part + 1) * places_of_part as usize, places);
    let unit_row = unit / TILE_ACROSS * SIDE;
    let unit_column = unit % TILE_ACROSS * SIDE;
    let mut found = Array::<f32>::new(SIDE * SIDE);
    #[unroll]
    for place in 0..SIDE * SIDE {
        found[place] = 0.0f32;
    }

    let mut first = part * places_of_part as usize;
    while first < end {
        let place = first + unit;
        let mut source = u32::new(OUTSIDE as i64);
        if place < end {
            let down = place % area / form.to_width;
            let across = place % form.to_width;
            source = find(
                place / area,
                down,
                across,
                tap / form.kernel_width,
                tap % form.kernel_width,
                form,
            );
        }
        sources[unit] = source;
        sync_cube();
        let mut block = 0usize;
        while block < PLACES {
            let lane = unit % TILE;
            #[unroll]
            for pass in 0..DEPTH * TILE / TILE_UNITS {
                let line = pass * (TILE_UNITS / TILE) + unit / TILE;
                let source = sources[block + line];
                let place = first + block + line;
                let mut output = 0.0f32;
                let mut input = 0.0f32;
                // Where there is no pixel there is nothing to multiply the gradient by.
                if source != OUTSIDE {
                    if first_output + lane < form.to_channels {
                        let place = place * form.to_channels + first_output + lane;
                        output = f32::cast_from(gradient[place]);
                    }
                    if first_input + lane < form.from_channels {
                        let place = source as usize * form.from_channels + first_input + lane;
                        input = f32::cast_from(x[place]);
                    }
                }
                outputs_tile[line * TILE_LINE + lane] = output;
                inputs_tile[line * TILE_LINE + lane] = input;
            }
            sync_cube();
            add_products(
                &outputs_tile,
                &inputs_tile,
                &mut found,
                unit_row,
                unit_column,
                [TILE_LINE, TILE_LINE],
            );
            sync_cube();
            block += DEPTH;
        }
        first += PLACES;
    }

    let weights = comptime!(form.to_channels * form.from_channels) * taps;
    #[unroll]
    for down in 0..SIDE {
        let output = first_output + unit_row + down;
        #[unroll]
        for across in 0..SIDE {
            let input = first_input + unit_column + across;
            if output < form.to_channels && input < form.from_channels {
                let place = (output * form.from_channels + input) * taps + tap;
                sums[part * weights + place] = found[down * SIDE + across] / scale;
            }
        }
    }
}

/// Adds up the parts of the weights' gradient: a cube has [`LANES`] numbers, and [`LINES`] units for each.
#[cube(launch)]
fn add_parts(sums: &[f32], output: &mut [f32], parts: u32) {
    let mut shared = Shared::<[f32]>::new_slice(LANES * LINES);
    let lane = UNIT_POS_X as usize;
    let line = UNIT_POS_Y as usize;
    let length = output.len();
    let place = CUBE_POS_X as usize * LANES + lane;
    let mut sum = 0.0f32;
    if place < length {
        let mut part = line;
        while part < parts as usize {
            sum += sums[part * length + place];
            part += LINES;
        }
    }
    shared[line * LANES + lane] = sum;
    sync_cube();
    if line == 0 && place < length {
        let mut sum = 0.0f32;
        #[unroll]
        for line in 0..LINES {
            sum += shared[line * LANES + lane];
        }
        output[place] = sum;
    }
}

const LANES: usize = 32;
const LINES: usize = 8;

/// A convolution's shapes, with the number of images.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    images: usize,
    /// Forward.
    form: Form,
}

impl Geometry {
    /// # Panics
    ///
    /// If the channels differ or the kernel is larger than the image with its border.
    pub(super) fn new(x: &CubeTensor, weight: &CubeTensor, options: Convolution) -> Self {
        let [images, from_height, from_width, from_channels] = x.meta.shape().dims();
        let [to_channels, weight_channels, kernel_height, kernel_width] =
            weight.meta.shape().dims();
        assert_eq!(from_channels, weight_channels, "the input has as many channels as the weights");
        let [stride_down, stride_across] = options.stride;
        let [border_down, border_across] = options.padding;
        let size = |from: usize, border: usize, kernel: usize, stride: usize| {
            let inside = (from + 2 * border).checked_sub(kernel);
            inside.expect("the kernel fits into the image with its border") / stride + 1
        };
        let form = Form {
            backward: false,
            from_height,
            from_width,
            from_channels,
            to_height: size(from_height, border_down, kernel_height, stride_down),
            to_width: size(from_width, border_across, kernel_width, stride_across),
            to_channels,
            kernel_height,
            kernel_width,
            stride_down,
            stride_across,
            border_down,
            border_across,
        };
        Self { images, form }
    }

    /// The form of the way back: what was written is read.
    fn backward(&self) -> Form {
        Form {
            backward: true,
            from_height: self.form.to_height,
            from_width: self.form.to_width,
            from_channels: self.form.to_channels,
            to_height: self.form.from_height,
            to_width: self.form.from_width,
            to_channels: self.form.from_channels,
            ..self.form
        }
    }
}

/// The convolution, its bias and residual added, and ReLU after it.
pub(super) fn forward(
    geometry: Geometry,
    x: CubeTensor,
    weight: CubeTensor,
    bias: Option<CubeTensor>,
    residual: Option<CubeTensor>,
    relu: bool,
) -> CubeTensor {
    let after = After { adds_bias: bias.is_some(), adds_residual: residual.is_some(), relu };
    product(geometry.images, geometry.form, x, weight, bias, residual, after)
}

/// The gradient of the input.
pub(super) fn input_gradient(
    geometry: Geometry,
    gradient: CubeTensor,
    weight: CubeTensor,
) -> CubeTensor {
    let after = After::default();
    product(geometry.images, geometry.backward(), gradient, weight, None, None, after)
}

fn product(
    images: usize,
    form: Form,
    from: CubeTensor,
    weight: CubeTensor,
    bias: Option<CubeTensor>,
    residual: Option<CubeTensor>,
    after: After,
) -> CubeTensor {
    let [from, weight] = [from, weight].map(into_contiguous);
    let (element, is_half) = (element(&from), half::is_half(&from));
    let shape = [images, form.to_height, form.to_width, form.to_channels];
    if let Some(residual) = &residual {
        let dims: [usize; 4] = residual.meta.shape().dims();
        assert_eq!(dims, shape, "the residual has the shape of the result");
    }
    let to = like_of(&from, shape, from.dtype);
    let (classes, height, width) = if form.backward {
        (
            form.stride_down * form.stride_across,
            form.to_height.div_ceil(form.stride_down),
            form.to_width.div_ceil(form.stride_across),
        )
    } else {
        (1, form.to_height, form.to_width)
    };
    let rows = images * height * width;
    // A kernel has all of its arguments; those that it does not read may be any.
    let any =
        |tensor: Option<CubeTensor>| into_contiguous(tensor.unwrap_or_else(|| weight.clone()));
    let [x, y] = spread(rows.div_ceil(ROWS));
    let z = form.to_channels.div_ceil(COLUMNS) * classes;
    multiply::launch(
        &from.client.clone(),
        CubeCount::Static(x, y, z as u32),
        CubeDim::new_1d(UNITS as u32),
        from.into_buffer_arg(),
        weight.clone().into_buffer_arg(),
        any(bias).into_buffer_arg(),
        any(residual).into_buffer_arg(),
        to.clone().into_buffer_arg(),
        images as u32,
        form,
        after,
        is_half,
        element,
    );
    to
}

/// The gradient of the weights, `[outputs, inputs, height, width]`.
pub(super) fn weight_gradient(
    geometry: Geometry,
    x: CubeTensor,
    gradient: CubeTensor,
) -> CubeTensor {
    let Geometry { images, form } = geometry;
    let [x, gradient] = [x, gradient].map(into_contiguous);
    let taps = form.kernel_height * form.kernel_width;
    let shape = [form.to_channels, form.from_channels, form.kernel_height, form.kernel_width];
    let tiles = form.to_channels.div_ceil(TILE) * form.from_channels.div_ceil(TILE);
    let places = images * form.to_height * form.to_width;
    let most_parts = (CUBES / (tiles * taps)).clamp(1, MOST_PARTS);
    let places_of_part = places.div_ceil(most_parts).next_multiple_of(PLACES);
    let parts = places.div_ceil(places_of_part);
    let client = x.client.clone();
    let (element, scale) = (element(&gradient), half::scale(&gradient));
    let output = like(&x, shape);
    let sums = match parts {
        1 => output.clone(),
        _ => like(&x, [parts, shape.iter().product()]),
    };
    multiply_places::launch(
        &client,
        CubeCount::Static(parts as u32, (tiles * taps) as u32, 1),
        CubeDim::new_1d(TILE_UNITS as u32),
        x.into_buffer_arg(),
        gradient.into_buffer_arg(),
        sums.clone().into_buffer_arg(),
        images as u32,
        places_of_part as u32,
        scale,
        form,
        element,
    );
    if parts > 1 {
        add_parts::launch(
            &client,
            CubeCount::Static(shape.iter().product::<usize>().div_ceil(LANES) as u32, 1, 1),
            CubeDim::new_2d(LANES as u32, LINES as u32),
            sums.into_buffer_arg(),
            output.clone().into_buffer_arg(),
            parts as u32,
        );
    }
    output
}
