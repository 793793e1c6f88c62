//! Named arrays of numbers on the host: how weights travel between a device, a file and a checkpoint.
//!
//! The file is safetensors (see [`crate::tensor_file`]): a JSON header with names, shapes and a text of our own, then little-endian `f32`. Bytes
//! may come from anyone; nothing is allocated that the file does not hold, and no input panics.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::tensor_file::{Array, Dtype, TensorFile, shown};

/// One array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// Arrays by name, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Weights {
    arrays: BTreeMap<String, HostTensor>,
}

impl Weights {
    /// Puts an array in, in place of one with the same name.
    pub(crate) fn insert(&mut self, name: impl Into<String>, shape: Vec<usize>, values: Vec<f32>) {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        self.arrays.insert(name.into(), HostTensor { shape, values });
    }

    /// Copies a tensor from its device.
    pub(crate) fn insert_tensor<const D: usize>(
        &mut self,
        name: &str,
        tensor: &Tensor<D>,
    ) -> Result<(), String> {
        let shape = tensor.dims().to_vec();
        self.insert(name, shape, read(tensor.clone())?);
        Ok(())
    }

    /// An array that is known to be there.
    ///
    /// # Panics
    ///
    /// If it is not: whoever made these weights has checked them with [`require`](Self::require), or made them itself.
    pub(crate) fn get(&self, name: &str) -> &HostTensor {
        self.arrays.get(name).unwrap_or_else(|| panic!("weights hold {name}"))
    }

    /// Copies an array to a device. Panics as [`get`](Self::get) does.
    pub(crate) fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let array = self.get(name);
        Tensor::from_data(TensorData::new(array.values.clone(), array.shape.clone()), device)
    }

    /// That these arrays are there, with these shapes and finite values.
    pub(crate) fn require(&self, expected: &[(String, Vec<usize>)]) -> Result<(), String> {
        for (name, shape) in expected {
            let array = self.arrays.get(name).ok_or_else(|| format!("it has no {name}"))?;
            if array.shape != *shape {
                return Err(format!("{name} has shape {:?}, not {shape:?}", array.shape));
            }
            if !array.values.iter().all(|value| value.is_finite()) {
                return Err(format!("{name} holds values that are not finite"));
            }
        }
        Ok(())
    }

    /// Whether all values are finite.
    pub(crate) fn is_finite(&self) -> bool {
        self.arrays.values().all(|array| array.values.iter().all(|value| value.is_finite()))
    }

    /// How many arrays there are.
    pub(crate) fn len(&self) -> usize {
        self.arrays.len()
    }

    /// Writes a safetensors file with one entry of metadata.
    pub(crate) fn to_safetensors(&self, key: &str, text: String) -> Result<Vec<u8>, String> {
        let arrays = self.arrays.iter().map(|(name, array)| {
            let bytes = array.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let shape = array.shape.clone();
            (name.clone(), Array { dtype: Dtype::F32, shape, bytes: Cow::Owned(bytes) })
        });
        let metadata = BTreeMap::from([(key.to_owned(), text)]);
        TensorFile { metadata, arrays: arrays.collect() }.to_bytes()
    }

    /// Reads a safetensors file and the metadata under `key`.
    pub(crate) fn from_safetensors(bytes: &[u8], key: &str) -> Result<(Self, String), String> {
        let mut file = TensorFile::parse(bytes)?;
        let text = file
            .metadata
            .remove(key)
            .ok_or_else(|| format!("its header has no entry \"{key}\""))?;
        let mut weights = Self::default();
        for (name, array) in file.arrays {
            if array.dtype != Dtype::F32 {
                return Err(format!("{} is {:?}, not F32", shown(&name), array.dtype));
            }
            let values = array.values();
            weights.insert(name, array.shape, values);
        }
        Ok((weights, text))
    }
}

/// Copies a tensor's values from its device, row-major.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data_as::<f32>().map_err(|error| error.to_string())?;
    data.as_slice::<f32>().map(<[f32]>::to_vec).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn example() -> Weights {
        let mut weights = Weights::default();
        weights.insert("a", vec![2, 3], vec![1.0, -2.0, 3.5, 0.0, f32::MIN_POSITIVE, 6.0]);
        weights.insert("b", vec![1], vec![7.0]);
        weights
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = example().to_safetensors("note", "text \u{d55c}".to_owned()).unwrap();
        let (read, text) = Weights::from_safetensors(&bytes, "note").unwrap();
        assert_eq!(read, example());
        assert_eq!(text, "text \u{d55c}");
        assert!(Weights::from_safetensors(&bytes, "other").is_err());
    }

    #[test]
    fn broken_bytes_are_errors() {
        let good = example().to_safetensors("note", "text".to_owned()).unwrap();
        for length in 0..good.len() {
            assert!(Weights::from_safetensors(&good[..length], "note").is_err(), "cut to {length}");
        }
        let mut random = Random::keyed(&[1]);
        for _ in 0..2000 {
            let mut bytes = good.clone();
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << random.below(8);
            // Some flips only change a value. None may panic.
            let _ = Weights::from_safetensors(&bytes, "note");
        }
        let huge =
            br#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#;
        let mut bytes = (huge.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(huge);
        bytes.extend_from_slice(&[0; 8]);
        assert!(Weights::from_safetensors(&bytes, "note").is_err());
    }

    #[test]
    fn requirements_are_checked() {
        let need = |name: &str, shape: &[usize]| [(name.to_owned(), shape.to_vec())];
        assert!(example().require(&need("a", &[2, 3])).is_ok());
        assert!(example().require(&need("a", &[3, 2])).is_err());
        assert!(example().require(&need("c", &[1])).is_err());
        let mut weights = example();
        weights.insert("b", vec![1], vec![f32::NAN]);
        assert!(weights.require(&need("b", &[1])).is_err());
        assert!(!weights.is_finite());
    }
}
