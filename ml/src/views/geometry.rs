//! Geometry of a view: where in the image each of its places comes from.
//!
//! Places lie in the square from -1 to 1 in both directions. Affine maps are composed into one, and a [`Deformation`] adds a smooth bend to it: displacements
//! at the knots of a coarse grid, between them weighed by a cubic B-spline, which has no creases (a free-form deformation, Rueckert et al. 1999). B-splines of
//! degree 3 reproduce linear functions, so the affine map is folded into the knots, and a view is two products with the [weights](spline_weights)
//! of a line, whether it is bent or not.

use std::f32::consts::PI;

use crate::random::Random;

pub(super) use crate::kernels::KNOTS;

/// Deviation of a knot's displacement; the side is 2. The spline's weights leave about a half of it.
pub(super) const BEND: f32 = 0.18;

/// A map of the square from -1 to 1 in both directions, without its perspective part: `x' = xx x + xy y + x0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AffineMap {
    pub(super) xx: f32,
    pub(super) xy: f32,
    pub(super) x0: f32,
    pub(super) yx: f32,
    pub(super) yy: f32,
    pub(super) y0: f32,
}

impl AffineMap {
    pub(super) const IDENTITY: Self = Self { xx: 1.0, xy: 0.0, x0: 0.0, yx: 0.0, yy: 1.0, y0: 0.0 };

    /// Left and right exchanged.
    pub(super) const FLIP: Self = Self { xx: -1.0, ..Self::IDENTITY };

    /// `first`, then this.
    pub(super) fn after(self, first: Self) -> Self {
        Self {
            xx: self.xx * first.xx + self.xy * first.yx,
            xy: self.xx * first.xy + self.xy * first.yy,
            x0: self.xx * first.x0 + self.xy * first.y0 + self.x0,
            yx: self.yx * first.xx + self.yy * first.yx,
            yy: self.yx * first.xy + self.yy * first.yy,
            y0: self.yx * first.x0 + self.yy * first.y0 + self.y0,
        }
    }

    /// A slight change of position, angle, slant and size. A map of places in the view to places in the image: a scale below 1 enlarges.
    pub(super) fn slight(random: &mut Random) -> Self {
        let (sine, cosine) = random.uniform(-PI / 12.0, PI / 12.0).sin_cos();
        let slant = random.uniform(-PI / 18.0, PI / 18.0).tan();
        // Areas from a half up, then a little more or less; height to width from 4:5 to 5:4.
        let scale = random.uniform(0.5, 1.0).sqrt() * random.uniform(0.95, 1.2);
        let stretch = random.uniform(0.8, 1.25).sqrt();
        let turn = Self { xx: cosine, xy: -sine, yx: sine, yy: cosine, ..Self::IDENTITY };
        let shear = Self { xy: slant, ..Self::IDENTITY };
        let size = Self { xx: scale * stretch, yy: scale / stretch, ..Self::IDENTITY };
        let place = Self {
            x0: random.uniform(-0.15, 0.15),
            y0: random.uniform(-0.15, 0.15),
            ..Self::IDENTITY
        };
        place.after(size).after(turn).after(shear)
    }

    /// A rectangle of the image: its area at least `smallest`, its sides from 3:4 to 4:3.
    pub(super) fn crop(random: &mut Random, smallest: f32) -> Self {
        let area = random.uniform(smallest, 1.0);
        let ratio = random.uniform((3.0_f32 / 4.0).ln(), (4.0_f32 / 3.0).ln()).exp();
        let width = (area * ratio).sqrt().min(1.0);
        let height = (area / ratio).sqrt().min(1.0);
        Self {
            xx: width,
            x0: random.uniform(width - 1.0, 1.0 - width),
            yy: height,
            y0: random.uniform(height - 1.0, 1.0 - height),
            ..Self::IDENTITY
        }
    }
}

/// Displacements of the knots, `[KNOTS, KNOTS]`, down and across, each `[x, y]`.
pub(super) type Bend = [[[f32; 2]; KNOTS]; KNOTS];

/// A random bend (Simard, Steinkraus, Platt 2003 bend digits like this).
pub(super) fn random_bend(random: &mut Random) -> Bend {
    let mut bend = [[[0.0; 2]; KNOTS]; KNOTS];
    fill_normal(random, bend.as_flattened_mut().as_flattened_mut());
    bend.as_flattened_mut().as_flattened_mut().iter_mut().for_each(|value| *value *= BEND);
    bend
}

