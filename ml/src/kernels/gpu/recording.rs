//! Launches that are recorded once and repeated.
//!
//! What a launch costs the host is looking up its pipeline, finding its buffers and binding them. A recording has done that for all of a step's launches and
//! repeats them at a fraction of the cost; what they compute is decided by what lies in their buffers. A recording therefore knows nothing of new
//! tensors: whatever a step reads must have been [overwritten](super::super::overwrite) in place before, and whatever it leaves behind must be written in place.

use burn::backend::{Backend, Dispatch, DispatchDevice, DispatchGraph, TensorMetadata};
use burn::tensor::Tensor;

/// The launches of a step, on one device. Keeps the memory that they use.
#[derive(Debug)]
pub(crate) struct Recording {
    device: DispatchDevice,
    graph: DispatchGraph,
}

impl Recording {
    /// Records what `step` launches on the device of `tensor`, which must have run the same launches before: nothing is compiled or tuned during a
    /// recording. Nothing runs either; the results of `step` have their values after each [`replay`](Self::replay).
    ///
    /// # Errors
    ///
    /// If the device cannot record, or `step` did something other than launching: uploading, reading or waiting.
    pub(crate) fn of<T, const D: usize>(
        tensor: &Tensor<D>,
        step: impl FnOnce() -> T,
    ) -> Result<(Self, T), String> {
        let device = tensor.clone().into_dispatch().device();
        let reason = |error: burn::backend::ExecutionError| error.to_string();
        Dispatch::graph_prepare(&device).map_err(reason)?;
        Dispatch::graph_start_capture(&device).map_err(reason)?;
        let results = step();
        let graph = Dispatch::graph_stop_capture(&device).map_err(reason)?;
        Ok((Self { device, graph }, results))
    }

    /// Launches everything again, without waiting for it.
    ///
    /// # Errors
    ///
    /// If the device refuses.
    pub(crate) fn replay(&self) -> Result<(), String> {
        // SAFETY: the recording keeps the pages of memory that its launches read and write from being used for anything else; the tensors that a training
        // overwrites and reads belong to the training, which has the recording too; all of it happens on the thread that records.
        #[allow(unsafe_code)]
        let outcome = unsafe { Dispatch::graph_replay(&self.device, &self.graph) };
        outcome.map_err(|error| error.to_string())
    }
}
