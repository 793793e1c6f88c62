//! Views of images that lie on a GPU as bytes: unpacked, bent, sampled, their contrast changed and a rectangle blanked, in one launch.

use burn::backend::Cube;
use burn::cubecl::{self, prelude::*};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::tensors::{cubes, like};
use crate::kernels::extension::ViewKernels;
use crate::kernels::{KNOTS, ViewForm};

/// Units of a cube.
const UNITS: usize = 256;

/// Numbers of a view: the knots' places, then these.
pub(crate) const PLAN_LENGTH: usize = CONTRAST + 6;
const CONTRAST: usize = 2 * KNOTS * KNOTS;
const COLUMNS: usize = CONTRAST + 1;
const ROWS: usize = CONTRAST + 3;
const IMAGE: usize = CONTRAST + 5;

#[cube(launch)]
fn draw(
    words: &[i32],
    background: &[f32],
    splines: &[f32],
    plans: &[f32],
    output: &mut [f32],
    words_of_image: u32,
    #[comptime] form: ViewForm,
) {
    let side = comptime!(form.side);
    let pixels = comptime!(form.side * form.side);
    let view = ABSOLUTE_POS / pixels;
    if view < comptime!(form.views) {
        let pixel = ABSOLUTE_POS % pixels;
        let row = pixel / side;
        let column = pixel % side;
        let plan = view * PLAN_LENGTH;
        let mut x = 0.0f32;
        let mut y = 0.0f32;
        for down in 0..KNOTS {
            let mut line_x = 0.0f32;
            let mut line_y = 0.0f32;
            for across in 0..KNOTS {
                let weight = splines[across * side + column];
                let knot = plan + 2 * (down * KNOTS + across);
                line_x += weight * plans[knot];
                line_y += weight * plans[knot + 1];
            }
            let weight = splines[down * side + row];
            x += weight * line_x;
            y += weight * line_y;
        }
        // From places to pixels: pixel p covers the place (2 p + 1) / side - 1. Further outside than the border is background all the same.
        let half = comptime!(form.side as f32 / 2.0);
        let last = comptime!(form.side as f32 + 1.0);
        let x = f32::clamp((x + 1.0) * half - 0.5, -2.0, last);
        let y = f32::clamp((y + 1.0) * half - 0.5, -2.0, last);
        let left = x.floor();
        let top = y.floor();
        let right_share = x - left;
        let lower_share = y - top;
        let left = i32::cast_from(left);
        let top = i32::cast_from(top);
        let image = u32::cast_from(plans[plan + IMAGE]) as usize;
        let first_word = image * words_of_image as usize;
        let blanked = is_blanked(plans, plan, row, column, form.erases);
        #[unroll]
        for channel in 0..form.channels {
            let outside = background[image * form.channels + channel];
            let plane = channel * pixels;
            let mut value = outside;
            if !blanked {
                let upper = apart(words, first_word, plane, left, top, outside, side)
                    * (1.0 - right_share)
                    + apart(words, first_word, plane, left + 1, top, outside, side) * right_share;
                let lower = apart(words, first_word, plane, left, top + 1, outside, side)
                    * (1.0 - right_share)
                    + apart(words, first_word, plane, left + 1, top + 1, outside, side)
                        * right_share;
                let difference = upper * (1.0 - lower_share) + lower * lower_share;
                value = outside + difference;
                if comptime!(form.changes_contrast) {
                    let changed = outside + difference * plans[plan + CONTRAST];
                    value = f32::clamp(changed, 0.0, 1.0);
                }
            }
            output[view * form.channels * pixels + plane + pixel] = value;
        }
    }
}

/// Whether a pixel of a view lies in its blanked rectangle.
#[cube]
fn is_blanked(
    plans: &[f32],
    plan: usize,
    row: usize,
    column: usize,
    #[comptime] erases: bool,
) -> bool {
    let mut blanked = false;
    if comptime!(erases) {
        let row = f32::cast_from(row as u32);
        let column = f32::cast_from(column as u32);
        blanked = column >= plans[plan + COLUMNS]
            && column < plans[plan + COLUMNS + 1]
            && row >= plans[plan + ROWS]
            && row < plans[plan + ROWS + 1];
    }
    blanked
}

/// How far a pixel of an image is from the background; outside there is background.
#[cube]
fn apart(
    words: &[i32],
    first_word: usize,
    plane: usize,
    column: i32,
    row: i32,
    background: f32,
    #[comptime] side: usize,
) -> f32 {
    let last = comptime!(side as i32);
    let mut apart = 0.0f32;
    if column >= 0 && column < last && row >= 0 && row < last {
        let byte = plane + row as usize * side + column as usize;
        apart = number(words, first_word, byte) - background;
    }
    apart
}

/// A byte of an image, whose words begin at `first_word`, as a number from 0 to 1.
#[cube]
fn number(words: &[i32], first_word: usize, byte: usize) -> f32 {
    let shift = i32::cast_from((byte % 4) as u32) * 8;
    f32::cast_from((words[first_word + byte / 4] >> shift) & 255) / 255.0
}

/// The bytes of images as numbers from 0 to 1.
#[cube(launch)]
fn unpack(words: &[i32], output: &mut [f32], words_of_image: u32, #[comptime] length: usize) {
    if ABSOLUTE_POS < output.len() {
        let first_word = ABSOLUTE_POS / length * words_of_image as usize;
        output[ABSOLUTE_POS] = number(words, first_word, ABSOLUTE_POS % length);
    }
}

impl ViewKernels for Cube {
    fn unpack_images(words: CubeTensor, image: [usize; 3]) -> CubeTensor {
        let [images, words_of_image] = words.meta.shape().dims();
        let length = image.iter().product::<usize>();
        let [channels, height, width] = image;
        let client = words.client.clone();
        let output = like(&words, [images, channels, height, width]);
        unpack::launch(
            &client,
            cubes(images * length, UNITS),
            CubeDim::new_1d(UNITS as u32),
            into_contiguous(words).into_buffer_arg(),
            output.clone().into_buffer_arg(),
            words_of_image as u32,
            length,
        );
        output
    }

    fn draw_views(
        words: CubeTensor,
        background: CubeTensor,
        splines: CubeTensor,
        plans: CubeTensor,
        form: ViewForm,
    ) -> CubeTensor {
        let words_of_image = words.meta.shape()[1] as u32;
        let client = words.client.clone();
        let output = like(&words, [form.views, form.channels, form.side, form.side]);
        draw::launch(
            &client,
            cubes(form.views * form.side * form.side, UNITS),
            CubeDim::new_1d(UNITS as u32),
            into_contiguous(words).into_buffer_arg(),
            into_contiguous(background).into_buffer_arg(),
            into_contiguous(splines).into_buffer_arg(),
            into_contiguous(plans).into_buffer_arg(),
            output.clone().into_buffer_arg(),
            words_of_image,
            form,
        );
        output
    }
}
