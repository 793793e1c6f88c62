//! How far apart two vectors are, for the order alone: squares and signs are as they cost least.

/// Numbers summed side by side, so that the compiler can use vector registers.
const LANES: usize = 16;

/// What near means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GraphMetric {
    /// Least angle.
    Cosine,
    /// Least Euclidean distance.
    L2,
    /// Greatest inner product. It is no metric (a vector may be nearer to others than to itself), and recall is lower than with the others.
    InnerProduct,
    /// Least sum of absolute differences.
    L1,
}

impl GraphMetric {
    /// All of them.
    pub const ALL: [GraphMetric; 4] =
        [GraphMetric::Cosine, GraphMetric::L2, GraphMetric::InnerProduct, GraphMetric::L1];

    /// The vector as distances are computed from it; `None` if it has no place among others.
    pub(super) fn prepared(self, vector: &[f32]) -> Option<Vec<f32>> {
        if !vector.iter().all(|number| number.is_finite()) {
            return None;
        }
        match self {
            GraphMetric::Cosine => {
                let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
                (norm > 0.0).then(|| vector.iter().map(|x| (f64::from(*x) / norm) as f32).collect())
            }
            GraphMetric::L2 | GraphMetric::InnerProduct | GraphMetric::L1 => Some(vector.to_vec()),
        }
    }

    /// Of two vectors of one length, prepared; lower is nearer.
    pub(super) fn distance(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            GraphMetric::Cosine => 1.0 - sum(a, b, |x, y| x * y),
            GraphMetric::L2 => sum(a, b, |x, y| (x - y) * (x - y)),
            GraphMetric::InnerProduct => -sum(a, b, |x, y| x * y),
            GraphMetric::L1 => sum(a, b, |x, y| (x - y).abs()),
        }
    }
}

#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a_block, b_block) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += term(a_block[lane], b_block[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| term(*x, *y)).sum();
    sums.iter().sum::<f32>() + rest
}
