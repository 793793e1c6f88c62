//! The mean over an image on a GPU: one launch forward and one back. Where an encoder ends, and with it what is kept in [half precision](super::half).

use burn::backend::Cube;
use burn::cubecl::{self, prelude::*};
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::half;
use super::tensors::{cubes, element, like, like_of};
use crate::kernels::extension::{Averaged, WayBack};

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

/// [`Averaged`] on a GPU: the images, of which the way back needs only shape and kind.
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

impl Averaged<Cube> for DeviceAveraged {
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
