//! A model on its way from one server to another: one safetensors file with everything that a server needs to serve it.
//!
//! | in the file | what |
//! | --- | --- |
//! | metadata `thanosql.encoder` | the architecture and the shape of the images (see [`crate::model`]) |
//! | metadata `thanosql.model` | the server's configuration of the model, a text that means nothing here |
//! | arrays `encoder.*`, `head.*` | the weights, F32 |
//! | array `thanosql.rows` | what the server keeps of the training rows, bytes that mean nothing here |
//!
//! Any program that reads safetensors can read the weights. What comes back from a file is no model yet: [`Model::from_safetensors`](crate::Model::from_safetensors)
//! checks network and values.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::error::MlError;
use crate::model;
use crate::tensor_file::{Array, Dtype, TensorFile};

/// The metadata's entry with the server's configuration.
const CONFIGURATION: &str = "thanosql.model";

/// The array with the training rows.
const ROWS: &str = "thanosql.rows";

/// The parts of a model that travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// What [`Model::to_safetensors`](crate::Model::to_safetensors) gives.
    pub model: Vec<u8>,
    /// The server's configuration.
    pub configuration: String,
    /// The training rows, if they travel with it.
    pub rows: Option<Vec<u8>>,
}

impl ModelFile {
    /// The file.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidModel`] if `model` is no model's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, MlError> {
        let mut file = TensorFile::parse(&self.model).map_err(invalid)?;
        file.metadata.insert(CONFIGURATION.to_owned(), self.configuration.clone());
        if let Some(rows) = &self.rows {
            let array =
                Array { dtype: Dtype::U8, shape: vec![rows.len()], bytes: Cow::Borrowed(rows) };
            file.arrays.insert(ROWS.to_owned(), array);
        }
        file.to_bytes().map_err(invalid)
    }

    /// Takes a file apart. Entries of the metadata that are not ours are left out.
    ///
    /// # Errors
    ///
    /// [`MlError::InvalidModel`] if it is no such file. No bytes panic.
    pub fn from_bytes(bytes: &[u8]) -> Result<ModelFile, MlError> {
        let mut file = TensorFile::parse(bytes).map_err(invalid)?;
        let mut entry = |name: &str| {
            let missing = || invalid(format!("its header has no entry \"{name}\""));
            file.metadata.remove(name).ok_or_else(missing)
        };
        let (encoder, configuration) = (entry(model::HEADER)?, entry(CONFIGURATION)?);
        let rows = match file.arrays.remove(ROWS) {
            Some(rows) if rows.dtype != Dtype::U8 || rows.shape.len() != 1 => {
                return Err(invalid(format!("{ROWS} is no row of bytes")));
            }
            rows => rows.map(|rows| rows.bytes.into_owned()),
        };
        file.metadata = BTreeMap::from([(model::HEADER.to_owned(), encoder)]);
        Ok(ModelFile { model: file.to_bytes().map_err(invalid)?, configuration, rows })
    }
}

fn invalid(reason: String) -> MlError {
    MlError::InvalidModel { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ComputeDevice;
    use crate::encoder::{EncoderChoice, Stage};
    use crate::images::{Color, InputSpec};
    use crate::model::Model;
    use crate::random::Random;

    fn example() -> ModelFile {
        let input = InputSpec { size: 8, color: Color::Gray };
        // Small, so that damage is as likely to strike the header as the weights.
        let mut architecture = EncoderChoice::Compact.resolve(input);
        architecture.stages = vec![Stage { channels: 4, blocks: 1 }];
        let weights = architecture.initial_weights(1);
        let model = Model::new(input, architecture, weights, &ComputeDevice::cpu());
        ModelFile {
            model: model.to_safetensors().unwrap(),
            configuration: r#"{"a": 1}"#.to_owned(),
            rows: Some(b"rows".to_vec()),
        }
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        for file in [example(), ModelFile { rows: None, ..example() }] {
            let bytes = file.to_bytes().unwrap();
            assert_eq!(ModelFile::from_bytes(&bytes).unwrap(), file);
            assert_eq!(bytes, file.to_bytes().unwrap(), "two exports differ");
        }
        assert!(ModelFile::from_bytes(&example().model).is_err(), "weights alone are no model");
    }

    /// Thousands of damaged files: cut, bits turned, pieces of the header exchanged. Each is refused or is a model whose values are finite;
    /// none panics.
    #[test]
    fn damaged_files_are_errors_or_models() {
        let device = ComputeDevice::cpu();
        let good = example().to_bytes().unwrap();
        let header_end = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        let open = |bytes: &[u8]| {
            ModelFile::from_bytes(bytes)
                .and_then(|file| Model::from_safetensors(&file.model, &device))
        };
        assert!(open(&good).is_ok());
        for length in (0..header_end + 64).chain([good.len() - 4, good.len() - 1]) {
            assert!(open(&good[..length]).is_err(), "cut to {length}");
        }
        let mut random = Random::keyed(&[7]);
        let (mut refused, rounds) = (0, 6000);
        for _ in 0..rounds {
            let mut bytes = good.clone();
            for _ in 0..=random.below(3) {
                match random.below(5) {
                    // The header is most of what can go wrong.
                    0..=2 => {
                        let place = random.below(header_end);
                        bytes[place] = if random.chance(0.5) {
                            bytes[place] ^ (1 << random.below(8))
                        } else {
                            b"0123456789[]{}\",:-e"[random.below(19)]
                        };
                    }
                    3 => {
                        let (from, to) = (random.below(header_end), random.below(header_end));
                        let length = random.below(40).min(header_end - from.max(to));
                        bytes.copy_within(from..from + length, to);
                    }
                    _ => {
                        let place = header_end + random.below(bytes.len() - header_end);
                        bytes[place] ^= 1 << random.below(8);
                    }
                }
            }
            match open(&bytes) {
                Err(MlError::InvalidModel { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok(model) => assert!(model.weights().is_finite()),
            }
        }
        assert!(refused > rounds / 3, "{refused} of {rounds} were refused");
    }
}
