//! A trained encoder: images in, vectors out, and its way through a file.
//!
//! The file is safetensors. One entry of its header, [`HEADER`], holds the architecture and the shape of the images as JSON, so that a file needs
//! nothing beside it; the arrays hold the encoder's weights and statistics, and those of the projection head if the training kept it. A file
//! may come from anyone: architecture, names, shapes and values are checked before a network is built, and nothing larger than the file is allocated.

use burn::tensor::{DType, Int, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::device::ComputeDevice;
use crate::encoder::folded::FoldedEncoder;
use crate::encoder::{Architecture, projection};
use crate::error::MlError;
use crate::images::{Color, ImageSet, InputSpec, MAX_INPUT_SIZE, MIN_INPUT_SIZE};
use crate::kernels::unpack_images;
use crate::views::on_device::{pack, words_of};
use crate::weights::{Weights, read};

/// The header's entry.
pub(crate) const HEADER: &str = "thanosql.encoder";

/// The version of that entry that is written, and the only one that is read.
const VERSION: u32 = 1;

/// Pixel positions that are computed at once, by the CPU and by a GPU: bounds the memory that embedding takes.
const POSITIONS_AT_ONCE: usize = 1 << 20;
const DEVICE_POSITIONS: usize = 1 << 20;

/// Batches that a GPU is sent before the host waits for their vectors.
const BATCHES_AHEAD: usize = 8;

/// Most numbers that one image may become in a layer of a network from a file: 256 MiB. ResNet-18 makes 17 million of the largest image.
const MAX_LAYER_VALUES: usize = 1 << 26;

/// What the header says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    input_size: u32,
    encoder: Architecture,
}

/// A trained encoder on a device. Share it in an `Arc`: embedding does not change it.
#[derive(Debug)]
pub struct Model {
    input: InputSpec,
    architecture: Architecture,
    weights: Weights,
    encoder: FoldedEncoder,
    device: ComputeDevice,
}

impl Model {
    /// Builds a model from weights that are known to fit.
    pub(crate) fn new(
        input: InputSpec,
        architecture: Architecture,
        weights: Weights,
        device: &ComputeDevice,
    ) -> Self {
        let encoder = FoldedEncoder::new(&architecture, &weights, device.inner());
        Self { input, architecture, weights, encoder, device: device.clone() }
    }

    /// Length of a vector.
    pub fn embedding_dim(&self) -> usize {
        self.architecture.embedding_dim()
    }

    /// The shape of the images that it reads.
    pub fn input(&self) -> InputSpec {
        self.input
    }

    /// The network's name: "compact" or "resnet18".
    pub fn encoder_name(&self) -> &str {
        &self.architecture.name
    }

    /// The device that embeds.
    pub fn device(&self) -> &ComputeDevice {
        &self.device
    }

    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Whether it holds a projection head, so that a training can go on from it with that.
    pub(crate) fn has_head(&self) -> bool {
        self.weights.require(&projection::parameters(self.embedding_dim())).is_ok()
    }

