//! Convolution of images in two dimensions: forward, gradient of the input, gradient of the weights.
//!
//! Images are `[batch, height, width, channels]`, weights `[out_channels, in_channels, kernel_height, kernel_width]`. All three
//! computations read windows of an image through [`microkernel`](super::microkernel): the forward pass windows of the input, the
//! gradient of the input windows of the output gradient (against the kernel turned round, and for a stride split
//! into one small dense convolution for each remainder of the position by the stride), the gradient of the weights both. An
//! image that needs a border is copied with it into a buffer of the thread, which is cheap beside the arithmetic. A window of
//! very few values (the first layer of a grey picture) is gathered into one segment.
//!
//! The batch is spread over rayon's threads in groups of small images and strips of large ones, whose size depends on the shapes
//! only, and partial weight gradients are added in the order of the images: the result is the same bits with any number of threads.
//!
//! There is no dilation and there are no groups; no encoder here has them.

use super::buffers;
use super::microkernel::{
    Epilogue, WeightLayout, Windows, accumulate_weights, correlate, pack_weights, padded_channels,
    unpack_weights,
};
use super::simd::Instructions;
use super::winograd;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Segments shorter than this are gathered into one.
const SHORT_SEGMENT: usize = 16;

/// Outputs that one task computes at least, so that small images share the cost of a task.
const OUTPUTS_PER_TASK: usize = 256;

/// Outputs of a strip at most, about. Larger images are cut into strips of rows, which bounds a thread's buffer and lies in its cache, and threads share one
/// image. ResNet-18's stem at 224 x 224, on two cores with AVX-512, before and after: 76 and 109 GFLOP/s forward, 37 and 62 for the gradient of the weights.
const OUTPUTS_PER_STRIP: usize = 512;

/// Partial sums of a weight gradient at most: the bound on its memory.
pub(super) const WEIGHT_GRADIENT_PARTS: usize = 16;

/// Values of a weight gradient that one task sums over the parts.
const VALUES_PER_SUM: usize = 1 << 13;

thread_local! {
    /// A buffer of each thread for images or strips of them with their borders, or gathered windows.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// The shapes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Images.
    pub(super) batch: usize,
    /// Channels of an input image.
    pub(super) in_channels: usize,
    /// Channels of an output image.
    pub(super) out_channels: usize,
    /// Height and width of an input image.
    pub(super) input: [usize; 2],
    /// Height and width of the kernel.
    pub(super) kernel: [usize; 2],
    /// Step from one window to the next, down and across.
    pub(super) stride: [usize; 2],
    /// Zeros around the image, above and below, left and right.
    pub(super) padding: [usize; 2],
}

impl Geometry {
    /// Height and width of an output image.
    ///
    /// # Panics
    ///
    /// If the kernel is larger than the image with its border.
    pub(super) fn output(&self) -> [usize; 2] {
        std::array::from_fn(|axis| {
            let padded = self.input[axis] + 2 * self.padding[axis];
            assert!(
                self.kernel[axis] > 0 && self.kernel[axis] <= padded && self.stride[axis] > 0,
                "a kernel of {:?} with stride {:?} does not fit an image of {:?} with a border of {:?}",
                self.kernel,
                self.stride,
                self.input,
                self.padding,
            );
            (padded - self.kernel[axis]) / self.stride[axis] + 1
        })
    }

    /// Values of an input image.
    fn input_length(&self) -> usize {
        self.input[0] * self.input[1] * self.in_channels
    }

    /// Values of an output image.
    fn output_length(&self) -> usize {
        let [height, width] = self.output();
        height * width * self.out_channels
    }

    /// Values of the whole output.
    pub(super) fn output_values(&self) -> usize {
        self.batch * self.output_length()
    }

    /// Values of the weights.
    pub(super) fn weight_values(&self) -> usize {
        self.out_channels * self.window_length()
    }

    /// Values of a window.
    fn window_length(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.in_channels
    }

    /// Position in the weights of output channel `output`, input channel `input`, kernel row `y`, kernel column `x`.
    pub(super) fn weight_index(&self, output: usize, input: usize, y: usize, x: usize) -> usize {
        ((output * self.in_channels + input) * self.kernel[0] + y) * self.kernel[1] + x
    }

