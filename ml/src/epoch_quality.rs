//! What an epoch has come to besides its loss, measured with the encoder as inference will use it, on a sample of the training images.
//!
//! Alignment, uniformity, effective rank and dead dimensions need no labels; the accuracy of nearest neighbours needs targets. They are those of
//! [`crate::quality`], as EVALUATE gives them. The sample is drawn once a training from its seed, and so are the views; nothing that
//! learns is touched. It is a fifth of the images, 500 at least and 2,000 at most, and an eighth of it gives the pairs of views. A training step computes
//! each image six times over (two views, forward and twice backward), so the measures come to a few per cent of an epoch: with the checkpoint 5 % of one of
//! 2,500 to 10,000 images, 1 % of one of 60,000. Small sets are measured whole, in some tenths of a second.
//!
//! It is also where a collapse is seen: see [`Collapse`].

use crate::error::MlError;
use crate::images::Images;
use crate::model::Model;
use crate::pairs::ViewRecipe;
use crate::quality::{
    dead_dimensions, effective_rank, knn_accuracy_among, squared_distance, uniformity,
};
use crate::random::Random;
use crate::recipe::Recipe;

/// Part of the images that is measured.
const SAMPLE_SHARE: usize = 5;
const MIN_SAMPLE: usize = 500;
const MAX_SAMPLE: usize = 2000;

/// Part of the sample whose views are compared.
const PAIRS_SHARE: usize = 8;
const MIN_PAIRS: usize = 16;

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;

/// Keeps the draw of the sample apart from those of other things.
const SAMPLE_DRAW: u64 = 4;

/// Effective rank up to which vectors have one direction. Rounding and RankMe's own small number lift that of equal vectors to 1.001; vectors
/// whose directions differ by a thousandth have 1.1, those of a network that has not learned anything yet far more.
const ONE_DIRECTION: f64 = 1.01;

/// The projection head: from vectors `[count, embedding_dim]` to its own `[count, any]`.
pub(crate) type Head<'a> = dyn Fn(&[f32]) -> Result<Vec<f32>, MlError> + 'a;

/// The measures of an encoder after an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochQuality {
    /// Mean [squared distance](squared_distance) between the vectors of two views of an image, from 0 to 4; lower is better.
    pub alignment: Option<f64>,
    /// [How evenly](uniformity) the vectors are spread over the sphere, from -8 to 0; lower is better.
    pub uniformity: Option<f64>,
    /// [How many directions](effective_rank) the vectors use, from 1 up to their length. `None` if all of them are zeros.
    pub effective_rank: Option<f64>,
    /// The part of the vectors' numbers that are [the same](dead_dimensions) for every image, from 0 to 1.
    pub dead_dimensions: Option<f64>,
    /// Accuracy of the five nearest neighbours among the images that have a target, each looking among the others; from 0 to 1. `None` if
    /// fewer than two have one.
    pub knn_accuracy: Option<f64>,
}

/// Images that differ and are no longer told apart.
///
/// A network has collapsed when whatever it is shown comes out as one direction: the effective rank is that of a single vector. What it is shown here are
/// *views*, the very inputs of training. So images that are alike are no collapse, because their views differ; and if the views do
/// not differ either (blank images, or equal ones without augmentations), there was nothing to tell apart. The other half of the definition is the training's:
/// it speaks of a collapse only after the warm-up, and only while the loss is no better than chance, which it is exactly when all projections are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collapse {
    /// The encoder's vectors.
    Vectors,
    /// What the projection head makes of vectors that still differ. Its gradients are zero from then on.
    Projections,
}

impl Collapse {
    /// What has one direction, in words.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Vectors => "vectors",
            Self::Projections => "projections",
        }
    }
}

/// What is measured after every epoch of one training.
#[derive(Debug)]
pub(crate) struct Examiner {
    /// Places of images: `spread` of all, then labelled ones that are not among these.
    places: Vec<usize>,
    spread: usize,
    /// Of `spread`, the first ones whose views are compared.
    pairs: usize,
    /// Rows of `places` with a target, and the targets.
    labelled: Vec<usize>,
    labels: Vec<u32>,
    views: ViewRecipe,
}

