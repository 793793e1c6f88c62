//! A trained encoder.
use crate::device::ComputeDevice;
use crate::error::MlError;
use crate::images::{ImageSet, InputSpec};

/// A trained encoder on a device.
#[derive(Debug)]
pub struct Model {
    input: InputSpec,
}

impl Model {
    /// Length of a vector.
    pub fn embedding_dim(&self) -> usize {
        0
    }
    /// The shape of the images it reads.
    pub fn input(&self) -> InputSpec {
        self.input
    }
    /// The network's name: "compact" or "resnet18".
    pub fn encoder_name(&self) -> &str {
        ""
    }
    /// The weights and their configuration as a safetensors file.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, MlError> {
        Err(MlError::Stopped)
    }
    /// Reads what [`to_safetensors`](Self::to_safetensors) wrote.
    pub fn from_safetensors(_bytes: &[u8], _device: &ComputeDevice) -> Result<Self, MlError> {
        Err(MlError::Stopped)
    }
    /// Vectors `[count, embedding_dim]`, row-major. `stop` is asked between batches.
    pub fn embed(&self, _images: &ImageSet, _stop: &dyn Fn() -> bool) -> Result<Vec<f32>, MlError> {
        Err(MlError::Stopped)
    }
}