    /// Where the weights of the window's positions lie, output channel by output channel.
    fn weight_layout(&self) -> WeightLayout<impl Fn(usize) -> usize + Sync> {
        let geometry = *self;
        WeightLayout {
            window_length: self.window_length(),
            channels: self.out_channels,
            channel_stride: self.window_length(),
            origin: move |position| {
                let [y, x, input_channel] = geometry.window_position(position);
                geometry.weight_index(0, input_channel, y, x)
            },
        }
    }

    /// Kernel row, kernel column and input channel of a position in a window.
    fn window_position(&self, position: usize) -> [usize; 3] {
        let tap = position / self.in_channels;
        [tap / self.kernel[1], tap % self.kernel[1], position % self.in_channels]
    }

    /// Values of a row of an output image.
    fn output_row(&self) -> usize {
        self.output()[1] * self.out_channels
    }

    /// Height and width of an input image with its border.
    fn bordered(&self) -> [usize; 2] {
        std::array::from_fn(|axis| self.input[axis] + 2 * self.padding[axis])
    }

    /// Images that a task takes, so that it computes `OUTPUTS_PER_TASK` positions of `size`.
    fn images_per_task(&self, size: [usize; 2]) -> usize {
        OUTPUTS_PER_TASK.div_ceil((size[0] * size[1]).max(1)).clamp(1, self.batch.max(1))
    }
}

/// What is added to the sums of a convolution before they are written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Finish<'a> {
    /// A value for each output channel.
    pub(super) bias: Option<&'a [f32]>,
    /// Another image of the output's shape.
    pub(super) residual: Option<&'a [f32]>,
    /// Negative results become zero.
    pub(super) relu: bool,
}

/// Weights laid out for the forward pass over images of any size.
#[derive(Debug)]
pub(super) enum Packed {
    /// By the positions of a window.
    Windows(Vec<f32>),
    /// Of each point of Winograd's tiles.
    Points(Vec<Vec<f32>>),
}

impl Packed {
    /// Lays them out; of `geometry` neither the batch nor the image's size matters.
    ///
    /// # Panics
    ///
    /// If there are not as many weights as `geometry` says.
    pub(super) fn new(instructions: Instructions, geometry: &Geometry, weight: &[f32]) -> Self {
        assert_eq!(weight.len(), geometry.weight_values(), "weight");
        if winograd::suits(geometry) {
            Self::Points(winograd::pack(instructions, geometry, weight))
        } else {
            Self::Windows(pack_weights(instructions, weight, &geometry.weight_layout()))
        }
    }

    /// Keeps the memory for other operations.
    pub(super) fn recycle(self) {
        match self {
            Self::Windows(packed) => buffers::give(packed),
            Self::Points(points) => points.into_iter().for_each(buffers::give),
        }
    }
}

/// `output = convolution(input, weight)`, then bias, residual and ReLU where asked for. `packed` is laid out for these instructions and these channels.
///
/// # Panics
///
/// If a slice does not have the length that `geometry` says.
pub(super) fn forward(
    instructions: Instructions,
    geometry: &Geometry,
    input: &[f32],
    packed: &Packed,
    finish: Finish<'_>,
    output: &mut [f32],
) {
    assert_eq!(input.len(), geometry.batch * geometry.input_length(), "input");
    assert_eq!(output.len(), geometry.output_values(), "output");
    if output.is_empty() {
        return;
    }
    if let Some(residual) = finish.residual {
        assert_eq!(residual.len(), output.len(), "residual");
    }
    let packed = match packed {
        Packed::Windows(packed) => packed,
        Packed::Points(points) => {
            return winograd::forward(instructions, geometry, input, points, finish, output);
        }
    };
    let bias = finish.bias.map(|bias| {
        assert_eq!(bias.len(), geometry.out_channels, "bias");
        let mut padded = bias.to_vec();
        padded.resize(padded_channels(instructions, geometry.out_channels), 0.0);
        padded
    });

    let group = geometry.images_per_task(geometry.output());
    let layout = WindowLayout::new(geometry, group);
    let targets: Vec<usize> =
        (0..layout.origins.len()).map(|window| window * geometry.out_channels).collect();
    let (input_length, output_length) = (geometry.input_length(), geometry.output_length());
    output.par_chunks_mut(group * output_length).enumerate().for_each(|(task, output)| {
        let images = output.len() / output_length;
        let input = &input[task * group * input_length..][..images * input_length];
        let strips = output.par_chunks_mut(images * layout.strip_rows * geometry.output_row());
        strips.enumerate().for_each(|(strip, output)| {
            let rows = layout.strip(strip);
            let first = task * group * output_length + rows.start * geometry.output_row();
            let epilogue = Epilogue {
                bias: bias.as_deref(),
                residual: finish.residual.map(|residual| &residual[first..][..output.len()]),
                relu: finish.relu,
            };
            layout.with_windows(geometry, input, &rows, |windows| {
                let targets = &targets[..windows.origins.len()];
                correlate(
                    instructions,
                    windows,
                    packed,
                    geometry.out_channels,
                    targets,
                    epilogue,
                    output,
                );
            });
        });
    });
}