impl Examiner {
    /// Draws the sample.
    pub(crate) fn new(recipe: &Recipe, targets: Option<&[Option<u32>]>) -> Self {
        let images = recipe.images;
        let order = Random::keyed(&[recipe.seed, SAMPLE_DRAW]).permutation(images);
        let size = (images / SAMPLE_SHARE).clamp(MIN_SAMPLE, MAX_SAMPLE);
        let spread = size.min(images);
        let (mut places, mut labelled, mut labels) =
            (order[..spread].to_vec(), Vec::new(), Vec::new());
        let targets = targets.unwrap_or_default();
        for (rank, image) in order.into_iter().enumerate() {
            let Some(&Some(target)) = targets.get(image) else { continue };
            if labels.len() == size {
                break;
            }
            if rank >= spread {
                places.push(image);
            }
            labelled.push(if rank < spread { rank } else { places.len() - 1 });
            labels.push(target);
        }
        Self {
            places,
            spread,
            pairs: (spread / PAIRS_SHARE).max(MIN_PAIRS).min(spread),
            labelled,
            labels,
            views: ViewRecipe::new(recipe.augmentations.clone(), recipe.seed),
        }
    }

    /// Measures a model. With its head, `project`, it also looks for a collapse. `stop` is asked before every batch.
    ///
    /// # Errors
    ///
    /// [`MlError::Stopped`] once `stop` says so, and [`MlError::Device`].
    pub(crate) fn examine(
        &self,
        model: &Model,
        images: &dyn Images,
        project: Option<&Head<'_>>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(EpochQuality, Option<Collapse>), MlError> {
        let dim = model.embedding_dim();
        let mut vectors = Vec::with_capacity(self.places.len() * dim);
        for places in self.places.chunks(model.batch()) {
            vectors.extend(model.embed(&images.fetch(places)?, stop)?);
        }
        let spread = &vectors[..self.spread * dim];
        let labelled: Vec<f32> = self
            .labelled
            .iter()
            .flat_map(|row| &vectors[row * dim..(row + 1) * dim])
            .copied()
            .collect();
        let views = self.view_vectors(model, images, stop)?;
        let quality = EpochQuality {
            alignment: views.alignment(dim),
            uniformity: uniformity(spread, dim, stop)?,
            effective_rank: effective_rank(spread, dim, stop)?,
            dead_dimensions: dead_dimensions(spread, dim),
            knn_accuracy: (self.labels.len() > 1)
                .then(|| knn_accuracy_among(&labelled, &self.labels, dim, NEIGHBOURS)),
        };
        let collapse = match project {
            Some(project) => views.collapse(dim, project, stop)?,
            None => None,
        };
        Ok((quality, collapse))
    }

    fn view_vectors(
        &self,
        model: &Model,
        images: &dyn Images,
        stop: &dyn Fn() -> bool,
    ) -> Result<ViewVectors, MlError> {
        let length = images.spec().image_len();
        let mut views = ViewVectors::default();
        let mut first_view = Vec::new();
        for places in self.places[..self.pairs].chunks(model.batch() / 2) {
            let images = images.fetch(places)?;
            model.each_pair_of_views(
                &images,
                &self.views,
                stop,
                &mut |pixels, first, second| {
                    if first_view.is_empty() {
                        first_view.extend_from_slice(&pixels[..length]);
                    }
                    views.differ |= pixels.chunks_exact(length).any(|view| view != first_view);
                    views.first.extend_from_slice(first);
                    views.second.extend_from_slice(second);
                },
            )?;
        }
        Ok(views)
    }
}

/// What became of one view of each image, and of another.
#[derive(Default)]
struct ViewVectors {
    first: Vec<f32>,
    second: Vec<f32>,
    /// Whether any two views have different pixels.
    differ: bool,
}

impl ViewVectors {
    fn alignment(&self, dim: usize) -> Option<f64> {
        let pairs = self.first.chunks_exact(dim).zip(self.second.chunks_exact(dim));
        let count = pairs.len();
        let sum: f64 = pairs.map(|(first, second)| squared_distance(first, second)).sum();
        (count > 0).then(|| sum / count as f64)
    }

