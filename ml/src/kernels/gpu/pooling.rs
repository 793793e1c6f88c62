//! Pooling on a GPU, one launch forward and one back: the mean over an image, where an encoder ends, and with it what is kept in [half precision](super::half);
//! and the largest of 3x3 places behind a stem, of which [`pooling`](crate::kernels::pooling) says more.

use burn::backend::Cube;
use burn::cubecl::{self, prelude::*};
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::half;
use super::tensors::{cubes, element, like, like_of};
use crate::kernels::extension::{Pooled, WayBack};
use crate::kernels::pooling::{BORDER, STRIDE, WINDOW, windows};

/// Units of a cube.
const UNITS: usize = 128;

/// `[images, places, channels]` to `[images, channels]`.
#[cube(launch)]
fn average<E: Float>(
    x: &[E],
    means: &mut [f32],
    places: u32,
    channels: u32,
    #[define(E)] _element: ElemType,
) {
    if ABSOLUTE_POS < means.len() {
        let (places, channels) = (places as usize, channels as usize);
        let (image, channel) = (ABSOLUTE_POS / channels, ABSOLUTE_POS % channels);
        let mut sum = 0.0f32;
        for place in 0..places {
            sum += f32::cast_from(x[(image * places + place) * channels + channel]);
        }
        means[ABSOLUTE_POS] = sum / f32::cast_from(places as u32);
    }
}

/// `[images, channels]` to `[images, places, channels]`.
#[cube(launch)]
fn share_out<E: Float>(
    gradient: &[f32],
    x_gradient: &mut [E],
    places: u32,
    channels: u32,
    scale: f32,
    #[comptime] is_half: bool,
    #[define(E)] _element: ElemType,
) {
    if ABSOLUTE_POS < x_gradient.len() {
        let (places, channels) = (places as usize, channels as usize);
        let (image, channel) = (ABSOLUTE_POS / (places * channels), ABSOLUTE_POS % channels);
        let value = gradient[image * channels + channel] * (scale / f32::cast_from(places as u32));
        x_gradient[ABSOLUTE_POS] = half::gradient::<E>(value, is_half);
    }
}

/// [`Pooled`] on a GPU, by the mean: the images, of which the way back needs only shape and kind.
#[derive(Clone, Debug)]
pub(in crate::kernels) struct DeviceAveraged {
    shape: [usize; 4],
    dtype: DType,
}

impl WayBack<Cube> for DeviceAveraged {
    fn backward(self, gradient: CubeTensor) -> CubeTensor {
        let [_, height, width, channels] = self.shape;
        let x_gradient = like_of(&gradient, self.shape, self.dtype);
        let is_half = half::is_half(&x_gradient);
        share_out::launch(
            &gradient.client.clone(),
            cubes(self.shape.iter().product(), UNITS),
            CubeDim::new_1d(UNITS as u32),
            into_contiguous(gradient).into_buffer_arg(),
            x_gradient.clone().into_buffer_arg(),
            (height * width) as u32,
            channels as u32,
            half::scale(&x_gradient),
            is_half,
            element(&x_gradient),
        );
        x_gradient
    }
}

impl Pooled<Cube> for DeviceAveraged {
    fn forward(x: CubeTensor) -> (Self, CubeTensor) {
        let x = into_contiguous(x);
        let shape = x.meta.shape().dims();
        let [images, height, width, channels] = shape;
        let (dtype, element) = (x.dtype, element(&x));
        let means = like(&x, [images, channels]);
        average::launch(
            &x.client.clone(),
            cubes(images * channels, UNITS),
            CubeDim::new_1d(UNITS as u32),
            x.into_buffer_arg(),
            means.clone().into_buffer_arg(),
            (height * width) as u32,
            channels as u32,
            element,
        );
        (Self { shape, dtype }, means)
    }
}

/// The largest of each window of `x [images, height, width, channels]`.
#[cube(launch)]
fn largest<E: Float>(
    x: &[E],
    y: &mut [E],
    height: u32,
    width: u32,
    channels: u32,
    #[define(E)] _element: ElemType,
) {
    if ABSOLUTE_POS < y.len() {
        let (height, width, channels) = (height as usize, width as usize, channels as usize);
        let (rows, columns) = (height.div_ceil(STRIDE), width.div_ceil(STRIDE));
        let channel = ABSOLUTE_POS % channels;
        let window = ABSOLUTE_POS / channels;
        let (row, column) = (window / columns % rows, window % columns);
        let image = window / (columns * rows);
        // The place in the middle is in every image.
        let middle = (image * height + row * STRIDE) * width + column * STRIDE;
        let mut found = f32::cast_from(x[middle * channels + channel]);
        #[unroll]
        for tap in 0..comptime!(WINDOW * WINDOW) {
            let (down, across) = comptime!((tap / WINDOW, tap % WINDOW));
            let (y_at, x_at) = (row * STRIDE + down, column * STRIDE + across);
            if y_at >= BORDER && x_at >= BORDER && y_at < height + BORDER && x_at < width + BORDER {
                let place = (image * height + y_at - BORDER) * width + x_at - BORDER;
                let value = f32::cast_from(x[place * channels + channel]);
                found = found.max(value);
            }
        }
        y[ABSOLUTE_POS] = E::cast_from(found);
    }
}