/// The gradient of the input from that of the output.
///
/// # Panics
///
/// If a slice does not have the length that `geometry` says.
pub(super) fn input_gradient(
    instructions: Instructions,
    geometry: &Geometry,
    weight: &[f32],
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    assert_eq!(input_gradient.len(), geometry.batch * geometry.input_length(), "input gradient");
    assert_eq!(weight.len(), geometry.weight_values(), "weight");
    assert_eq!(output_gradient.len(), geometry.output_values(), "output gradient");
    if output_gradient.is_empty() || input_gradient.is_empty() {
        input_gradient.fill(0.0);
        return;
    }
    if winograd::suits(geometry) {
        let gradient = output_gradient;
        return winograd::input_gradient(instructions, geometry, weight, gradient, input_gradient);
    }
    let output_size = geometry.output();
    let axes: [Axis; 2] = std::array::from_fn(|axis| Axis::new(geometry, axis, output_size[axis]));
    let group = geometry.images_per_task(geometry.input);
    let bordered: [usize; 2] =
        std::array::from_fn(|axis| axes[axis].before + output_size[axis] + axes[axis].after);
    let row_length = bordered[1] * geometry.out_channels;

    // One dense convolution for each pair of remainders.
    struct Phase {
        packed: Vec<f32>,
        origins: Vec<usize>,
        targets: Vec<usize>,
        segments: usize,
        segment_length: usize,
    }
    let mut phases = Vec::new();
    let mut covers_all = true;
    for down in &axes[0].phases {
        for across in &axes[1].phases {
            if down.taps.is_empty() || across.taps.is_empty() {
                covers_all = false;
                continue;
            }
            let segment_length = across.taps.len() * geometry.out_channels;
            let taps = geometry.kernel[0] * geometry.kernel[1];
            let weights = WeightLayout {
                window_length: down.taps.len() * segment_length,
                channels: geometry.in_channels,
                channel_stride: taps,
                origin: |position: usize| {
                    let tap = position / geometry.out_channels;
                    let (y, x) =
                        (down.taps[tap / across.taps.len()], across.taps[tap % across.taps.len()]);
                    geometry.weight_index(position % geometry.out_channels, 0, y, x)
                },
            };
            let packed = pack_weights(instructions, weight, &weights);
            let mut origins = Vec::new();
            let mut targets = Vec::new();
            for image in 0..group {
                for row in 0..down.count {
                    for column in 0..across.count {
                        origins.push(
                            (image * bordered[0] + down.first_window + row) * row_length
                                + (across.first_window + column) * geometry.out_channels,
                        );
                        let y = down.first_position + row * geometry.stride[0];
                        let x = across.first_position + column * geometry.stride[1];
                        targets.push(
                            ((image * geometry.input[0] + y) * geometry.input[1] + x)
                                * geometry.in_channels,
                        );
                    }
                }
            }
            phases.push(Phase {
                packed,
                origins,
                targets,
                segments: down.taps.len(),
                segment_length,
            });
        }
    }

    let (input_length, output_length) = (geometry.input_length(), geometry.output_length());
    input_gradient.par_chunks_mut(group * input_length).enumerate().for_each(|(task, target)| {
        let images = target.len() / input_length;
        let source = &output_gradient[task * group * output_length..][..images * output_length];
        if !covers_all {
            target.fill(0.0);
        }
        let mut run = |values: &[f32]| {
            for phase in &phases {
                let count = phase.origins.len() / group * images;
                let windows = Windows {
                    values,
                    origins: &phase.origins[..count],
                    segments: phase.segments,
                    segment_stride: row_length,
                    segment_length: phase.segment_length,
                };
                let targets = &phase.targets[..count];
                correlate(
                    instructions,
                    windows,
                    &phase.packed,
                    geometry.in_channels,
                    targets,
                    Epilogue::default(),
                    target,
                );
            }
        };
        if bordered == output_size {
            run(source);
        } else {
            SCRATCH.with_borrow_mut(|scratch| {
                let before = [axes[0].before, axes[1].before];
                let border = Border { before, bordered };
                let lines = 0..bordered[0];
                border.copy(source, output_size, geometry.out_channels, lines, scratch);
                run(scratch);
            });
        }
    });
    phases.into_iter().for_each(|phase| buffers::give(phase.packed));
}