    fn collapse(
        &self,
        dim: usize,
        project: &Head<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Collapse>, MlError> {
        if !self.differ {
            return Ok(None);
        }
        let all = [self.first.as_slice(), self.second.as_slice()].concat();
        if has_one_direction(&all, dim, stop)? {
            return Ok(Some(Collapse::Vectors));
        }
        let projections = project(&all)?;
        let dim = projections.len() / (all.len() / dim);
        Ok(has_one_direction(&projections, dim, stop)?.then_some(Collapse::Projections))
    }
}

fn has_one_direction(
    vectors: &[f32],
    dim: usize,
    stop: &dyn Fn() -> bool,
) -> Result<bool, MlError> {
    Ok(effective_rank(vectors, dim, stop)?.is_none_or(|rank| rank <= ONE_DIRECTION))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ComputeDevice;
    use crate::encoder::EncoderChoice;
    use crate::images::{Color, ImageSet, InputSpec};
    use crate::train::TrainOptions;
    use crate::views::Augmentation;
    use crate::weights::Weights;

    const INPUT: InputSpec = InputSpec { size: 12, color: Color::Gray };

    fn images(count: usize, seed: u64) -> ImageSet {
        let mut random = Random::keyed(&[seed]);
        let pixels = (0..count * INPUT.image_len()).map(|_| random.next() as u8).collect();
        ImageSet::new(INPUT, pixels).unwrap()
    }

    fn model(change: impl Fn(&mut Weights)) -> Model {
        let architecture = EncoderChoice::Compact.resolve(INPUT);
        let mut weights = architecture.initial_weights(3);
        change(&mut weights);
        Model::new(INPUT, architecture, weights, &ComputeDevice::cpu())
    }

    fn examiner(
        images: usize,
        targets: Option<&[Option<u32>]>,
        views: &[Augmentation],
    ) -> Examiner {
        let options =
            TrainOptions { augmentations: Some(views.to_vec()), ..TrainOptions::default() };
        Examiner::new(&Recipe::resolve(images, INPUT, &options, None).unwrap(), targets)
    }

    fn go_on() -> bool {
        false
    }

    /// A head that changes nothing.
    fn plain(vectors: &[f32]) -> Result<Vec<f32>, MlError> {
        Ok(vectors.to_vec())
    }

    #[test]
    fn the_sample_is_bounded_and_has_every_image_once() {
        for (count, spread, pairs) in
            [(2, 2, 2), (60, 60, 16), (499, 499, 62), (5_000, 1_000, 125), (60_000, 2_000, 250)]
        {
            let examiner = examiner(count, None, &[]);
            assert_eq!((examiner.spread, examiner.pairs), (spread, pairs), "of {count}");
            let mut places = examiner.places.clone();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), spread);
            assert!(examiner.labels.is_empty());
        }
    }

    #[test]
    fn labelled_images_are_looked_for_beyond_the_sample() {
        // Every hundredth image has a target: a sample of 2,000 holds about 20 of the 300.
        let targets: Vec<_> = (0..30_000).map(|image| (image % 100 == 0).then_some(7)).collect();
        let examiner = examiner(30_000, Some(&targets), &[]);
        assert_eq!((examiner.spread, examiner.labels.len()), (2_000, 300));
        assert!(examiner.labelled.iter().all(|&row| targets[examiner.places[row]] == Some(7)));
        let mut rows = examiner.labelled.clone();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), 300);
        let all = super::Examiner::new(
            &Recipe::resolve(30_000, INPUT, &TrainOptions::default(), None).unwrap(),
            Some(&vec![Some(1); 30_000]),
        );
        assert_eq!((all.places.len(), all.labels.len()), (2_000, 2_000));
    }

    #[test]
    fn measures_are_those_of_the_vectors() {
        let (model, images) = (model(|_| ()), images(20, 1));
        let targets: Vec<_> = (0..20).map(|image| (image > 3).then_some(image % 2)).collect();
        let examiner = examiner(20, Some(&targets), &[Augmentation::Affine]);
        let (quality, collapse) = examiner.examine(&model, &images, Some(&plain), &go_on).unwrap();
        assert_eq!(collapse, None);
        let vectors = model.embed(&images.select(&examiner.places), &go_on).unwrap();
        assert_eq!(quality.uniformity, uniformity(&vectors, 128, &go_on).unwrap());
        assert_eq!(quality.effective_rank, effective_rank(&vectors, 128, &go_on).unwrap());
        assert_eq!(quality.dead_dimensions, dead_dimensions(&vectors, 128));
        let distances = model
            .view_distances(&images.select(&examiner.places[..16]), &examiner.views, &go_on)
            .unwrap();
        let alignment = distances.iter().map(|&distance| f64::from(distance)).sum::<f64>() / 16.0;
        assert!((quality.alignment.unwrap() - alignment).abs() < 1e-6);
        let labelled: Vec<usize> = (0..20).filter(|&image| image > 3).collect();
        let vectors = model.embed(&images.select(&labelled), &go_on).unwrap();
        let labels: Vec<u32> = labelled.iter().map(|&image| image as u32 % 2).collect();
        let expected = knn_accuracy_among(&vectors, &labels, 128, 5);
        assert!((quality.knn_accuracy.unwrap() - expected).abs() < 1e-9);
        let stopped = examiner.examine(&model, &images, Some(&plain), &|| true);
        assert!(matches!(stopped, Err(MlError::Stopped)));
    }

    #[test]
    fn no_image_is_its_own_neighbour() {
        // Twelve images of as many kinds: whatever the nearest other one is, it is of another kind.
        let targets: Vec<_> = (0..12).map(Some).collect();
        let (quality, _) = examiner(12, Some(&targets), &[])
            .examine(&model(|_| ()), &images(12, 2), Some(&plain), &go_on)
            .unwrap();
        assert_eq!(quality.knn_accuracy, Some(0.0));
        for targets in [vec![None; 12], [vec![Some(1)], vec![None; 11]].concat()] {
            let (quality, _) = examiner(12, Some(&targets), &[])
                .examine(&model(|_| ()), &images(12, 2), Some(&plain), &go_on)
                .unwrap();
            assert_eq!(quality.knn_accuracy, None);
        }
    }

    /// Both branches of the last sum far below zero: the last ReLU lets nothing through.
    fn deaden(weights: &mut Weights) {
        for part in ["second", "shortcut"] {
            weights.insert(
                format!("encoder.stage2.block0.{part}.beta"),
                vec![128],
                vec![-1e6; 128],
            );
        }
    }

    /// What comes out does not hang on what goes in, but is not zero.
    fn freeze(weights: &mut Weights) {
        for part in ["second", "shortcut"] {
            weights.insert(
                format!("encoder.stage2.block0.{part}.gamma"),
                vec![128],
                vec![0.0; 128],
            );
        }
        let beta = (0..128).map(|place| place as f32 / 128.0).collect();
        weights.insert("encoder.stage2.block0.second.beta".to_owned(), vec![128], beta);
    }

    #[test]
    fn an_encoder_that_tells_nothing_apart_has_collapsed() {
        let examiner = examiner(20, None, &[Augmentation::Affine]);
        for change in [deaden, freeze] {
            let (quality, collapse) =
                examiner.examine(&model(change), &images(20, 1), Some(&plain), &go_on).unwrap();
            assert_eq!(collapse, Some(Collapse::Vectors));
            assert_eq!(quality.dead_dimensions, Some(1.0));
            assert!(quality.effective_rank.is_none_or(|rank| rank < 1.001), "{quality:?}");
            assert!(quality.alignment.unwrap() < 1e-9);
        }
    }

    #[test]
    fn a_head_that_tells_nothing_apart_has_collapsed() {
        let examiner = examiner(20, None, &[Augmentation::Affine]);
        let constant = |vectors: &[f32]| Ok([0.5, -0.25, 3.0].repeat(vectors.len() / 128));
        let (_, collapse) =
            examiner.examine(&model(|_| ()), &images(20, 1), Some(&constant), &go_on).unwrap();
        assert_eq!(collapse, Some(Collapse::Projections));
    }

    #[test]
    fn images_that_are_alike_are_no_collapse() {
        let one = images(1, 4);
        let alike = ImageSet::new(INPUT, one.pixels().repeat(20)).unwrap();
        let views = [Augmentation::Affine];
        let seen = |model: &Model, images: &ImageSet, views: &[Augmentation]| {
            examiner(20, None, views).examine(model, images, Some(&plain), &go_on).unwrap()
        };
        // Their vectors are one, but those of their views are not.
        let (quality, collapse) = seen(&model(|_| ()), &alike, &views);
        assert!(quality.effective_rank.unwrap() < 1.001 && quality.dead_dimensions == Some(1.0));
        assert_eq!(collapse, None);
        // An encoder that does not see the views either has collapsed.
        assert_eq!(seen(&model(deaden), &alike, &views).1, Some(Collapse::Vectors));
        // Where nothing differs, nothing can be told apart.
        assert_eq!(seen(&model(deaden), &alike, &[]).1, None);
        let blank = ImageSet::new(INPUT, vec![0; 20 * INPUT.image_len()]).unwrap();
        assert_eq!(seen(&model(deaden), &blank, &views).1, None);
        // One pixel of one image is a difference.
        let mut pixels = alike.pixels().to_vec();
        pixels[examiner(20, None, &[]).places[0] * INPUT.image_len() + 5] ^= 255;
        let odd = ImageSet::new(INPUT, pixels).unwrap();
        assert_eq!(seen(&model(deaden), &odd, &[]).1, Some(Collapse::Vectors));
    }
}
