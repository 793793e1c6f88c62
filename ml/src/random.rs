//! Random numbers that are the same on every machine and in every version of every library.
//!
//! A checkpoint goes on where another process stopped, perhaps an upgrade later, with the same result. So what is drawn must
//! depend on nothing but the key: the generator is SplitMix64 (Steele, Lea, Flood 2014), keyed by hashing the numbers that say what
//! is drawn, for instance (seed, epoch, image, view). There is no state to save, and views can be drawn in any order on any thread.
//!
//! It is not for secrets.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// The stream of a key. Different keys give unrelated streams.
    pub(crate) fn keyed(key: &[u64]) -> Self {
        let mut random = Self { state: 0x5448_414e_4f53_514c };
        for &part in key {
            random.state = random.next() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
            random.next();
        }
        random
    }

    /// 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, but not including, 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// From `low` to `high`.
    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// From 0 up to, but not including, `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// From the normal distribution with mean 0 and deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f32 {
        let radius = (-2.0 * f64::from(1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.unit())).cos()) as f32
    }

    /// The numbers below `count` in random order.
    pub(crate) fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fixes_the_stream() {
        let draw = |key: &[u64]| Random::keyed(key).next();
        assert_eq!(draw(&[1, 2, 3]), draw(&[1, 2, 3]));
        assert_ne!(draw(&[1, 2, 3]), draw(&[1, 3, 2]));
        assert_ne!(draw(&[1]), draw(&[1, 0]));
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::keyed(&[7]);
        let count = 100_000;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let units: Vec<f64> = (0..count).map(|_| f64::from(random.unit())).collect();
        assert!((mean(&units) - 0.5).abs() < 0.01);
        let normals: Vec<f64> = (0..count).map(|_| f64::from(random.normal())).collect();
        let squares: Vec<f64> = normals.iter().map(|value| value * value).collect();
        assert!(mean(&normals).abs() < 0.02 && (mean(&squares) - 1.0).abs() < 0.03);
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut order = Random::keyed(&[3]).permutation(1000);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
        assert!(Random::keyed(&[3]).permutation(0).is_empty());
    }
}
