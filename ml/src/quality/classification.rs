//! How good a prediction of classes is: accuracy, and precision, recall and F1 as means over the classes.
//!
//! The means are unweighted ("macro"): every class that occurs, as a truth or as a prediction, counts the same however many images it
//! has. A quotient without a denominator (the precision of a class that was never predicted, the recall of one that does not occur) is 0. Both are
//! scikit-learn's rules, so that figures can be compared.

use std::collections::BTreeMap;

/// The scores of a prediction, each from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classification {
    /// The part of all that was predicted right.
    pub accuracy: f64,
    /// Of what was predicted as a class, the part that is of it; the mean over the classes.
    pub precision: f64,
    /// Of what is of a class, the part that was predicted so; the mean over the classes.
    pub recall: f64,
    /// Harmonic mean of a class's precision and recall; the mean over the classes.
    pub f1: f64,
}

/// What is known of one class.
#[derive(Default)]
struct Class {
    truths: u64,
    predictions: u64,
    hits: u64,
}

impl Classification {
    /// The scores of `counts`: truth, prediction, and how often the two came together. None without any.
    pub fn of<L: Ord + Clone>(
        counts: impl IntoIterator<Item = (L, L, u64)>,
    ) -> Option<Classification> {
        let mut classes: BTreeMap<L, Class> = BTreeMap::new();
        let (mut all, mut hits) = (0, 0);
        for (truth, prediction, count) in counts {
            all += count;
            classes.entry(prediction.clone()).or_default().predictions += count;
            let hit = truth == prediction;
            let class = classes.entry(truth).or_default();
            class.truths += count;
            if hit {
                class.hits += count;
                hits += count;
            }
        }
        if all == 0 {
            return None;
        }
        let mut sums = (0.0, 0.0, 0.0);
        for class in classes.values() {
            let precision = quotient(class.hits, class.predictions);
            let recall = quotient(class.hits, class.truths);
            sums.0 += precision;
            sums.1 += recall;
            // 2 p r / (p + r), written so that it needs one quotient only.
            sums.2 += quotient(2 * class.hits, class.truths + class.predictions);
        }
        let classes = classes.len() as f64;
        Some(Classification {
            accuracy: quotient(hits, all),
            precision: sums.0 / classes,
            recall: sums.1 / classes,
            f1: sums.2 / classes,
        })
    }
}

fn quotient(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        // a: 3 of 4 right; b: 1 of 2 right, and predicted twice more for a and c; c: never right.
        let counts = [("a", "a", 3), ("a", "b", 1), ("b", "b", 1), ("b", "a", 1), ("c", "b", 1)];
        let scores = Classification::of(counts).unwrap();
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
        near(scores.accuracy, 4.0 / 7.0);
        near(scores.precision, (3.0 / 4.0 + 1.0 / 3.0 + 0.0) / 3.0);
        near(scores.recall, (3.0 / 4.0 + 1.0 / 2.0 + 0.0) / 3.0);
        near(scores.f1, (3.0 / 4.0 + 2.0 / 5.0 + 0.0) / 3.0);
    }

    #[test]
    fn all_right_and_all_wrong() {
        let right = Classification::of([(1, 1, 5), (2, 2, 1)]).unwrap();
        assert_eq!((right.accuracy, right.precision, right.recall, right.f1), (1.0, 1.0, 1.0, 1.0));
        let wrong = Classification::of([(1, 2, 5)]).unwrap();
        assert_eq!((wrong.accuracy, wrong.precision, wrong.recall, wrong.f1), (0.0, 0.0, 0.0, 0.0));
        assert_eq!(Classification::of(Vec::<(u8, u8, u64)>::new()), None);
    }
}
