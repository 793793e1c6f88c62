//! Weights that somebody else has trained: ResNet-18 on ImageNet, in torchvision's names, as `.safetensors` or as the `.pth` that `torch.save` writes.
//!
//! | torchvision | here |
//! | --- | --- |
//! | `conv1`, `bn1` | `encoder.stem` |
//! | `layer<i>.<j>.conv1`, `.bn1` | `encoder.stage<i - 1>.block<j>.first` |
//! | `layer<i>.<j>.conv2`, `.bn2` | `encoder.stage<i - 1>.block<j>.second` |
//! | `layer<i>.<j>.downsample.0`, `.1` | `encoder.stage<i - 1>.block<j>.shortcut` |
//! | a normalisation's `weight`, `bias`, `running_mean`, `running_var` | `gamma`, `beta`, `mean`, `variance` |
//! | `fc.*`, `*.num_batches_tracked` | left out: the classifier is not used |
//!
//! What these weights mean depends on how pixels reached them, so the network that they are put into is the published one whatever the images are:
//! three channels (gray images are read as three equal ones), each less ImageNet's mean and divided by its standard deviation, zeros around the border
//! after that, a 7x7 stem at every second position and the pooling. Images may have any size, and mean most at the sizes that the weights have
//! seen, about 224 pixels; at 32 pixels and below only one position is left in the last stage.

use std::collections::BTreeMap;

use crate::device::ComputeDevice;
use crate::encoder::{Architecture, resnet18};
use crate::error::MlError;
use crate::images::{Color, InputSpec};
use crate::model::Model;
use crate::tensor_file::{Array, Dtype, TensorFile, shown};
use crate::torch_file;
use crate::weights::Weights;

/// ResNet-18 as it was trained on ImageNet.
#[derive(Debug)]
pub struct Pretrained {
    architecture: Architecture,
    weights: Weights,
}

impl Pretrained {
    /// The colour of images that the weights read.
    pub const COLOR: Color = Color::Rgb;

    /// Reads a file of either format; its content says which.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidModel`] if the bytes are not these weights: another format, a name too many or too few, another shape, numbers
    /// that are no `f32` or not finite. No bytes panic.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MlError> {
        let arrays = if bytes.starts_with(torch_file::MAGIC) {
            torch_file::parse(bytes)
        } else {
            TensorFile::parse(bytes).map(|file| file.arrays)
        };
        arrays.and_then(Self::from_arrays).map_err(|reason| MlError::InvalidModel { reason })
    }

    fn from_arrays(arrays: BTreeMap<String, Array<'_>>) -> Result<Self, String> {
        let architecture = resnet18::published();
        let expected = architecture.parameters();
        let mut weights = Weights::default();
        for (name, array) in arrays {
            if name.starts_with("fc.") || name.ends_with(".num_batches_tracked") {
                continue;
            }
            let ours = our_name(&name)
                .and_then(|ours| expected.iter().find(|(known, _)| *known == ours))
                .ok_or_else(|| format!("it holds \"{}\", which ResNet-18 has not", shown(&name)))?;
            if array.dtype != Dtype::F32 {
                return Err(format!("\"{name}\" is {:?}, not F32", array.dtype));
            }
            if array.shape != ours.1 {
                return Err(format!("\"{name}\" has shape {:?}, not {:?}", array.shape, ours.1));
            }
            weights.insert(&ours.0, array.shape.clone(), array.values());
        }
        weights.require(&expected)?;
        Ok(Self { architecture, weights })
    }

    /// The model to start a training from, for images of this side in pixels. It has no projection head.
    pub fn model(&self, size: u32, device: &ComputeDevice) -> Model {
        let input = InputSpec { size, color: Self::COLOR };
        Model::new(input, self.architecture.clone(), self.weights.clone(), device)
    }
}

