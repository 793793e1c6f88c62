//! AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), with decay for weights but not for biases and normalisation.
//!
//! It is written here, a page of arithmetic, because its state must be part of a checkpoint under stable names and come back bit by bit.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor, TensorData};

use crate::encoder::residual::{ParameterVisitor, Role};
use crate::kernels::{
    AdamWConstants, AdamWStep, Moved, adamw, adamw_in_place, is_on_cpu, overwrite,
};
use crate::weights::Weights;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The two running means of a parameter's gradient, flat.
#[derive(Clone, Debug)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
}

/// The optimizer of one training.
#[derive(Debug)]
pub(crate) struct AdamW {
    weight_decay: f64,
    steps: u64,
    /// The learning rate of the step under way.
    rate: f64,
    /// On a GPU, which reads them there: the numbers of the step under way.
    numbers: Option<Tensor<1>>,
    moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// For parameters on this device.
    pub(crate) fn new(weight_decay: f64, device: &Device) -> Self {
        let numbers = (!is_on_cpu(device)).then(|| Tensor::zeros([3], device));
        Self { weight_decay, steps: 0, rate: 0.0, numbers, moments: BTreeMap::new() }
    }

    /// Starts the next step.
    pub(crate) fn begin(&mut self, rate: f64) {
        self.steps += 1;
        self.rate = rate;
        if let Some(numbers) = &self.numbers {
            let step = self.numbers_of_step(self.weight_decay);
            let values = [step.rate, step.correction, step.kept].map(|number| number as f32);
            overwrite(numbers, Tensor::from_data(TensorData::from(values), &numbers.device()));
        }
    }

    /// Moves the parameters that it is then shown by these gradients.
    pub(crate) fn update(&mut self, gradients: Gradients) -> Update<'_> {
        Update { gradients, optimizer: self }
    }

    fn numbers_of_step(&self, decay: f64) -> AdamWStep {
        // Both means start from zero and are corrected for it.
        let steps = self.steps as f64;
        AdamWStep {
            beta_1: BETA_1,
            beta_2: BETA_2,
            rate: self.rate / (1.0 - BETA_1.powf(steps)),
            correction: 1.0 - BETA_2.powf(steps),
            epsilon: EPSILON,
            kept: 1.0 - self.rate * decay,
        }
    }

    /// Adds its state to a checkpoint.
    pub(crate) fn save(&self, weights: &mut Weights) -> Result<(), String> {
        for (name, moments) in &self.moments {
            weights.insert_tensor(&format!("adamw.first.{name}"), &moments.first)?;
            weights.insert_tensor(&format!("adamw.second.{name}"), &moments.second)?;
        }
        Ok(())
    }

    /// Names and shapes of what [`save`](Self::save) adds for a parameter.
    pub(crate) fn parameters(name: &str, shape: &[usize]) -> [(String, Vec<usize>); 2] {
        let length = shape.iter().product();
        [
            (format!("adamw.first.{name}"), vec![length]),
            (format!("adamw.second.{name}"), vec![length]),
        ]
    }

    /// Takes its state from a checkpoint that holds it for all of `names`.
    pub(crate) fn load<'a>(
        &mut self,
        steps: u64,
        names: impl Iterator<Item = &'a str>,
        weights: &Weights,
        device: &Device,
    ) {
        self.steps = steps;
        for name in names {
            let first = weights.tensor(&format!("adamw.first.{name}"), device);
            let second = weights.tensor(&format!("adamw.second.{name}"), device);
            self.moments.insert(name.to_owned(), Moments { first, second });
        }
    }
}

/// One step, under way.
pub(crate) struct Update<'a> {
    gradients: Gradients,
    optimizer: &'a mut AdamW,
}

impl ParameterVisitor for Update<'_> {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, tensor: &mut Tensor<D>) {
        let decays = match role {
            Role::Weight => true,
            Role::Offset => false,
            Role::Statistic => return,
        };
        let Some(gradient) = tensor.grad_remove(&mut self.gradients) else { return };
        let shape = tensor.dims();
        let length = shape.iter().product::<usize>();
        let optimizer = &mut *self.optimizer;
        let moments = optimizer.moments.remove(name).unwrap_or_else(|| {
            let zeros = || Tensor::zeros([length], &gradient.device());
            Moments { first: zeros(), second: zeros() }
        });
        let before = Moved {
            parameter: tensor.clone().inner().reshape([length]),
            first: moments.first,
            second: moments.second,
        };
        let gradient = gradient.reshape([length]);
        let Moved { parameter, first, second } = match optimizer.numbers.clone() {
            Some(numbers) => {
                let constants =
                    AdamWConstants { beta_1: BETA_1, beta_2: BETA_2, epsilon: EPSILON, decays };
                adamw_in_place(before, gradient, numbers, constants)
            }
            None => {
                let decay = if decays { optimizer.weight_decay } else { 0.0 };
                adamw(before, gradient, optimizer.numbers_of_step(decay))
            }
        };
        optimizer.moments.insert(name.to_owned(), Moments { first, second });
        *tensor = Tensor::from_inner(parameter.reshape(shape)).require_grad();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::read;

    /// One parameter, `loss = sum(slope * parameter)`, so the gradient is the slope.
    fn run(role: Role, decay: f64, slopes: &[f32]) -> f32 {
        let device = Device::flex().autodiff();
        let mut parameter = Tensor::<1>::from_floats([2.0], &device).require_grad();
        let mut optimizer = AdamW::new(decay, &device);
        for &slope in slopes {
            let gradients = parameter.clone().mul_scalar(slope).sum().backward();
            optimizer.begin(0.1);
            optimizer.update(gradients).visit("parameter", role, &mut parameter);
        }
        read(parameter).unwrap()[0]
    }

    #[test]
    fn a_constant_slope_moves_by_the_rate() {
        // The corrected means are the slope and its square, so each step is rate * sign(slope).
        assert!((run(Role::Weight, 0.0, &[3.0]) - 1.9).abs() < 1e-5);
        assert!((run(Role::Weight, 0.0, &[-0.02; 4]) - 2.4).abs() < 1e-4);
    }

    #[test]
    fn two_steps_by_hand() {
        // Slopes 1 and -1: first mean (0.9 * 0.1 - 0.1) / (1 - 0.81), second mean 1.
        let expected = 2.0 - 0.1 - 0.1 * (0.09 - 0.1) / 0.19;
        assert!((f64::from(run(Role::Weight, 0.0, &[1.0, -1.0])) - expected).abs() < 1e-5);
    }

    #[test]
    fn weights_decay_and_offsets_do_not() {
        assert!((run(Role::Weight, 0.5, &[1.0]) - (2.0 * (1.0 - 0.1 * 0.5) - 0.1)).abs() < 1e-5);
        assert!((run(Role::Offset, 0.5, &[1.0]) - 1.9).abs() < 1e-5);
        assert!((run(Role::Statistic, 0.5, &[1.0]) - 2.0).abs() < 1e-9);
    }
}
