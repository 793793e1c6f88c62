//! Encoders.
use std::fmt;
use std::str::FromStr;

use crate::error::MlError;

/// Which network to train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// By the images' size: compact up to 64 pixels a side, ResNet-18 above.
    #[default]
    Auto,
    /// Three residual stages of 32, 64 and 128 channels.
    Compact,
    /// ResNet-18.
    ResNet18,
}

impl fmt::Display for EncoderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Compact => "compact",
            Self::ResNet18 => "resnet18",
        })
    }
}

impl FromStr for EncoderChoice {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "compact" => Ok(Self::Compact),
            "resnet18" | "resnet-18" | "resnet_18" => Ok(Self::ResNet18),
            _ => Err(MlError::UnknownName {
                kind: "encoder",
                name: text.to_owned(),
                known: "auto, compact, resnet18".to_owned(),
            }),
        }
    }
}