    /// The weights with their configuration, as the bytes of a safetensors file.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidModel`] if the bytes cannot be laid out, which no trained model causes.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, MlError> {
        let header = Header {
            version: VERSION,
            input_size: self.input.size,
            encoder: self.architecture.clone(),
        };
        let invalid = |reason| MlError::InvalidModel { reason };
        let header = serde_json::to_string(&header).map_err(|error| invalid(error.to_string()))?;
        self.weights.to_safetensors(HEADER, header).map_err(invalid)
    }

    /// Reads what [`to_safetensors`](Self::to_safetensors) wrote, onto a device.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidModel`] if the bytes are anything else. No bytes panic.
    pub fn from_safetensors(bytes: &[u8], device: &ComputeDevice) -> Result<Self, MlError> {
        let invalid = |reason| MlError::InvalidModel { reason };
        let (weights, header) = Weights::from_safetensors(bytes, HEADER).map_err(invalid)?;
        let header: Header =
            serde_json::from_str(&header).map_err(|error| invalid(error.to_string()))?;
        if header.version != VERSION {
            return Err(invalid(format!("its version is {}, not {VERSION}", header.version)));
        }
        if !(MIN_INPUT_SIZE..=MAX_INPUT_SIZE).contains(&header.input_size) {
            return Err(invalid(format!("it reads images of {} pixels a side", header.input_size)));
        }
        let architecture = header.encoder;
        architecture.check().map_err(invalid)?;
        if architecture.largest_layer(header.input_size as usize) > MAX_LAYER_VALUES {
            return Err(invalid("its layers are too large for its images".to_owned()));
        }
        let expected = architecture.parameters();
        weights.require(&expected).map_err(invalid)?;
        let head = projection::parameters(architecture.embedding_dim());
        if weights.len() != expected.len() && weights.len() != expected.len() + head.len() {
            return Err(invalid("it holds arrays that its architecture has no use for".to_owned()));
        }
        if weights.len() != expected.len() {
            weights.require(&head).map_err(invalid)?;
        }
        let color = if architecture.channels == 1 { Color::Gray } else { Color::Rgb };
        Ok(Self::new(InputSpec { size: header.input_size, color }, architecture, weights, device))
    }

    /// The vectors of images, row-major `[count, embedding_dim]`. None of their numbers is negative. A vector depends on its image alone.
    ///
    /// `stop` is asked before every batch of at most 1,024 images.
    ///
    /// # Errors
    ///
    /// [`MlError::InputMismatch`] if the images have another shape than [`input`](Self::input), [`MlError::Stopped`] once `stop` says so, and
    /// [`MlError::Device`].
    pub fn embed(&self, images: &ImageSet, stop: &dyn Fn() -> bool) -> Result<Vec<f32>, MlError> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        if images.spec() != self.input {
            return Err(MlError::InputMismatch { expected: self.input, found: images.spec() });
        }
        let batch = self.batch();
        let mut vectors = Vec::with_capacity(images.len() * self.embedding_dim());
        // What a GPU still computes, which would wait for the host if each batch was read before the next one is sent.
        let mut waiting = Vec::new();
        for start in (0..images.len()).step_by(batch) {
            if stop() {
                return Err(MlError::Stopped);
            }
            let end = images.len().min(start + batch);
            waiting.push(self.launch(images.range(start, end), end - start));
            if self.device.is_cpu() || waiting.len() == BATCHES_AHEAD || end == images.len() {
                let found = Tensor::cat(std::mem::take(&mut waiting), 0);
                vectors.extend(read(found).map_err(|reason| MlError::Device { reason })?);
            }
        }
        Ok(vectors)
    }

    /// Images that go through the encoder at once. On a GPU fewer take as long as so many.
    pub fn batch(&self) -> usize {
        let side = self.input.size as usize;
        if self.device.is_cpu() {
            return (POSITIONS_AT_ONCE / (side * side)).clamp(8, 256);
        }
        // The power of two below, which is not filled up further.
        1 << (DEVICE_POSITIONS / (side * side)).clamp(8, 1024).ilog2()
    }

    /// Rows of the batch that so many images are embedded in: on a GPU it is filled up to a power of two, for some kernels are tuned for a shape.
    pub(crate) fn rows(&self, count: usize) -> usize {
        if self.device.is_cpu() { count } else { count.next_power_of_two().max(8) }
    }

    /// Sends `count` images to be embedded, `[count, embedding_dim]`.
    fn launch(&self, pixels: &[u8], count: usize) -> Tensor<2> {
        let length = self.input.image_len();
        let side = self.input.size as usize;
        if self.device.is_cpu() {
            let mut values = vec![0.0_f32; count * length];
            values.par_chunks_mut(1 << 14).zip(pixels.par_chunks(1 << 14)).for_each(
                |(values, bytes)| {
                    values
                        .iter_mut()
                        .zip(bytes)
                        .for_each(|(value, &byte)| *value = f32::from(byte) / 255.0);
                },
            );
            return self.encoder.forward(self.upload(values, count));
        }
        let rows = self.rows(count);
        let mut words = pack(self.input, pixels);
        words.resize(rows * words_of(self.input), 0);
        let words = TensorData::new(words, [rows, words_of(self.input)]);
        let words = Tensor::<2, Int>::from_data(words, (self.device.inner(), DType::I32));
        let images = unpack_images(words, [self.input.color.channels(), side, side]);
        self.encoder.forward(images).slice([0..count, 0..self.embedding_dim()])
    }

    /// Embeds `rows` images or views, `[rows, channels, height, width]` from 0 to 1.
    pub(crate) fn forward(&self, values: Vec<f32>, rows: usize) -> Result<Vec<f32>, MlError> {
        let vectors = self.encoder.forward(self.upload(values, rows));
        read(vectors).map_err(|reason| MlError::Device { reason })
    }

    fn upload(&self, values: Vec<f32>, rows: usize) -> Tensor<4> {
        let side = self.input.size as usize;
        let shape = [rows, self.input.color.channels(), side, side];
        Tensor::from_data(TensorData::new(values, shape), self.device.inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::EncoderChoice;
    use crate::random::Random;

    const INPUT: InputSpec = InputSpec { size: 9, color: Color::Rgb };

    /// A compact encoder whose statistics are not the ones it starts with.
    fn model() -> Model {
        let architecture = EncoderChoice::Compact.resolve(INPUT);
        let mut weights = architecture.initial_weights(3);
        let mut random = Random::keyed(&[8]);
        for (name, shape) in architecture.parameters() {
            if name.ends_with("mean") || name.ends_with("variance") || name.ends_with("beta") {
                let values = (0..shape[0]).map(|_| random.uniform(0.1, 1.0)).collect();
                weights.insert(name, shape, values);
            }
        }
        Model::new(INPUT, architecture, weights, &ComputeDevice::cpu())
    }

    fn images(count: usize) -> ImageSet {
        let mut random = Random::keyed(&[6]);
        let pixels = (0..count * INPUT.image_len()).map(|_| random.next() as u8).collect();
        ImageSet::new(INPUT, pixels).unwrap()
    }

    fn go_on() -> bool {
        false
    }

    #[test]
    fn models_can_be_shared() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Model>();
        shared::<ComputeDevice>();
        shared::<MlError>();
    }

    #[test]
    fn an_image_embeds_the_same_alone_and_in_company() {
        let (model, images) = (model(), images(37));
        let together = model.embed(&images, &go_on).unwrap();
        assert_eq!(together.len(), 37 * 128);
        assert!(together.iter().all(|value| value.is_finite() && *value >= 0.0));
        for index in [0, 17, 36] {
            let alone = model.embed(&images.select(&[index]), &go_on).unwrap();
            let row = &together[index * 128..][..128];
            let scale = row.iter().fold(0.0_f32, |largest, value| largest.max(*value));
            assert!(scale > 0.0);
            for (one, other) in alone.iter().zip(row) {
                assert!((one - other).abs() <= 1e-5 * scale, "{one} and {other}");
            }
        }
    }

    #[test]
    fn a_file_gives_the_same_vectors() {
        let (model, images) = (model(), images(5));
        let bytes = model.to_safetensors().unwrap();
        let read = Model::from_safetensors(&bytes, &ComputeDevice::cpu()).unwrap();
        assert_eq!(
            (read.input(), read.encoder_name(), read.embedding_dim()),
            (INPUT, "compact", 128)
        );
        assert_eq!(read.embed(&images, &go_on).unwrap(), model.embed(&images, &go_on).unwrap());
        assert_eq!(read.to_safetensors().unwrap(), bytes);
    }

    #[test]
    fn hostile_files_are_refused() {
        let device = ComputeDevice::cpu();
        let refused = |bytes: &[u8]| {
            let error = Model::from_safetensors(bytes, &device).unwrap_err();
            assert!(matches!(error, MlError::InvalidModel { .. }), "{error}");
        };
        let good = model();
        refused(b"");
        refused(b"\xff\xff\xff\xff\xff\xff\xff\xff{}");
        refused(&good.to_safetensors().unwrap()[..1000]);

        let with_header = |change: &dyn Fn(&mut serde_json::Value)| {
            let bytes = good.to_safetensors().unwrap();
            let (weights, header) = Weights::from_safetensors(&bytes, HEADER).unwrap();
            let mut header = serde_json::from_str(&header).unwrap();
            change(&mut header);
            weights.to_safetensors(HEADER, header.to_string()).unwrap()
        };
        assert!(Model::from_safetensors(&with_header(&|_| ()), &device).is_ok());
        refused(&with_header(&|header| header["version"] = 2.into()));
        refused(&with_header(&|header| header["input_size"] = 0.into()));
        refused(&with_header(&|header| header["input_size"] = u32::MAX.into()));
        refused(&with_header(&|header| header["input_size"] = (MAX_INPUT_SIZE + 1).into()));
        refused(&with_header(&|header| header["encoder"]["name"] = "a\nb".into()));
        refused(&with_header(&|header| header["encoder"]["normalization"] = "none".into()));
        refused(&with_header(&|header| header["extra"] = 1.into()));
        refused(&with_header(&|header| header["encoder"]["channels"] = 1.into()));
        refused(&with_header(&|header| header["encoder"]["stages"][0]["channels"] = 33.into()));
        refused(&with_header(&|header| header["encoder"]["stages"][0]["blocks"] = u64::MAX.into()));
        refused(&with_header(&|header| header["encoder"]["stages"] = serde_json::json!([])));

        let mut weights = good.weights().clone();
        weights.insert("encoder.stem.gamma", vec![32], vec![f32::NAN; 32]);
        refused(&Model { weights, ..model() }.to_safetensors().unwrap());
        let mut weights = good.weights().clone();
        weights.insert("stranger", vec![1], vec![0.0]);
        refused(&Model { weights, ..model() }.to_safetensors().unwrap());
    }

    #[test]
    fn images_of_another_shape_are_refused() {
        let other = InputSpec { size: 9, color: Color::Gray };
        let images = ImageSet::new(other, vec![0; 81]).unwrap();
        assert!(matches!(model().embed(&images, &go_on), Err(MlError::InputMismatch { .. })));
        assert!(matches!(model().embed(&self::images(1), &|| true), Err(MlError::Stopped)));
        let none = ImageSet::new(INPUT, Vec::new()).unwrap();
        assert!(model().embed(&none, &go_on).unwrap().is_empty());
    }
}