/// The name here of one of torchvision's arrays.
fn our_name(name: &str) -> Option<String> {
    let (unit, part) = name.rsplit_once('.')?;
    let (place, layer) = match unit.split_once('.') {
        None => ("encoder.stem".to_owned(), unit),
        Some((stage, rest)) => {
            let stage = stage.strip_prefix("layer")?.parse::<usize>().ok()?.checked_sub(1)?;
            let (block, layer) = rest.split_once('.')?;
            (format!("encoder.stage{stage}.block{block}"), layer)
        }
    };
    let in_stem = layer == unit;
    let (unit, is_norm) = match layer {
        "conv1" if in_stem => ("", false),
        "bn1" if in_stem => ("", true),
        "conv1" => (".first", false),
        "bn1" => (".first", true),
        "conv2" => (".second", false),
        "bn2" => (".second", true),
        "downsample.0" => (".shortcut", false),
        "downsample.1" => (".shortcut", true),
        _ => return None,
    };
    let part = match (part, is_norm) {
        ("weight", false) => "weight",
        ("weight", true) => "gamma",
        ("bias", true) => "beta",
        ("running_mean", true) => "mean",
        ("running_var", true) => "variance",
        _ => return None,
    };
    Some(format!("{place}{unit}.{part}"))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use burn::tensor::{Tensor, TensorData};

    use super::*;
    use crate::images::ImageSet;
    use crate::random::Random;
    use crate::weights::read;

    /// Weights in torchvision's layout: the file's names and shapes are written out by hand here, not derived from ours.
    fn torchvision(seed: u64) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let mut random = Random::keyed(&[seed]);
        let mut arrays = Vec::new();
        let mut convolution = |arrays: &mut Vec<_>, name: &str, shape: [usize; 4]| {
            let deviation = (2.0 / (shape[0] * shape[2] * shape[3]) as f32).sqrt();
            let values = (0..shape.iter().product()).map(|_| random.normal() * deviation).collect();
            arrays.push((format!("{name}.weight"), shape.to_vec(), values));
        };
        let norm = |arrays: &mut Vec<(String, Vec<usize>, Vec<f32>)>, name: &str, width: usize| {
            let values = |low: f32| (0..width).map(|i| low + i as f32 / width as f32).collect();
            arrays.push((format!("{name}.weight"), vec![width], values(0.5)));
            // Above zero, or all that comes out of so many layers is cut off.
            arrays.push((format!("{name}.bias"), vec![width], values(0.1)));
            arrays.push((format!("{name}.running_mean"), vec![width], values(-0.3)));
            arrays.push((format!("{name}.running_var"), vec![width], values(0.7)));
            arrays.push((format!("{name}.num_batches_tracked"), vec![], vec![7.0]));
        };
        convolution(&mut arrays, "conv1", [64, 3, 7, 7]);
        norm(&mut arrays, "bn1", 64);
        let mut inputs = 64;
        for (layer, width) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
            for block in 0..2 {
                let name = |part: &str| format!("layer{layer}.{block}.{part}");
                convolution(&mut arrays, &name("conv1"), [width, inputs, 3, 3]);
                norm(&mut arrays, &name("bn1"), width);
                convolution(&mut arrays, &name("conv2"), [width, width, 3, 3]);
                norm(&mut arrays, &name("bn2"), width);
                if layer > 1 && block == 0 {
                    convolution(&mut arrays, &name("downsample.0"), [width, inputs, 1, 1]);
                    norm(&mut arrays, &name("downsample.1"), width);
                }
                inputs = width;
            }
        }
        arrays.push(("fc.weight".to_owned(), vec![10, 512], vec![0.0; 5120]));
        arrays.push(("fc.bias".to_owned(), vec![10], vec![0.0; 10]));
        arrays
    }

    fn safetensors(arrays: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
        let arrays = arrays.iter().map(|(name, shape, values)| {
            let counts = name.ends_with("num_batches_tracked");
            let bytes: Vec<u8> = match counts {
                true => values.iter().flat_map(|value| (*value as i64).to_le_bytes()).collect(),
                false => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            };
            let dtype = if counts { Dtype::I64 } else { Dtype::F32 };
            (name.clone(), Array { dtype, shape: shape.clone(), bytes: Cow::Owned(bytes) })
        });
        TensorFile { metadata: BTreeMap::new(), arrays: arrays.collect() }.to_bytes().unwrap()
    }

    #[test]
    fn both_formats_give_the_same_model() {
        let arrays = torchvision(1);
        let device = ComputeDevice::cpu();
        let input = InputSpec { size: 32, color: Color::Rgb };
        let pixels = (0..2 * input.image_len()).map(|place| (place * 37 % 256) as u8).collect();
        let images = ImageSet::new(input, pixels).unwrap();
        let vectors = |bytes: &[u8]| {
            let model = Pretrained::from_bytes(bytes).unwrap().model(32, &device);
            assert_eq!((model.encoder_name(), model.embedding_dim()), ("resnet18", 512));
            assert!(!model.has_head());
            // What a training leaves behind goes through a file with its normalisation.
            let file = model.to_safetensors().unwrap();
            let again = Model::from_safetensors(&file, &device).unwrap();
            let vectors = model.embed(&images, &|| false).unwrap();
            assert_eq!(again.embed(&images, &|| false).unwrap(), vectors);
            vectors
        };
        let from_safetensors = vectors(&safetensors(&arrays));
        assert_eq!(from_safetensors, vectors(&torch_file::tests::saved(&arrays)));
        assert!(from_safetensors.iter().all(|value| value.is_finite()));
        assert!(from_safetensors.iter().any(|value| *value > 0.0));
    }

    #[test]
    fn every_array_finds_its_place() {
        let ours: Vec<String> =
            torchvision(2).iter().filter_map(|(name, _, _)| our_name(name)).collect();
        let mut expected: Vec<String> =
            resnet18::published().parameters().into_iter().map(|(name, _)| name).collect();
        let mut found = ours.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        assert_eq!(
            our_name("layer2.0.downsample.1.running_var").as_deref(),
            Some("encoder.stage1.block0.shortcut.variance")
        );
        assert_eq!(our_name("layer0.0.conv1.weight"), None);
        assert_eq!(our_name("conv1.bias"), None);
    }

    /// ImageNet's mean colour is nothing but zeros, and one deviation more is one.
    #[test]
    fn pixels_are_brought_to_imagenets_scale() {
        let values = [0.485, 0.456, 0.406, 0.485 + 0.229, 0.456 + 0.224, 0.406 - 0.225];
        let device = ComputeDevice::cpu();
        let images =
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [2, 3, 1, 1]), device.inner());
        let normalization = resnet18::published().normalization.unwrap();
        let scaled = read(normalization.on(&images.device()).apply(images)).unwrap();
        for (found, expected) in scaled.iter().zip([0.0, 0.0, 0.0, 1.0, 1.0, -1.0]) {
            assert!((found - expected).abs() < 1e-5, "{scaled:?}");
        }
    }

    #[test]
    fn other_weights_are_refused() {
        type Change = fn(&mut Vec<(String, Vec<usize>, Vec<f32>)>);
        let changes: [(&str, Change); 5] = [
            ("no encoder.stem.weight", |arrays| drop(arrays.remove(0))),
            ("stranger", |arrays| arrays.push(("stranger".to_owned(), vec![1], vec![0.0]))),
            ("not finite", |arrays| arrays[1].2[3] = f32::NAN),
            ("shape", |arrays| {
                arrays[1].1 = vec![8, 8];
            }),
            ("layer1.2", |arrays| {
                arrays.push(("layer1.2.conv1.weight".to_owned(), vec![1], vec![0.0]));
            }),
        ];
        for (expected, change) in changes {
            let mut arrays = torchvision(3);
            change(&mut arrays);
            for bytes in [safetensors(&arrays), torch_file::tests::saved(&arrays)] {
                let error = Pretrained::from_bytes(&bytes).unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
        assert!(Pretrained::from_bytes(b"").is_err());
        assert!(Pretrained::from_bytes(b"PK\x03\x04").is_err());
    }
}