/// The gradient of the weights from the input and the gradient of the output.
///
/// # Panics
///
/// If a slice does not have the length that `geometry` says.
pub(super) fn weight_gradient(
    instructions: Instructions,
    geometry: &Geometry,
    input: &[f32],
    output_gradient: &[f32],
    weight_gradient: &mut [f32],
) {
    assert_eq!(input.len(), geometry.batch * geometry.input_length(), "input");
    assert_eq!(output_gradient.len(), geometry.output_values(), "output gradient");
    assert_eq!(weight_gradient.len(), geometry.weight_values(), "weight gradient");
    if output_gradient.is_empty() || weight_gradient.is_empty() {
        weight_gradient.fill(0.0);
        return;
    }
    if winograd::suits(geometry) {
        let gradient = output_gradient;
        return winograd::weight_gradient(instructions, geometry, input, gradient, weight_gradient);
    }
    let group = geometry.images_per_task(geometry.output());
    let layout = WindowLayout::new(geometry, group);
    let (input_length, output_length) = (geometry.input_length(), geometry.output_length());
    // A fixed partition of the batch into whole groups.
    let part = geometry.batch.div_ceil(group).div_ceil(WEIGHT_GRADIENT_PARTS) * group;
    let sums_length =
        geometry.window_length() * padded_channels(instructions, geometry.out_channels);
    let parts: Vec<Vec<f32>> = (0..geometry.batch.div_ceil(part))
        .into_par_iter()
        .map(|index| {
            let mut sums = buffers::take(sums_length);
            sums.fill(0.0);
            let images = index * part..((index + 1) * part).min(geometry.batch);
            for first in images.clone().step_by(group) {
                let last = (first + group).min(images.end);
                let input = &input[first * input_length..last * input_length];
                let gradients = &output_gradient[first * output_length..last * output_length];
                let strip_length = (last - first) * layout.strip_rows * geometry.output_row();
                for (strip, gradients) in gradients.chunks(strip_length).enumerate() {
                    layout.with_windows(geometry, input, &layout.strip(strip), |windows| {
                        accumulate_weights(
                            instructions,
                            windows,
                            gradients,
                            geometry.out_channels,
                            &mut sums,
                        );
                    });
                }
            }
            sums
        })
        .collect();
    let total = total(parts);
    unpack_weights(instructions, &total, &geometry.weight_layout(), weight_gradient);
    buffers::give(total);
}

/// The sum of some slices of one length. Each value is summed in their order, so it does not matter how the values are shared out.
///
/// # Panics
///
/// If there is none.
pub(super) fn total(parts: Vec<Vec<f32>>) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let mut total = parts.next().expect("there is a first part");
    let parts: Vec<Vec<f32>> = parts.collect();
    total.par_chunks_mut(VALUES_PER_SUM).enumerate().for_each(|(chunk, total)| {
        let start = chunk * VALUES_PER_SUM;
        for part in &parts {
            for (sum, &value) in total.iter_mut().zip(&part[start..]) {
                *sum += value;
            }
        }
    });
    parts.into_iter().for_each(buffers::give);
    total
}

