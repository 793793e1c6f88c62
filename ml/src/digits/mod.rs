//! Digits as if written by hand: a dataset that needs no network.
//!
//! A digit is drawn the way a hand draws it. [`shapes`] knows how people write each figure (an open four, a seven with a bar, a two
//! with a loop), as a few strokes through control points; a writer is invented by chance (slant, width, size, pen,
//! steadiness) and writes the strokes through displaced control points; [`pen`] puts them on paper as grey pixels, white on black, 28 x 28, as
//! MNIST has them. So two images of a class differ in style, geometry and pen, not by noise alone: pixels next to each other in
//! memory say little, and an encoder has something to learn.
//!
//! The numbers behind the choices come from a small generator of our own, so that a seed means the same images in every version
//! of every library.
//!
//! Left out: pairs of digits that touch, paper, colour.

mod dataset;
mod pen;
mod shapes;

#[cfg(test)]
mod tests;

pub use dataset::{DigitsDataset, DigitsFile, write_dataset};

use pen::{Ink, Point};

/// Side of a drawn digit, in pixels.
pub const DIGIT_SIZE: usize = 28;

/// A drawn digit, row by row, 0 is the paper and 255 full ink.
pub type GrayPixels = [u8; DIGIT_SIZE * DIGIT_SIZE];

/// Draws a digit. The same label and seed give the same pixels.
///
/// # Panics
/// If `label` is over 9.
pub fn draw_digit(label: u8, seed: u64) -> GrayPixels {
    let mut chance = Chance::new(seed ^ (u64::from(label) << 56));
    let styles = shapes::styles(label);
    let style = styles[chance.pick(styles.len())];
    let writer = Writer::invent(&mut chance);
    let strokes = writer.write(style, &mut chance);
    let mut ink = Ink::new(DIGIT_SIZE, DIGIT_SIZE);
    for stroke in &strokes {
        ink.draw(stroke, &mut chance, writer.pen);
    }
    let mut pixels = [0; DIGIT_SIZE * DIGIT_SIZE];
    ink.develop(writer.pen, &mut chance, &mut pixels);
    pixels
}

/// How somebody writes, on one occasion.
struct Writer {
    /// Height of the figure in pixels.
    height: f32,
    /// Width as a share of the height.
    aspect: f32,
    /// Shear: how far the top leans to the right, as a share of the height.
    slant: f32,
    /// Turn in radians.
    turn: f32,
    /// Standard deviation of a control point's displacement, as a share of the height.
    unsteadiness: f32,
    /// A slow wave over the whole figure, as a share of the height: amplitude, wave number, phase for each axis.
    waves: [[f32; 3]; 2],
    /// Displacement of the figure's middle in pixels.
    offset: Point,
    pen: pen::Pen,
}

impl Writer {
    fn invent(chance: &mut Chance) -> Writer {
        let mut wave = || {
            [
                chance.normal() * 0.03,
                chance.between(2.5, 6.5),
                chance.between(0.0, std::f32::consts::TAU),
            ]
        };
        let waves = [wave(), wave()];
        Writer {
            height: chance.around(19.0, 1.3, 14.5, 22.5),
            aspect: chance.around(0.66, 0.12, 0.36, 1.0),
            slant: chance.around(0.12, 0.2, -0.4, 0.62),
            turn: chance.around(0.0, 0.09, -0.25, 0.25),
            unsteadiness: chance.around(0.03, 0.012, 0.01, 0.065),
            waves,
            offset: Point {
                x: chance.around(0.0, 0.75, -2.0, 2.0),
                y: chance.around(0.0, 0.75, -2.0, 2.0),
            },
            pen: pen::Pen {
                radius: chance.around(1.12, 0.33, 0.6, 2.1),
                pressure: chance.between(0.05, 0.3),
                softness: chance.between(0.55, 1.0),
                strength: chance.between(0.86, 1.0),
                grain: chance.between(0.0, 0.09),
            },
        }
    }

    /// The strokes of a style as this writer's lines, in pixels.
    fn write(&self, style: shapes::Style, chance: &mut Chance) -> Vec<Vec<Point>> {
        let lines: Vec<Vec<Point>> =
            style.iter().map(|stroke| self.write_stroke(stroke, chance)).collect();
        let middle = middle_of(&lines);
        let half = DIGIT_SIZE as f32 / 2.0;
        let to_page =
            Point { x: half + self.offset.x - middle.x, y: half + self.offset.y - middle.y };
        lines
            .into_iter()
            .map(|line| {
                line.into_iter()
                    .map(|point| Point { x: point.x + to_page.x, y: point.y + to_page.y })
                    .collect()
            })
            .collect()
    }

    fn write_stroke(&self, stroke: &[(f32, f32)], chance: &mut Chance) -> Vec<Point> {
        let mut displaced: Vec<Point> = Vec::with_capacity(stroke.len());
        for (place, &(x, y)) in stroke.iter().enumerate() {
            // A corner is a point given twice: it stays one point.
            let point = if place > 0 && stroke[place - 1] == (x, y) {
                displaced[place - 1]
            } else {
                Point {
                    x: x + chance.normal() * self.unsteadiness / self.aspect.max(0.5),
                    y: y + chance.normal() * self.unsteadiness,
                }
            };
            displaced.push(point);
        }
        pen::smooth(&displaced).into_iter().map(|point| self.place(point)).collect()
    }

    /// From the unit square to pixels around the origin.
    fn place(&self, point: Point) -> Point {
        let [[amplitude_x, number_x, phase_x], [amplitude_y, number_y, phase_y]] = self.waves;
        let x = (point.x - 0.5 + amplitude_x * (number_x * point.y + phase_x).sin()) * self.aspect;
        let y = point.y - 0.5 + amplitude_y * (number_y * point.x + phase_y).sin();
        let leaning = x - self.slant * y;
        let (sine, cosine) = self.turn.sin_cos();
        Point {
            x: (leaning * cosine - y * sine) * self.height,
            y: (leaning * sine + y * cosine) * self.height,
        }
    }
}

/// The middle of the box around all points.
fn middle_of(lines: &[Vec<Point>]) -> Point {
    let mut low = Point { x: f32::INFINITY, y: f32::INFINITY };
    let mut high = Point { x: f32::NEG_INFINITY, y: f32::NEG_INFINITY };
    for point in lines.iter().flatten() {
        low = Point { x: low.x.min(point.x), y: low.y.min(point.y) };
        high = Point { x: high.x.max(point.x), y: high.y.max(point.y) };
    }
    Point { x: (low.x + high.x) / 2.0, y: (low.y + high.y) / 2.0 }
}

/// Pseudorandom numbers by SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct Chance {
    state: u64,
}

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 up to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Evenly between two values.
    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Normally distributed, mean 0, deviation 1 (Box and Muller).
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.unit()).cos()
    }

    /// Normally distributed, within bounds.
    fn around(&mut self, mean: f32, deviation: f32, low: f32, high: f32) -> f32 {
        (mean + deviation * self.normal()).clamp(low, high)
    }

    /// One of `count` places.
    fn pick(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }
}
