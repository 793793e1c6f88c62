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
    /// Runs `step` on the device of `tensor`, then records what it launches there. The second results have values after each [`replay`](Self::replay) only.
    ///
    /// No memory can be added during a recording. The run before it leaves behind as much as the step needs, if both begin with the same tensors in use.
    ///
    /// The device's work is kept apart by threads, up to 128 of them; a launch by another thread that shares a place with this one would be recorded as well.
    ///
    /// # Errors
    ///
    /// If the device cannot record, or `step` did something other than launching: uploading, reading or waiting. What it wrote cannot be read then.
    pub(crate) fn of<T, const D: usize>(
        tensor: &Tensor<D>,
        mut step: impl FnMut() -> T,
    ) -> Result<(Self, [T; 2]), String> {
        let device = tensor.clone().into_dispatch().device();
        let reason = |error: burn::backend::ExecutionError| error.to_string();
        Dispatch::graph_prepare(&device).map_err(reason)?;
        let window = Window(&device);
        let ran = step();
        Dispatch::graph_start_capture(&device).map_err(reason)?;
        let recorded = step();
        let graph = window.close().map_err(reason)?;
        Ok((Self { device, graph }, [ran, recorded]))
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

/// A recording under way, which ends with this: otherwise whatever the thread launches later would be recorded and never run.
struct Window<'a>(&'a DispatchDevice);

impl Window<'_> {
    fn close(self) -> Result<DispatchGraph, burn::backend::ExecutionError> {
        let device = self.0;
        std::mem::forget(self);
        Dispatch::graph_stop_capture(device)
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        drop(Dispatch::graph_stop_capture(self.0));
    }
}