/// Where the windows of a group of input images, or of a strip of one, lie once they are prepared.
struct WindowLayout {
    preparation: Preparation,
    /// Of the images' outputs, and of a strip's.
    rows: usize,
    strip_rows: usize,
    /// Windows of a row.
    columns: usize,
    /// Of a strip of every image.
    origins: Vec<usize>,
    segments: usize,
    segment_stride: usize,
    segment_length: usize,
}

/// What is done to the images before their windows are read.
enum Preparation {
    /// Nothing: the windows lie in the images themselves.
    None,
    /// Copied with a border of zeros.
    Border,
    /// Every window copied into one segment.
    Gather,
}

impl WindowLayout {
    /// For groups of up to `images` images; if that is more than one, they are no larger than a strip.
    fn new(geometry: &Geometry, images: usize) -> WindowLayout {
        let [rows, columns] = geometry.output();
        // Strips of about one size.
        let strips = (rows * columns).div_ceil(OUTPUTS_PER_STRIP);
        let strip_rows = rows.div_ceil(strips);
        let windows = images * strip_rows * columns;
        let row_segment = geometry.kernel[1] * geometry.in_channels;
        if row_segment < SHORT_SEGMENT && geometry.kernel[0] > 1 {
            let length = geometry.window_length();
            return WindowLayout {
                preparation: Preparation::Gather,
                rows,
                strip_rows,
                columns,
                origins: (0..windows).map(|window| window * length).collect(),
                segments: 1,
                segment_stride: 0,
                segment_length: length,
            };
        }
        let bordered = geometry.bordered();
        let row_length = bordered[1] * geometry.in_channels;
        let mut origins = Vec::with_capacity(windows);
        for image in 0..images {
            for row in 0..strip_rows {
                for column in 0..columns {
                    let y = image * bordered[0] + row * geometry.stride[0];
                    origins
                        .push(y * row_length + column * geometry.stride[1] * geometry.in_channels);
                }
            }
        }
        WindowLayout {
            preparation: if geometry.padding == [0, 0] {
                Preparation::None
            } else {
                Preparation::Border
            },
            rows,
            strip_rows,
            columns,
            origins,
            segments: geometry.kernel[0],
            segment_stride: row_length,
            segment_length: row_segment,
        }
    }

    /// The rows of a strip.
    fn strip(&self, index: usize) -> Range<usize> {
        index * self.strip_rows..((index + 1) * self.strip_rows).min(self.rows)
    }

    /// The prepared windows of `rows` of `images` images.
    fn windows<'a>(&'a self, values: &'a [f32], images: usize, rows: &Range<usize>) -> Windows<'a> {
        Windows {
            values,
            origins: &self.origins[..images * rows.len() * self.columns],
            segments: self.segments,
            segment_stride: self.segment_stride,
            segment_length: self.segment_length,
        }
    }