/// The gradient of `x`: of each window that it is the first largest place of.
#[cube(launch)]
#[allow(clippy::too_many_arguments, reason = "a kernel takes its shapes one by one")]
fn largest_gradient<E: Float>(
    x: &[E],
    y: &[E],
    gradient: &[E],
    x_gradient: &mut [E],
    height: u32,
    width: u32,
    channels: u32,
    #[comptime] is_half: bool,
    #[define(E)] _element: ElemType,
) {
    if ABSOLUTE_POS < x_gradient.len() {
        let (height, width, channels) = (height as usize, width as usize, channels as usize);
        let (rows, columns) = (height.div_ceil(STRIDE), width.div_ceil(STRIDE));
        let channel = ABSOLUTE_POS % channels;
        let own = ABSOLUTE_POS / channels;
        let (own_row, own_column) = (own / width % height, own % width);
        let image = own / (width * height);
        let value = f32::cast_from(x[ABSOLUTE_POS]);
        let mut sum = 0.0f32;
        // A window begins at a border before its place, and ends as far behind it.
        for row in own_row / STRIDE..rows.min((own_row + BORDER) / STRIDE + 1) {
            for column in own_column / STRIDE..columns.min((own_column + BORDER) / STRIDE + 1) {
                let window = ((image * rows + row) * columns + column) * channels + channel;
                if value == f32::cast_from(y[window]) {
                    let mut earlier = 0u32;
                    #[unroll]
                    for tap in 0..comptime!(WINDOW * WINDOW) {
                        let (down, across) = comptime!((tap / WINDOW, tap % WINDOW));
                        let (y_at, x_at) = (row * STRIDE + down, column * STRIDE + across);
                        let is_earlier = y_at < own_row + BORDER
                            || (y_at == own_row + BORDER && x_at < own_column + BORDER);
                        if is_earlier && y_at >= BORDER && x_at >= BORDER && x_at < width + BORDER {
                            let place = (image * height + y_at - BORDER) * width + x_at - BORDER;
                            if f32::cast_from(x[place * channels + channel]) == value {
                                earlier += 1;
                            }
                        }
                    }
                    if earlier == 0 {
                        sum += f32::cast_from(gradient[window]);
                    }
                }
            }
        }
        x_gradient[ABSOLUTE_POS] = half::gradient::<E>(sum, is_half);
    }
}

/// [`Pooled`] on a GPU, by the largest.
#[derive(Clone, Debug)]
pub(in crate::kernels) struct DeviceMaximum {
    x: CubeTensor,
    output: CubeTensor,
}

impl Pooled<Cube> for DeviceMaximum {
    fn forward(x: CubeTensor) -> (Self, CubeTensor) {
        let x = into_contiguous(x);
        let [images, height, width, channels] = x.meta.shape().dims();
        let shape = [images, windows(height), windows(width), channels];
        let output = like_of(&x, shape, x.dtype);
        largest::launch(
            &x.client,
            cubes(shape.iter().product(), UNITS),
            CubeDim::new_1d(UNITS as u32),
            x.clone().into_buffer_arg(),
            output.clone().into_buffer_arg(),
            height as u32,
            width as u32,
            channels as u32,
            element(&x),
        );
        (Self { x, output: output.clone() }, output)
    }
}

impl WayBack<Cube> for DeviceMaximum {
    fn backward(self, gradient: CubeTensor) -> CubeTensor {
        let Self { x, output } = self;
        let shape @ [_, height, width, channels] = x.meta.shape().dims();
        let x_gradient = like_of(&x, shape, x.dtype);
        largest_gradient::launch(
            &x.client.clone(),
            cubes(shape.iter().product(), UNITS),
            CubeDim::new_1d(UNITS as u32),
            x.into_buffer_arg(),
            output.into_buffer_arg(),
            into_contiguous(gradient).into_buffer_arg(),
            x_gradient.clone().into_buffer_arg(),
            height as u32,
            width as u32,
            channels as u32,
            half::is_half(&x_gradient),
            element(&x_gradient),
        );
        x_gradient
    }
}