/// Where each place of a view comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Deformation {
    /// Places in the image of the knots, `[KNOTS, KNOTS]`, down and across, each `[x, y]`.
    pub(super) knots: Bend,
}

impl Deformation {
    /// `map`, and displaced by `bend` after it.
    pub(super) fn new(map: AffineMap, bend: Option<&Bend>) -> Self {
        let mut knots = bend.copied().unwrap_or_default();
        // Three knots further on lies the next knot outside: the cells between them make up the side.
        let place = |knot: usize| 2.0 * (knot as f32 - 1.0) / CELLS as f32 - 1.0;
        for (down, row) in knots.iter_mut().enumerate() {
            for (across, [x, y]) in row.iter_mut().enumerate() {
                let (from_x, from_y) = (place(across), place(down));
                *x += map.xx * from_x + map.xy * from_y + map.x0;
                *y += map.yx * from_x + map.yy * from_y + map.y0;
            }
        }
        Self { knots }
    }
}

/// Parts of a side between knots.
const CELLS: usize = KNOTS - 3;

/// `[KNOTS, side]`: the weight of each knot of a line at each of its pixels, a cubic B-spline. Four knots have a weight at a pixel; the weights' sum is 1.
pub(super) fn spline_weights(side: usize) -> Vec<f32> {
    let mut weights = vec![0.0; KNOTS * side];
    for pixel in 0..side {
        let place = (pixel as f32 + 0.5) / side as f32 * CELLS as f32;
        let first = (place as usize).min(CELLS - 1);
        let t = place - first as f32;
        let s = 1.0 - t;
        let four = [
            s * s * s,
            4.0 - 6.0 * t * t + 3.0 * t * t * t,
            4.0 - 6.0 * s * s + 3.0 * s * s * s,
            t * t * t,
        ];
        for (knot, weight) in (first..).zip(four) {
            weights[knot * side + pixel] = weight / 6.0;
        }
    }
    weights
}

/// Fills with what [`Random::normal`] would give one after the other, up to rounding: by polynomials, which a compiler vectorises and which give the
/// same bits on every machine.
fn fill_normal(random: &mut Random, values: &mut [f32]) {
    let mut angles = [0.0_f32; 2 * KNOTS * KNOTS];
    let angles = &mut angles[..values.len()];
    for (value, angle) in values.iter_mut().zip(angles.iter_mut()) {
        *value = 1.0 - random.unit();
        *angle = random.unit();
    }
    for (value, &angle) in values.iter_mut().zip(angles.iter()) {
        *value = (-2.0 * logarithm(*value)).sqrt() * cosine_of_turn(angle);
    }
}

/// The natural logarithm of a normal number above 0.
#[inline(always)]
fn logarithm(value: f32) -> f32 {
    // value = 2^exponent mantissa, with a mantissa from sqrt(1/2) to sqrt(2); ln mantissa = 2 artanh((mantissa - 1) / (mantissa + 1)).
    let above = value.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (above as i32) >> 23;
    let mantissa = f32::from_bits(
        (above & 0x007f_ffff).wrapping_add(std::f32::consts::FRAC_1_SQRT_2.to_bits()),
    );
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = 1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0 + square * (1.0 / 9.0)));
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * (s + s * square * series)
}

