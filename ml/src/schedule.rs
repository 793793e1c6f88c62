//! The learning rate over a training: a linear warm-up, then half a cosine down to zero (arXiv 2002.05709, section 2.2; the cosine is Loshchilov and
//! Hutter's, arXiv 1608.03983).

use std::f64::consts::PI;

/// The learning rate of every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Schedule {
    peak: f64,
    warmup_steps: u64,
    total_steps: u64,
}

impl Schedule {
    /// `warmup_steps` may be more than there are; the peak is then never reached.
    pub(crate) fn new(peak: f64, warmup_steps: u64, total_steps: u64) -> Self {
        Self { peak, warmup_steps, total_steps }
    }

    /// The learning rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let part = ((step - self.warmup_steps) as f64 / falling as f64).min(1.0);
        self.peak * 0.5 * (1.0 + (PI * part).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_then_falls() {
        let schedule = Schedule::new(0.1, 3, 11);
        let rates: Vec<f64> = (0..11).map(|step| schedule.rate(step)).collect();
        for (step, expected) in [(0, 0.025), (1, 0.05), (2, 0.075), (3, 0.1), (7, 0.05)] {
            assert!((rates[step] - expected).abs() < 1e-12, "step {step}: {}", rates[step]);
        }
        assert!(rates[3..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(rates[10] > 0.0 && schedule.rate(11) < 1e-12 && schedule.rate(1000) < 1e-12);
    }

    #[test]
    fn odd_lengths_are_harmless() {
        assert!((Schedule::new(0.1, 0, 1).rate(0) - 0.1).abs() < 1e-12);
        assert!(Schedule::new(0.1, 0, 0).rate(0).is_finite());
        assert!(Schedule::new(0.1, 10, 3).rate(2) < 0.1);
    }
}
