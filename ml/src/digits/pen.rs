//! A pen: smooth lines through points, and ink on paper.

use super::Chance;

/// A place on the page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// What is written with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pen {
    /// Half the width of a line in pixels.
    pub(super) radius: f32,
    /// How much the width changes along a stroke, as a share of it.
    pub(super) pressure: f32,
    /// Width of the line's soft edge in pixels.
    pub(super) softness: f32,
    /// The brightest ink, 0 to 1.
    pub(super) strength: f32,
    /// Deviation of the ink's brightness from pixel to pixel, 0 to 1.
    pub(super) grain: f32,
}

/// Pieces between two control points.
const STEPS: u16 = 10;

/// A line that passes all points: uniform Catmull-Rom splines (Catmull and Rom, 1974) between corners, which are points
/// given twice. Its ends run straight out.
pub(super) fn smooth(points: &[Point]) -> Vec<Point> {
    let mut line = Vec::with_capacity(points.len() * usize::from(STEPS) + 1);
    let mut start = 0;
    for place in 1..=points.len() {
        if place == points.len() || points[place] == points[place - 1] {
            smooth_part(&points[start..place], &mut line);
            start = place;
        }
    }
    line
}

fn smooth_part(points: &[Point], line: &mut Vec<Point>) {
    let last = points.len() - 1;
    line.push(points[0]);
    for place in 0..last {
        let (from, to) = (points[place], points[place + 1]);
        let before = if place == 0 { from } else { points[place - 1] };
        let after = if place + 1 == last { to } else { points[place + 2] };
        for step in 1..=STEPS {
            let t = f32::from(step) / f32::from(STEPS);
            let along = |p0: f32, p1: f32, p2: f32, p3: f32| {
                let (linear, quadratic, cubic) =
                    (p2 - p0, 2.0 * p0 - 5.0 * p1 + 4.0 * p2 - p3, 3.0 * (p1 - p2) + p3 - p0);
                p1 + 0.5 * t * (linear + t * (quadratic + t * cubic))
            };
            line.push(Point {
                x: along(before.x, from.x, to.x, after.x),
                y: along(before.y, from.y, to.y, after.y),
            });
        }
    }
}

/// Paper that collects ink, 0 to 1 a pixel.
pub(super) struct Ink {
    width: usize,
    height: usize,
    coverage: Vec<f32>,
}

impl Ink {
    pub(super) fn new(width: usize, height: usize) -> Ink {
        Ink { width, height, coverage: vec![0.0; width * height] }
    }

    /// Draws a line. The hand presses harder and lighter on its way, and lifts a little at the end.
    pub(super) fn draw(&mut self, line: &[Point], chance: &mut Chance, pen: Pen) {
        let (rate, phase) = (chance.between(0.05, 0.2), chance.between(0.0, std::f32::consts::TAU));
        let lift = chance.between(0.0, 0.35);
        let pieces = line.len().saturating_sub(1).max(1) as f32;
        for (place, ends) in line.windows(2).enumerate() {
            let place = place as f32;
            let pressed = 1.0 + pen.pressure * (rate * place + phase).sin();
            let lifted = 1.0 - lift * ((place / pieces - 0.8) / 0.2).max(0.0);
            self.draw_piece(ends[0], ends[1], pen.radius * pressed * lifted, pen.softness);
        }
    }

    fn draw_piece(&mut self, from: Point, to: Point, radius: f32, softness: f32) {
        let reach = radius + softness;
        let pixels = |low: f32, high: f32, side: usize| {
            let first = (low - reach - 0.5).floor().max(0.0) as usize;
            let end = (high + reach + 0.5).ceil().max(0.0) as usize;
            first.min(side)..end.min(side)
        };
        for y in pixels(from.y.min(to.y), from.y.max(to.y), self.height) {
            for x in pixels(from.x.min(to.x), from.x.max(to.x), self.width) {
                let middle = Point { x: x as f32 + 0.5, y: y as f32 + 0.5 };
                let edge = radius - distance(middle, from, to);
                let covered = (edge / softness * 0.5 + 0.5).clamp(0.0, 1.0);
                let pixel = &mut self.coverage[y * self.width + x];
                *pixel = pixel.max(covered);
            }
        }
    }

    /// The pixels: ink of uneven strength on clean paper.
    pub(super) fn develop(&self, pen: Pen, chance: &mut Chance, pixels: &mut [u8]) {
        for (pixel, &covered) in pixels.iter_mut().zip(&self.coverage) {
            let grain = 1.0 - pen.grain * chance.normal().abs();
            *pixel = (255.0 * covered * pen.strength * grain).round().clamp(0.0, 255.0) as u8;
        }
    }
}

/// From a point to the nearest point of a segment.
fn distance(point: Point, from: Point, to: Point) -> f32 {
    let (along_x, along_y) = (to.x - from.x, to.y - from.y);
    let length_squared = along_x * along_x + along_y * along_y;
    let t = if length_squared > 0.0 {
        (((point.x - from.x) * along_x + (point.y - from.y) * along_y) / length_squared)
            .clamp(0.0, 1.0)
    } else {
        0.0
    };
    (point.x - from.x - t * along_x).hypot(point.y - from.y - t * along_y)
}
