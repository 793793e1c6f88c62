//! The largest of 3x3 places, every second place down and across: the pooling behind the stem of a ResNet for large images (He et al. 2015, arXiv 1512.03385,
//! table 1).
//!
//! The border adds nothing to choose from. Of places that are equally large the first, row by row, has the gradient. On the CPU a number that is NaN is the largest.

use rayon::prelude::*;

use super::simd::vectorised;

/// Places along a side of a window, from one window to the next, and before the first place of an image.
pub(super) const WINDOW: usize = 3;
pub(super) const STRIDE: usize = 2;
pub(super) const BORDER: usize = 1;

/// Windows along a side of so many places.
pub(super) fn windows(places: usize) -> usize {
    places.div_ceil(STRIDE)
}

/// Images that are pooled, channels last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Plane {
    /// Values of an image.
    fn length(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Values of what an image becomes.
    pub(super) fn pooled_length(self) -> usize {
        windows(self.height) * windows(self.width) * self.channels
    }

    /// # Panics
    ///
    /// If `x` does not hold whole images, or `y` not what as many become.
    fn check(self, x: &[f32], y: &[f32]) {
        assert!(x.len().is_multiple_of(self.length()), "whole images");
        assert_eq!(x.len() / self.length() * self.pooled_length(), y.len(), "one output an image");
    }

    /// Where the places of a window start in an image, row by row.
    fn places(self, row: usize, column: usize) -> impl Iterator<Item = usize> {
        let along = |window: usize, places: usize| {
            let first = window * STRIDE;
            first.saturating_sub(BORDER)..(first + WINDOW - BORDER).min(places)
        };
        let columns = along(column, self.width);
        along(row, self.height)
            .flat_map(move |y| columns.clone().map(move |x| (y * self.width + x) * self.channels))
    }
}

/// The largest value of each window and channel.
///
/// # Panics
///
/// If a slice does not hold whole images, as many as the other.
pub(super) fn largest(plane: Plane, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    plane.check(x, y);
    let (rows, columns) = (windows(plane.height), windows(plane.width));
    y.par_chunks_mut(columns * plane.channels).enumerate().for_each(|(line, y)| {
        let image = &x[line / rows * plane.length()..][..plane.length()];
        vectorised(
            #[inline(always)]
            || {
                for (column, y) in y.chunks_exact_mut(plane.channels).enumerate() {
                    let mut places = plane.places(line % rows, column);
                    let first = places.next().expect("a window has a place");
                    y.copy_from_slice(&image[first..first + plane.channels]);
                    for place in places {
                        for (largest, &value) in y.iter_mut().zip(&image[place..]) {
                            *largest =
                                if value > *largest || value.is_nan() { value } else { *largest };
                        }
                    }
                }
            },
        );
    });
}

/// The gradient of `x` from that of `y`, which [`largest`] has found.
///
/// # Panics
///
/// As [`largest`].
pub(super) fn largest_gradient(
    plane: Plane,
    x: &[f32],
    y: &[f32],
    gradient: &[f32],
    x_gradient: &mut [f32],
) {
    assert_eq!(x.len(), x_gradient.len(), "a gradient for every value");
    if x.is_empty() {
        return;
    }
    plane.check(x, y);
    assert_eq!(y.len(), gradient.len(), "a gradient for every output");
    let columns = windows(plane.width);
    x_gradient
        .par_chunks_mut(plane.length())
        .zip(x.par_chunks(plane.length()))
        .zip(y.par_chunks(plane.pooled_length()).zip(gradient.par_chunks(plane.pooled_length())))
        .for_each(|((x_gradient, x), (y, gradient))| {
            // What is left of a window's gradient once its place is found is nothing.
            let mut left = vec![0.0; plane.channels];
            vectorised(
                #[inline(always)]
                || {
                    x_gradient.fill(0.0);
                    let windows = y
                        .chunks_exact(plane.channels)
                        .zip(gradient.chunks_exact(plane.channels))
                        .enumerate();
                    for (window, (y, gradient)) in windows {
                        left.copy_from_slice(gradient);
                        for place in plane.places(window / columns, window % columns) {
                            let values = &x[place..][..plane.channels];
                            let targets = &mut x_gradient[place..][..plane.channels];
                            for (((target, &value), &largest), left) in
                                targets.iter_mut().zip(values).zip(y).zip(&mut left)
                            {
                                let found = value == largest;
                                *target += if found { *left } else { 0.0 };
                                *left = if found { 0.0 } else { *left };
                            }
                        }
                    }
                },
            );
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_each_window_and_where_its_gradient_goes() {
        // Two channels, the second the first turned round.
        let first = [1.0, 2.0, 3.0, 4.0, 9.0, 5.0, 6.0, 7.0, 8.0];
        let x: Vec<f32> = first.iter().flat_map(|&value| [value, -value]).collect();
        let plane = Plane { height: 3, width: 3, channels: 2 };
        let mut y = vec![f32::NAN; plane.pooled_length()];
        largest(plane, &x, &mut y);
        assert_eq!(y, [9.0, -1.0, 9.0, -2.0, 9.0, -4.0, 9.0, -5.0]);

        let gradient = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0];
        let mut found = vec![f32::NAN; x.len()];
        largest_gradient(plane, &x, &y, &gradient, &mut found);
        let mut expected = [0.0; 18];
        expected[2 * 4] = 1.0 + 2.0 + 3.0 + 4.0;
        (expected[1], expected[3], expected[7], expected[11]) = (10.0, 20.0, 30.0, 40.0);
        assert_eq!(found, expected);
    }

    #[test]
    fn of_equal_places_the_first_has_the_gradient_and_nan_is_not_lost() {
        let plane = Plane { height: 2, width: 2, channels: 1 };
        let mut y = [0.0];
        let mut found = [0.0; 4];
        largest(plane, &[3.0, 3.0, 1.0, 3.0], &mut y);
        largest_gradient(plane, &[3.0, 3.0, 1.0, 3.0], &y, &[5.0], &mut found);
        assert_eq!((y, found), ([3.0], [5.0, 0.0, 0.0, 0.0]));
        largest(plane, &[1.0, f32::NAN, 3.0, 2.0], &mut y);
        assert!(y[0].is_nan());
    }
}