    /// Prepares `rows` of the outputs of `images` in the thread's buffer and hands their windows to `run`.
    fn with_windows(
        &self,
        geometry: &Geometry,
        images: &[f32],
        rows: &Range<usize>,
        run: impl FnOnce(Windows<'_>),
    ) {
        let count = images.len() / geometry.input_length();
        let first_line = rows.start * geometry.stride[0];
        match self.preparation {
            Preparation::None => {
                let images = &images[first_line * self.segment_stride..];
                run(self.windows(images, count, rows));
            }
            Preparation::Border => SCRATCH.with_borrow_mut(|scratch| {
                let bordered = geometry.bordered();
                // Of more than one image all lines, where the layout expects the next one.
                let lines = match count {
                    1 => (rows.len() - 1) * geometry.stride[0] + geometry.kernel[0],
                    _ => bordered[0],
                };
                let border = Border { before: geometry.padding, bordered };
                let lines = first_line..first_line + lines;
                border.copy(images, geometry.input, geometry.in_channels, lines, scratch);
                run(self.windows(scratch, count, rows));
            }),
            Preparation::Gather => SCRATCH.with_borrow_mut(|scratch| {
                gather(geometry, images, rows, scratch);
                run(self.windows(scratch, count, rows));
            }),
        }
    }
}

/// Zeros around an image.
struct Border {
    /// Above it and to its left.
    before: [usize; 2],
    /// Height and width of the image with its border.
    bordered: [usize; 2],
}

impl Border {
    /// Writes these lines of the bordered images, of images of `size`.
    fn copy(
        &self,
        images: &[f32],
        size: [usize; 2],
        channels: usize,
        lines: Range<usize>,
        target: &mut Vec<f32>,
    ) {
        let row_length = size[1] * channels;
        let line_length = self.bordered[1] * channels;
        let inside = self.before[1] * channels..self.before[1] * channels + row_length;
        let images = images.chunks_exact(size[0] * row_length);
        target.resize(images.len() * lines.len() * line_length, 0.0);
        let mut targets = target.chunks_exact_mut(line_length);
        for image in images {
            for (line, target) in lines.clone().zip(&mut targets) {
                let row = line.wrapping_sub(self.before[0]);
                if row < size[0] {
                    target[..inside.start].fill(0.0);
                    target[inside.clone()]
                        .copy_from_slice(&image[row * row_length..][..row_length]);
                    target[inside.end..].fill(0.0);
                } else {
                    target.fill(0.0);
                }
            }
        }
    }
}

/// Copies every window of `rows` of the images' outputs, one after another.
fn gather(geometry: &Geometry, images: &[f32], rows: &Range<usize>, target: &mut Vec<f32>) {
    let [_, width] = geometry.output();
    let [input_height, input_width] = geometry.input;
    let channels = geometry.in_channels;
    let images = images.chunks_exact(geometry.input_length());
    target.clear();
    target.reserve(images.len() * rows.len() * width * geometry.window_length());
    for image in images {
        for row in rows.clone() {
            for column in 0..width {
                for kernel_row in 0..geometry.kernel[0] {
                    let y =
                        (row * geometry.stride[0] + kernel_row).wrapping_sub(geometry.padding[0]);
                    for kernel_column in 0..geometry.kernel[1] {
                        let x = (column * geometry.stride[1] + kernel_column)
                            .wrapping_sub(geometry.padding[1]);
                        if y < input_height && x < input_width {
                            target.extend_from_slice(
                                &image[(y * input_width + x) * channels..][..channels],
                            );
                        } else {
                            target.resize(target.len() + channels, 0.0);
                        }
                    }
                }
            }
        }
    }
}

/// How the gradient of the input is computed along one axis.
///
/// Input position `i` takes part in output `o` through kernel tap `k` when `i + padding = o * stride + k`. For a fixed remainder of
/// `i + padding` by the stride the taps are `remainder, remainder + stride, ...`, and the outputs a run of consecutive ones that
/// moves on by one with every position: a dense correlation with these taps in descending order.
struct Axis {
    phases: Vec<AxisPhase>,
    /// Zeros before and after the output gradient so that every window lies inside.
    before: usize,
    after: usize,
}

/// The input positions of one remainder.
struct AxisPhase {
    /// The first such position; the others follow at the distance of the stride.
    first_position: usize,
    count: usize,
    /// Where the first position's window starts in the output gradient with its border.
    first_window: usize,
    /// Kernel taps in the order of the window.
    taps: Vec<usize>,
}

impl Axis {
    fn new(geometry: &Geometry, axis: usize, output_size: usize) -> Axis {
        let (size, kernel, stride, padding) = (
            geometry.input[axis],
            geometry.kernel[axis],
            geometry.stride[axis],
            geometry.padding[axis],
        );
        let mut phases = Vec::new();
        let (mut before, mut after) = (0isize, 0isize);
        let mut starts = Vec::new();
        for first_position in 0..stride.min(size) {
            let remainder = (first_position + padding) % stride;
            let taps: Vec<usize> =
                (remainder..kernel).step_by(stride).collect::<Vec<_>>().into_iter().rev().collect();
            let count = (size - first_position).div_ceil(stride);
            // The last output of the first window, then its first.
            let last = ((first_position + padding - remainder) / stride) as isize;
            let start = last - taps.len() as isize + 1;
            if !taps.is_empty() {
                before = before.max(-start);
                after = after.max(last + count as isize - output_size as isize);
            }
            starts.push(start);
            phases.push(AxisPhase { first_position, count, first_window: 0, taps });
        }
        for (phase, start) in phases.iter_mut().zip(starts) {
            // A phase without taps has no windows.
            phase.first_window = (start + before).max(0) as usize;
        }
        Axis { phases, before: before as usize, after: after.max(0) as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed + 1;
        (0..count)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn geometries() -> Vec<Geometry> {
        [
            (2, [3, 5], [7, 6], [3, 3], [1, 1], [1, 1]),
            (1, [1, 32], [28, 28], [3, 3], [2, 2], [1, 1]),
            (3, [16, 16], [9, 9], [3, 3], [2, 2], [1, 1]),
            (3, [17, 33], [8, 5], [1, 1], [2, 2], [0, 0]),
            (5, [32, 64], [14, 14], [3, 3], [2, 2], [1, 1]),
            (2, [3, 48], [33, 31], [7, 7], [2, 2], [3, 3]),
            (3, [8, 20], [5, 4], [3, 3], [3, 3], [1, 1]),
            (130, [4, 8], [4, 4], [3, 3], [1, 1], [1, 1]),
            (1, [12, 12], [3, 3], [2, 3], [1, 1], [1, 0]),
            (2, [32, 32], [4, 4], [5, 5], [1, 1], [2, 2]),
            (2, [3, 5], [6, 7], [3, 3], [2, 1], [0, 2]),
            (2, [40, 7], [1, 1], [1, 1], [1, 1], [0, 0]),
            (3, [32, 64], [7, 5], [3, 3], [1, 1], [1, 1]),
            (2, [64, 32], [14, 14], [3, 3], [1, 1], [1, 1]),
            (5, [48, 80], [4, 4], [3, 3], [1, 1], [1, 1]),
            (2, [32, 32], [1, 3], [3, 3], [1, 1], [1, 1]),
            // Sums of a weight gradient that are not taken in parts.
            (3, [256, 512], [5, 4], [3, 3], [1, 1], [1, 1]),
            // Two and three strips of an image: of gathered windows, with a border, and of the image as it is.
            (2, [1, 8], [64, 48], [5, 5], [2, 2], [2, 2]),
            (2, [3, 17], [51, 52], [7, 7], [2, 2], [3, 3]),
            (2, [16, 5], [60, 40], [1, 1], [2, 2], [0, 0]),
            (1, [8, 16], [40, 39], [3, 3], [1, 1], [0, 0]),
        ]
        .into_iter()
        .map(|(batch, [in_channels, out_channels], input, kernel, stride, padding)| Geometry {
            batch,
            in_channels,
            out_channels,
            input,
            kernel,
            stride,
            padding,
        })
        .collect()
    }

    /// Calls `visit` with the index of every product's output, input and weight.
    fn products(geometry: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
        let [height, width] = geometry.output();
        for image in 0..geometry.batch {
            for (row, column) in
                (0..height).flat_map(|row| (0..width).map(move |column| (row, column)))
            {
                for (y, x) in (0..geometry.kernel[0])
                    .flat_map(|y| (0..geometry.kernel[1]).map(move |x| (y, x)))
                {
                    let source_row =
                        (row * geometry.stride[0] + y).wrapping_sub(geometry.padding[0]);
                    let source_column =
                        (column * geometry.stride[1] + x).wrapping_sub(geometry.padding[1]);
                    if source_row >= geometry.input[0] || source_column >= geometry.input[1] {
                        continue;
                    }
                    for output in 0..geometry.out_channels {
                        for input in 0..geometry.in_channels {
                            visit(
                                ((image * height + row) * width + column) * geometry.out_channels
                                    + output,
                                ((image * geometry.input[0] + source_row) * geometry.input[1]
                                    + source_column)
                                    * geometry.in_channels
                                    + input,
                                geometry.weight_index(output, input, y, x),
                            );
                        }
                    }
                }
            }
        }
    }

    #[track_caller]
    fn assert_close(actual: &[f32], expected: &[f64], what: &str, geometry: &Geometry) {
        let largest =
            expected.iter().fold(f64::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        for (actual, expected) in actual.iter().zip(expected) {
            let error = (f64::from(*actual) - expected).abs() / largest;
            assert!(error < 1e-5, "{what} of {geometry:?}: {actual} instead of {expected}");
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_the_definition() {
        for geometry in geometries() {
            let x = numbers(geometry.batch * geometry.input_length(), 1);
            let weight = numbers(geometry.weight_values(), 2);
            let gradient = numbers(geometry.output_values(), 3);
            let bias = numbers(geometry.out_channels, 4);
            let residual = numbers(geometry.output_values(), 5);
            let mut output = vec![0.0; geometry.output_values()];
            let mut input_gradients = vec![0.0; x.len()];
            let mut weight_gradients = vec![0.0; weight.len()];
            products(&geometry, |o, i, w| {
                output[o] += f64::from(x[i]) * f64::from(weight[w]);
                input_gradients[i] += f64::from(gradient[o]) * f64::from(weight[w]);
                weight_gradients[w] += f64::from(gradient[o]) * f64::from(x[i]);
            });
            let finished: Vec<f64> = output
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    (value + f64::from(bias[index % bias.len()]) + f64::from(residual[index]))
                        .max(0.0)
                })
                .collect();

            for set in Instructions::available() {
                // Results must not depend on what the buffers held.
                let mut actual = vec![f32::NAN; output.len()];
                let packed = Packed::new(set, &geometry, &weight);
                forward(set, &geometry, &x, &packed, Finish::default(), &mut actual);
                assert_close(&actual, &output, "forward", &geometry);
                let finish = Finish { bias: Some(&bias), residual: Some(&residual), relu: true };
                forward(set, &geometry, &x, &packed, finish, &mut actual);
                assert_close(&actual, &finished, "finished forward", &geometry);
                let mut actual = vec![f32::NAN; x.len()];
                input_gradient(set, &geometry, &weight, &gradient, &mut actual);
                assert_close(&actual, &input_gradients, "input gradient", &geometry);
                let mut actual = vec![f32::NAN; weight.len()];
                weight_gradient(set, &geometry, &x, &gradient, &mut actual);
                assert_close(&actual, &weight_gradients, "weight gradient", &geometry);
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let set = Instructions::detect();
        let (direct, by_tiles): (Vec<_>, Vec<_>) =
            geometries().into_iter().partition(|geometry| !winograd::suits(geometry));
        assert!(by_tiles.len() > 2);
        for geometry in direct
            .into_iter()
            .take(7)
            .chain(by_tiles)
            .map(|geometry| Geometry { batch: geometry.batch * 37, ..geometry })
        {
            let x = numbers(geometry.batch * geometry.input_length(), 1);
            let weight = numbers(geometry.weight_values(), 2);
            let gradient = numbers(geometry.output_values(), 3);
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut output = vec![0.0; geometry.output_values()];
                    let packed = Packed::new(set, &geometry, &weight);
                    forward(set, &geometry, &x, &packed, Finish::default(), &mut output);
                    let mut input_gradients = vec![0.0; x.len()];
                    input_gradient(set, &geometry, &weight, &gradient, &mut input_gradients);
                    let mut weight_gradients = vec![0.0; weight.len()];
                    weight_gradient(set, &geometry, &x, &gradient, &mut weight_gradients);
                    [output, input_gradients, weight_gradients]
                        .map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
                })
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{geometry:?}");
        }
    }

    #[test]
    fn one_image_gives_the_same_bits_alone_and_in_a_batch() {
        let set = Instructions::detect();
        for geometry in geometries() {
            let x = numbers(geometry.batch * geometry.input_length(), 1);
            let weight = numbers(geometry.weight_values(), 2);
            let mut together = vec![0.0; geometry.output_values()];
            let packed = Packed::new(set, &geometry, &weight);
            forward(set, &geometry, &x, &packed, Finish::default(), &mut together);
            let alone_geometry = Geometry { batch: 1, ..geometry };
            let last = geometry.batch - 1;
            let mut alone = vec![0.0; alone_geometry.output_values()];
            forward(
                set,
                &alone_geometry,
                &x[last * geometry.input_length()..],
                &packed,
                Finish::default(),
                &mut alone,
            );
            assert_eq!(alone, together[last * geometry.output_length()..]);
        }
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_kernel_larger_than_the_image_is_refused() {
        let geometry = Geometry {
            batch: 1,
            in_channels: 1,
            out_channels: 1,
            input: [2, 2],
            kernel: [5, 5],
            stride: [1, 1],
            padding: [1, 1],
        };
        geometry.output();
    }
}
