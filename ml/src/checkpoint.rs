//! All that a training needs to go on after an epoch as if it had never stopped: weights, statistics, the optimizer's state, the epoch, the curve.
//!
//! There is no state of a random generator, because every draw is keyed by seed and epoch (see [`crate::random`]). The recipe and a digest of the images
//! are kept, and compared: going on with other data or other options would give a model that no options describe.

use serde::{Deserialize, Serialize};

use crate::epoch_quality::EpochQuality;
use crate::error::MlError;
use crate::images::Images;
use crate::recipe::Recipe;
use crate::train::EpochSummary;
use crate::weights::Weights;

/// The header's entry.
const HEADER: &str = "thanosql.checkpoint";

/// The version of that entry that is written, and the only one that is read. Raised also when a training's arithmetic or its views become others: going on
/// would give a model that no version of this program gives.
const VERSION: u32 = 3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    /// As text, because it is compared letter by letter.
    recipe: String,
    data: u64,
    epoch: u32,
    curve: Vec<Point>,
}

/// An [`EpochSummary`] with its numbers as bits, because a decimal number may come back a little different.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    epoch: u32,
    loss: u64,
    chance: u64,
    alignment: Option<u64>,
    uniformity: Option<u64>,
    effective_rank: Option<u64>,
    dead_dimensions: Option<u64>,
    knn_accuracy: Option<u64>,
    seconds: u64,
}

impl From<&EpochSummary> for Point {
    fn from(summary: &EpochSummary) -> Self {
        let bits = |number: Option<f64>| number.map(f64::to_bits);
        let quality = &summary.quality;
        Self {
            epoch: summary.epoch,
            loss: summary.loss.to_bits(),
            chance: summary.chance.to_bits(),
            alignment: bits(quality.alignment),
            uniformity: bits(quality.uniformity),
            effective_rank: bits(quality.effective_rank),
            dead_dimensions: bits(quality.dead_dimensions),
            knn_accuracy: bits(quality.knn_accuracy),
            seconds: summary.seconds.to_bits(),
        }
    }
}

impl From<&Point> for EpochSummary {
    fn from(point: &Point) -> Self {
        let number = |bits: Option<u64>| bits.map(f64::from_bits);
        Self {
            epoch: point.epoch,
            loss: f64::from_bits(point.loss),
            chance: f64::from_bits(point.chance),
            quality: EpochQuality {
                alignment: number(point.alignment),
                uniformity: number(point.uniformity),
                effective_rank: number(point.effective_rank),
                dead_dimensions: number(point.dead_dimensions),
                knn_accuracy: number(point.knn_accuracy),
            },
            seconds: f64::from_bits(point.seconds),
        }
    }
}

/// A training after an epoch.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// Epochs done.
    pub(crate) epoch: u32,
    pub(crate) curve: Vec<EpochSummary>,
    /// The encoder's, the head's and the optimizer's arrays.
    pub(crate) weights: Weights,
}

impl Checkpoint {
    /// Writes it for a recipe and a [`digest`] of the data.
    pub(crate) fn to_bytes(&self, recipe: &Recipe, data: u64) -> Result<Vec<u8>, MlError> {
        let header = Header {
            version: VERSION,
            recipe: text(recipe)?,
            data,
            epoch: self.epoch,
            curve: self.curve.iter().map(Point::from).collect(),
        };
        let header = serde_json::to_string(&header).map_err(|error| invalid(error.to_string()))?;
        self.weights.to_safetensors(HEADER, header).map_err(invalid)
    }

    /// Reads it. `expected` are the arrays that it must hold.
    pub(crate) fn from_bytes(
        bytes: &[u8],
        recipe: &Recipe,
        data: u64,
        expected: &[(String, Vec<usize>)],
    ) -> Result<Self, MlError> {
        let (weights, header) = Weights::from_safetensors(bytes, HEADER).map_err(invalid)?;
        let header: Header =
            serde_json::from_str(&header).map_err(|error| invalid(error.to_string()))?;
        if header.version != VERSION {
            return Err(invalid(format!("its version is {}, not {VERSION}", header.version)));
        }
        if header.recipe != text(recipe)? {
            return Err(invalid("it was made with other options".to_owned()));
        }
        if header.data != data {
            return Err(invalid("it was made with other images or targets".to_owned()));
        }
        if header.epoch == 0
            || header.epoch > recipe.epochs
            || header.curve.len() != header.epoch as usize
        {
            return Err(invalid(format!(
                "it ends after epoch {} of {}",
                header.epoch, recipe.epochs
            )));
        }
        weights.require(expected).map_err(invalid)?;
        Ok(Self {
            epoch: header.epoch,
            curve: header.curve.iter().map(EpochSummary::from).collect(),
            weights,
        })
    }
}

fn invalid(reason: String) -> MlError {
    MlError::InvalidCheckpoint { reason }
}

fn text(recipe: &Recipe) -> Result<String, MlError> {
    serde_json::to_string(recipe).map_err(|error| invalid(error.to_string()))
}

/// A number that tells data sets apart: FNV-1a over eight bytes at a time, then over the targets.
pub(crate) fn digest(
    images: &dyn Images,
    targets: Option<&[Option<u32>]>,
    stop: &mut dyn FnMut() -> bool,
) -> Result<u64, MlError> {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ images.len() as u64;
    let mut add = |value: u64| hash = (hash ^ value).wrapping_mul(PRIME).rotate_left(23);
    images.each(&mut |some| {
        if stop() {
            return Err(MlError::Stopped);
        }
        let (words, rest) = some.pixels().as_chunks::<8>();
        words.iter().for_each(|&word| add(u64::from_le_bytes(word)));
        rest.iter().for_each(|&byte| add(u64::from(byte)));
        Ok(())
    })?;
    for target in targets.unwrap_or_default() {
        add(target.map_or(u64::MAX, u64::from));
    }
    Ok(hash)
}
