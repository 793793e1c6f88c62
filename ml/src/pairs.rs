//! Positive pairs of a trained model: two views of an image, drawn as its training drew them, and how far apart they come to lie.
//!
//! The mean of these distances is the alignment of Wang and Isola (2020, arXiv 2005.10242): the part of the contrastive loss that an encoder can be measured by
//! without labels. The draws depend on the recipe's seed and an image's pixels alone, so that a measurement can be repeated.

use serde::{Deserialize, Serialize};

use crate::error::MlError;
use crate::images::ImageSet;
use crate::model::Model;
use crate::quality::squared_distance;
use crate::views::{Augmentation, ViewDrawer};

/// How views are drawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRecipe {
    /// What views are made by; None for what images of the model's shape get when nothing is asked for.
    #[serde(default)]
    augmentations: Option<Vec<Augmentation>>,
    #[serde(default)]
    seed: u64,
}

impl ViewRecipe {
    pub(crate) fn new(augmentations: Vec<Augmentation>, seed: u64) -> ViewRecipe {
        ViewRecipe { augmentations: Some(augmentations), seed }
    }

    /// That of a training, from the recipe that it wrote down ([`crate::Trained::recipe`]). What it does not tell is the default.
    pub fn of(recipe: &serde_json::Value) -> ViewRecipe {
        serde_json::from_value(recipe.clone())
            .unwrap_or(ViewRecipe { augmentations: None, seed: 0 })
    }
}

/// Gets the views of a batch of images, `[2 * count, channels, height, width]`, the vectors of one view of each, and those of the other.
pub(crate) type SeePairs<'a> = dyn FnMut(&[f32], &[f32], &[f32]) + 'a;

impl Model {
    /// For each image, the [squared distance](squared_distance) between the vectors of two views of it, from 0 to 4.
    ///
    /// `stop` is asked before every batch.
    ///
    /// # Errors
    ///
    /// As [`embed`](Self::embed).
    pub fn view_distances(
        &self,
        images: &ImageSet,
        recipe: &ViewRecipe,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<f32>, MlError> {
        let dim = self.embedding_dim();
        let mut distances = Vec::with_capacity(images.len());
        self.each_pair_of_views(images, recipe, stop, &mut |_, first, second| {
            let pairs = first.chunks_exact(dim).zip(second.chunks_exact(dim));
            distances.extend(pairs.map(|(one, other)| squared_distance(one, other) as f32));
        })?;
        Ok(distances)
    }

    /// Draws two views of each image and embeds them; `see` gets them a batch at a time.
    pub(crate) fn each_pair_of_views(
        &self,
        images: &ImageSet,
        recipe: &ViewRecipe,
        stop: &dyn Fn() -> bool,
        see: &mut SeePairs<'_>,
    ) -> Result<(), MlError> {
        if images.is_empty() {
            return Ok(());
        }
        if images.spec() != self.input() {
            return Err(MlError::InputMismatch { expected: self.input(), found: images.spec() });
        }
        let augmentations =
            recipe.augmentations.clone().unwrap_or_else(|| Augmentation::defaults(self.input()));
        let drawer = ViewDrawer::new(self.input(), &augmentations, recipe.seed);
        let dim = self.embedding_dim();
        // A pair takes two places of a batch.
        let (batch, length) = (self.batch() / 2, self.input().image_len());
        for start in (0..images.len()).step_by(batch) {
            if stop() {
                return Err(MlError::Stopped);
            }
            let count = batch.min(images.len() - start);
            let views = drawer.draw_by_content(images.range(start, start + count));
            let rows = self.rows(2 * count);
            let mut filled = Vec::with_capacity(rows * length);
            filled.extend_from_slice(&views);
            filled.resize(rows * length, 0.0);
            let vectors = self.forward(filled, rows)?;
            let (first, second) = vectors[..2 * count * dim].split_at(count * dim);
            see(&views, first, second);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ComputeDevice;
    use crate::encoder::EncoderChoice;
    use crate::images::{Color, InputSpec};
    use crate::random::Random;

    const INPUT: InputSpec = InputSpec { size: 12, color: Color::Gray };

    fn model() -> Model {
        let architecture = EncoderChoice::Compact.resolve(INPUT);
        let weights = architecture.initial_weights(3);
        Model::new(INPUT, architecture, weights, &ComputeDevice::cpu())
    }

    fn images(count: usize) -> ImageSet {
        let mut random = Random::keyed(&[6]);
        let pixels = (0..count * INPUT.image_len()).map(|_| random.next() as u8).collect();
        ImageSet::new(INPUT, pixels).unwrap()
    }

    #[test]
    fn a_pair_depends_on_its_image_alone() {
        let (model, images) = (model(), images(5));
        let recipe = ViewRecipe::of(&serde_json::json!({"seed": 4, "augmentations": ["affine"]}));
        let distances = model.view_distances(&images, &recipe, &|| false).unwrap();
        assert_eq!(distances.len(), 5);
        assert!(distances.iter().all(|distance| *distance > 0.0 && *distance < 4.0));
        let alone = model.view_distances(&images.select(&[3]), &recipe, &|| false).unwrap();
        assert!((alone[0] - distances[3]).abs() < 1e-5);
    }

    #[test]
    fn views_that_do_not_differ_lie_together() {
        let recipe = ViewRecipe::of(&serde_json::json!({"augmentations": []}));
        let distances = model().view_distances(&images(3), &recipe, &|| false).unwrap();
        assert!(distances.iter().all(|distance| *distance < 1e-6), "{distances:?}");
        let stopped = model().view_distances(&images(3), &recipe, &|| true);
        assert!(matches!(stopped, Err(MlError::Stopped)));
    }

    #[test]
    fn a_recipe_that_tells_nothing_is_the_default() {
        let nothing = ViewRecipe { augmentations: None, seed: 0 };
        assert_eq!(ViewRecipe::of(&serde_json::json!({"method": "simclr"})), nothing);
        assert_eq!(ViewRecipe::of(&serde_json::json!("no recipe")), nothing);
    }
}
