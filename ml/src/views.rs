//! Views.
use std::fmt;
use std::str::FromStr;

use crate::error::MlError;

/// One way of changing an image without changing what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Augmentation {
    /// Rotation, shear, scale and translation.
    Affine,
    /// A part of the image, stretched over the whole.
    ResizedCrop,
    /// Left and right exchanged, every second time.
    HorizontalFlip,
    /// Brightness, contrast, saturation and hue (the latter two with colour images only).
    ColorJitter,
    /// Brightness and contrast alone.
    Brightness,
    /// Colour taken away, now and then.
    Grayscale,
    /// Gaussian blur, every second time.
    Blur,
    /// A rectangle blanked, now and then.
    Erasing,
}

impl Augmentation {
    /// All of them, in the order in which they are applied.
    pub const ALL: [Self; 8] = [
        Self::Affine,
        Self::ResizedCrop,
        Self::HorizontalFlip,
        Self::ColorJitter,
        Self::Brightness,
        Self::Grayscale,
        Self::Blur,
        Self::Erasing,
    ];

    /// Its name, as it is parsed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::ResizedCrop => "resized_crop",
            Self::HorizontalFlip => "horizontal_flip",
            Self::ColorJitter => "color_jitter",
            Self::Brightness => "brightness",
            Self::Grayscale => "grayscale",
            Self::Blur => "blur",
            Self::Erasing => "erasing",
        }
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Augmentation {
    type Err = MlError;

    fn from_str(text: &str) -> Result<Self, MlError> {
        let name = text.trim().to_ascii_lowercase();
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| MlError::UnknownName {
            kind: "augmentation",
            name: text.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}
