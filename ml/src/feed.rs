//! Batches of views on their way to the training step.
//!
//! On the CPU the next batch is fetched and drawn while the step before computes: a step is not all parallel, and where its arithmetic waits for one core
//! the other draws. On a GPU the images lie on the device and views are drawn there; a set too large for that is fetched ahead and sent a batch at a time. One
//! batch is made ahead, no more, so that memory holds two. What is drawn depends on the seed, the epoch and the image alone, never on when.

use std::sync::mpsc::sync_channel;
use std::thread;

use burn::tensor::{Tensor, TensorData};

use crate::device::ComputeDevice;
use crate::error::MlError;
use crate::images::Images;
use crate::recipe::Recipe;
use crate::views::ViewDrawer;
use crate::views::on_device::{DeviceDrawer, ResidentImages};

/// Where a training's views come from.
pub(crate) struct Feed<'a> {
    images: &'a dyn Images,
    device: &'a ComputeDevice,
    drawer: ViewDrawer,
    /// On a GPU.
    on_device: Option<OnDevice>,
}

struct OnDevice {
    drawer: DeviceDrawer,
    /// All images, if the device has room for them.
    resident: Option<ResidentImages>,
}

impl<'a> Feed<'a> {
    /// Of a training on `device`; a GPU gets the images now.
    ///
    /// # Errors
    ///
    /// As [`Images::fetch`].
    pub(crate) fn new(
        images: &'a dyn Images,
        recipe: &Recipe,
        device: &'a ComputeDevice,
    ) -> Result<Self, MlError> {
        let drawer = ViewDrawer::new(images.spec(), &recipe.augmentations, recipe.seed);
        let on_device = if device.is_cpu() {
            None
        } else {
            let drawer = DeviceDrawer::new(&drawer, device.inner());
            Some(OnDevice { drawer, resident: ResidentImages::new(images, device.inner())? })
        };
        Ok(Self { images, device, drawer, on_device })
    }

    /// Hands the views of each batch to `step`, in order: `[2 * batch, channels, height, width]`, without gradients. Ends with the first error of a batch
    /// or a step.
    pub(crate) fn each_batch<'b>(
        &self,
        epoch: u32,
        batches: impl Iterator<Item = &'b [usize]> + Send,
        mut step: impl FnMut(&'b [usize], Tensor<4>) -> Result<(), MlError>,
    ) -> Result<(), MlError> {
        let (images, input, device) = (self.images, self.images.spec(), self.device.inner());
        match &self.on_device {
            None => {
                let side = input.size as usize;
                let draw = |batch: &[usize]| {
                    let images = images.fetch(batch)?;
                    Ok(self.drawer.draw_batch(images.pixels(), batch, epoch))
                };
                each_ahead(batches, draw, |batch, views| {
                    let shape = [2 * batch.len(), input.color.channels(), side, side];
                    step(batch, Tensor::from_data(TensorData::new(views, shape), device))
                })
            }
            Some(OnDevice { drawer, resident: Some(resident) }) => {
                for batch in batches {
                    step(batch, drawer.draw(resident, batch, batch, epoch))?;
                }
                Ok(())
            }
            Some(OnDevice { drawer, resident: None }) => each_ahead(
                batches,
                |batch| images.fetch(batch),
                |batch, images| {
                    let rows: Vec<usize> = (0..batch.len()).collect();
                    let images = ResidentImages::upload(input, images.pixels(), device);
                    step(batch, drawer.draw(&images, &rows, batch, epoch))
                },
            ),
        }
    }
}

/// Calls `prepare` for every batch on a thread of its own, and `step` on this one with what it gave; the next batch is prepared meanwhile.
fn each_ahead<'b, T: Send>(
    batches: impl Iterator<Item = &'b [usize]> + Send,
    prepare: impl Fn(&'b [usize]) -> Result<T, MlError> + Send,
    mut step: impl FnMut(&'b [usize], T) -> Result<(), MlError>,
) -> Result<(), MlError> {
    thread::scope(|scope| {
        // No room: what is prepared is handed over when the step asks for it.
        let (sender, receiver) = sync_channel(0);
        thread::Builder::new()
            .name("views".to_owned())
            .spawn_scoped(scope, move || {
                for batch in batches {
                    // The receiver is gone when a step has failed.
                    if sender.send((batch, prepare(batch))).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| MlError::Device {
                reason: format!("a thread for views cannot be started: {error}"),
            })?;
        for (batch, prepared) in receiver {
            step(batch, prepared?)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_order_and_the_first_error_ends_them() {
        let places: Vec<usize> = (0..12).collect();
        let sum = |batch: &[usize]| Ok(batch.iter().sum::<usize>());
        let mut seen = Vec::new();
        each_ahead(places.chunks(4), sum, |batch, sum| {
            seen.push((batch[0], sum));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(0, 6), (4, 22), (8, 38)]);

        let mut steps = 0;
        let stopped = each_ahead(places.chunks(4), sum, |_, _| {
            steps += 1;
            if steps == 2 { Err(MlError::Stopped) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(MlError::Stopped)) && steps == 2);

        let mut steps = 0;
        let fails = |batch: &[usize]| if batch[0] == 4 { Err(MlError::Stopped) } else { Ok(()) };
        let failed = each_ahead(places.chunks(4), fails, |_, ()| {
            steps += 1;
            Ok(())
        });
        assert!(matches!(failed, Err(MlError::Stopped)) && steps == 1);
    }
}
