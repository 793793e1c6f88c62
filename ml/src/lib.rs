//! The learning half of ThanoSQL: reading images, training an encoder on them without labels (SimCLR),
//! and turning images into vectors with it.
//!
//! The way through the crate, in the order in which a training uses it:
//!
//! 1. [`images`] decodes files into one [`images::ImageSet`] of equal squares;
//! 2. [`train::train`] resolves a [`recipe`], draws two [`views`] of every image, and teaches an
//!    [`encoder`] with the contrastive [`loss`] on a [`device::ComputeDevice`];
//! 3. the [`model::Model`] it returns embeds images, and travels as a safetensors file;
//! 4. [`quality`] measures what the vectors are worth, and a [`neighbour_graph`] finds near ones among millions.
//!
//! A training may also start from [`pretrained`] weights; a [`model_file`] carries a model to another server.
//!
//! Everything here is synchronous and knows neither SQL, nor storage, nor sockets: the caller owns the threads.
//! Every result is reproducible on the CPU from its seed.

mod checkpoint;
mod dataset_folder;
pub mod device;
pub mod digits;
pub mod encoder;
mod epoch_quality;
mod error;
mod feed;
pub mod images;
pub mod kernels;
pub mod linear_probe;
pub mod loss;
pub mod mnist;
pub mod model;
pub mod model_file;
pub mod neighbour_graph;
mod optimizer;
pub mod pairs;
#[cfg(test)]
mod parity;
pub mod pretrained;
pub mod quality;
mod random;
pub mod recipe;
pub mod schedule;
mod tensor_file;
mod torch_file;
pub mod train;
pub mod views;
mod weights;

pub use device::{
    ComputeDevice, DeviceChoice, DeviceMemory, Precision, PrecisionChoice, keep_tuning_in,
};
pub use encoder::EncoderChoice;
pub use epoch_quality::EpochQuality;
pub use error::MlError;
pub use images::{Color, ImageSet, Images, InputSpec};
pub use loss::ContrastiveLoss;
pub use model::Model;
pub use model_file::ModelFile;
pub use pairs::ViewRecipe;
pub use pretrained::Pretrained;
pub use train::{
    EpochReport, EpochSummary, Flow, StepProgress, TrainOptions, Trained, TrainingObserver, train,
};
pub use views::Augmentation;