/// `cos(2 pi turn)`, of a turn from 0 to 1.
#[inline(always)]
fn cosine_of_turn(turn: f32) -> f32 {
    // A sine of an angle from -pi/2 to pi/2, by its series.
    let angle = std::f32::consts::TAU * ((turn - 0.5).abs() - 0.25);
    let square = angle * angle;
    let series = 1.0 / 120.0
        + square * (-1.0 / 5040.0 + square * (1.0 / 362_880.0 + square * (-1.0 / 39_916_800.0)));
    angle + angle * square * (-1.0 / 6.0 + square * series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_composed_in_order() {
        let shifted = AffineMap { x0: 0.3, y0: -0.2, ..AffineMap::IDENTITY };
        let scaled = AffineMap { xx: 0.5, yy: 2.0, ..AffineMap::IDENTITY };
        let both = shifted.after(scaled);
        assert_eq!((both.xx, both.yy, both.x0, both.y0), (0.5, 2.0, 0.3, -0.2));
        let both = scaled.after(shifted);
        assert_eq!((both.xx, both.yy, both.x0, both.y0), (0.5, 2.0, 0.15, -0.4));
    }

    #[test]
    fn crops_stay_inside() {
        let mut random = Random::keyed(&[4]);
        for _ in 0..1000 {
            let map = AffineMap::crop(&mut random, 0.08);
            assert!(map.xx + map.x0.abs() <= 1.0 + 1e-6 && map.yy + map.y0.abs() <= 1.0 + 1e-6);
            assert!(map.xx * map.yy >= 0.059, "{map:?}");
        }
    }

    /// Where a pixel comes from.
    fn at(deformation: &Deformation, splines: &[f32], side: usize, x: usize, y: usize) -> [f32; 2] {
        let mut sum = [0.0; 2];
        for (down, row) in deformation.knots.iter().enumerate() {
            for (across, knot) in row.iter().enumerate() {
                let weight = splines[down * side + y] * splines[across * side + x];
                sum[0] += weight * knot[0];
                sum[1] += weight * knot[1];
            }
        }
        sum
    }

    #[test]
    fn an_affine_map_is_a_deformation() {
        let map = AffineMap { xx: 0.8, xy: -0.3, x0: 0.1, yx: 0.2, yy: 1.1, y0: -0.4 };
        let deformation = Deformation::new(map, None);
        for side in [1, 9, 28] {
            let splines = spline_weights(side);
            let place = |pixel: usize| (2.0 * pixel as f32 + 1.0) / side as f32 - 1.0;
            for (x, y) in [(0, 0), (side / 2, side / 3), (side - 1, side - 1)] {
                let [found_x, found_y] = at(&deformation, &splines, side, x, y);
                let (x, y) = (place(x), place(y));
                assert!((found_x - (map.xx * x + map.xy * y + map.x0)).abs() < 1e-6);
                assert!((found_y - (map.yx * x + map.yy * y + map.y0)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_bend_is_smooth_and_of_the_stated_size() {
        let mut random = Random::keyed(&[12]);
        let side = 28;
        let splines = spline_weights(side);
        for pixel in 0..side {
            let weights: Vec<f32> = splines.iter().skip(pixel).step_by(side).copied().collect();
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(weights.iter().all(|weight| (-1e-6..=1.0).contains(weight)));
        }
        let still = AffineMap { xx: 0.0, yy: 0.0, ..AffineMap::IDENTITY };
        let mut squares = 0.0;
        for _ in 0..200 {
            let bend = Deformation::new(still, Some(&random_bend(&mut random)));
            for x in 1..side {
                let [one, _] = at(&bend, &splines, side, x - 1, 9);
                let [other, _] = at(&bend, &splines, side, x, 9);
                assert!((one - other).abs() < 0.18, "neighbours stay near each other");
                squares += other * other;
            }
        }
        let deviation = (squares / (200.0 * 27.0)).sqrt();
        assert!((0.3 * BEND..0.8 * BEND).contains(&deviation), "{deviation} of {BEND}");
    }

    #[test]
    fn normal_numbers_are_those_of_the_generator() {
        let mut values = [0.0; 98];
        for seed in 0..200 {
            fill_normal(&mut Random::keyed(&[seed]), &mut values);
            let mut random = Random::keyed(&[seed]);
            for value in values {
                let expected = random.normal();
                assert!((value - expected).abs() < 2e-6, "{value} for {expected}");
            }
        }
        let smallest = 1.0 / (1 << 24) as f32;
        for value in [smallest, 0.25, 0.5, 0.707, 0.708, 0.9, 1.0 - smallest, 1.0] {
            let expected = value.ln();
            assert!((logarithm(value) - expected).abs() <= 1e-6 * expected.abs(), "{value}");
        }
        for (turn, cosine) in
            [(0.0, 1.0), (0.25, 0.0), (0.5, -1.0), (0.75, 0.0), (0.125, 0.5_f32.sqrt())]
        {
            assert!((cosine_of_turn(turn) - cosine).abs() < 1e-6, "{turn}");
        }
    }
}
