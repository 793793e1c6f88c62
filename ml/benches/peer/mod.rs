//! The same training by a peer, a PyTorch script: run alternately with ours, so that both meet the machine in the same state.
//!
//! The script is given `--data`, `--train`, `--test`, `--epochs`, `--batch`, `--lr`, `--temperature`, `--seed`, `--threads`, `--device` and, for our compact encoder,
//! `--widths 32,64,128 --blocks 1 --stem-stride 2`. It prints a line an epoch, from which the numbers after `knn5`, `step`, `end-to-end` and `embed` are taken.
//! Epoch 0 is a network that has not learned; epoch 1 warms up and does not count, as in ours, unless it is the only one.

use std::env;
use std::ffi::OsString;
use std::process::{Command, Stdio};

use thanosql_ml::recipe::{LEARNING_RATE, TEMPERATURE};
use thanosql_ml::{ComputeDevice, TrainOptions};

use crate::{Figures, Result};

/// A Python with the script for it.
pub(crate) struct Peer {
    python: OsString,
    script: OsString,
    data: OsString,
}

impl Peer {
    /// The peer that the environment names, if it names one.
    pub(crate) fn from_environment() -> Result<Option<Peer>> {
        match (env::var_os("THANOSQL_PEER_PYTHON"), env::var_os("THANOSQL_PEER")) {
            (None, None) => Ok(None),
            (Some(python), Some(script)) => {
                let data = env::var_os("THANOSQL_MNIST")
                    .ok_or("a peer needs THANOSQL_MNIST, so that both see the same images")?;
                Ok(Some(Peer { python, script, data }))
            }
            _ => Err("THANOSQL_PEER_PYTHON and THANOSQL_PEER belong together".into()),
        }
    }

    /// One training.
    pub(crate) fn run(
        &self,
        options: &TrainOptions,
        batch: usize,
        [train, test]: [usize; 2],
        device: &ComputeDevice,
    ) -> Result<Figures> {
        let device = if device.is_cpu() { "cpu" } else { "cuda" };
        let arguments = [
            ("--train", train.to_string()),
            ("--test", test.to_string()),
            ("--epochs", options.max_epochs.to_string()),
            ("--batch", batch.to_string()),
            ("--lr", options.learning_rate.unwrap_or(LEARNING_RATE).to_string()),
            ("--temperature", options.temperature.unwrap_or(TEMPERATURE).to_string()),
            ("--seed", options.seed.to_string()),
            ("--threads", rayon::current_num_threads().to_string()),
            ("--device", device.to_owned()),
            ("--widths", "32,64,128".to_owned()),
            ("--blocks", "1".to_owned()),
            ("--stem-stride", "2".to_owned()),
        ];
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg("--data").arg(&self.data);
        for (name, value) in &arguments {
            command.args([name, value.as_str()]);
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("the peer ended with {}", output.status).into());
        }
        parse(&String::from_utf8(output.stdout)?)
    }
}

/// Means over the epochs that count, and the last accuracy.
fn parse(text: &str) -> Result<Figures> {
    let mut epochs = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if !matches!(words[..], ["epoch", epoch, ..] if epoch != "0") {
            continue;
        }
        let after = |name: &str| {
            let place = words.iter().position(|word| *word == name);
            let value = place.and_then(|place| words.get(place + 1)?.parse::<f64>().ok());
            value.ok_or_else(|| format!("the peer says no {name}: {line}"))
        };
        epochs.push(Figures {
            step: after("step")?,
            epoch: after("end-to-end")?,
            embedding: after("embed")?,
            accuracy: after("knn5")?,
        });
    }
    let last = *epochs.last().ok_or("the peer printed no epoch")?;
    let counted = &epochs[usize::from(epochs.len() > 1)..];
    let mean = |figure: fn(&Figures) -> f64| {
        counted.iter().map(figure).sum::<f64>() / counted.len() as f64
    };
    Ok(Figures {
        step: mean(|figures| figures.step),
        epoch: mean(|figures| figures.epoch),
        embedding: mean(|figures| figures.embedding),
        accuracy: last.accuracy,
    })
}

/// Prints both sides' medians, and the ratio of each round: the median, the least and the greatest.
pub(crate) fn print_ratios(ours: &[Figures], peer: &[Figures]) {
    type Figure = fn(&Figures) -> f64;
    let figures: [(&str, Figure); 3] = [
        ("step", |figures| figures.step),
        ("epoch", |figures| figures.epoch),
        ("embedding", |figures| figures.embedding),
    ];
    println!("medians of {} rounds, images/s:", ours.len());
    for (name, figure) in figures {
        let all = |side: &[Figures]| side.iter().map(figure).collect::<Vec<_>>();
        let (ours, peer) = (all(ours), all(peer));
        let ratios: Vec<f64> = ours.iter().zip(&peer).map(|(ours, peer)| ours / peer).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "{name}: ours {:.0}, peer {:.0}, ratio {:.2} ({least:.2} to {greatest:.2})",
            median(ours),
            median(peer),
            median(ratios),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
