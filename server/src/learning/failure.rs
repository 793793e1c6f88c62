//! What goes wrong with images and models, as a client sees it. Exhaustive on purpose: a new cause must be given a
//! code here.

#![allow(clippy::wildcard_enum_match_arm)] // an enum that may grow in a crate of its own

use thanosql_ml::MlError;
use thanosql_ml::images::ImageError;
use thanosql_protocol::{SqlError, SqlState};

/// One image that could not be had. `shown` is the path as the statement spelled it, if it was a path.
pub fn image_error(error: &ImageError, shown: Option<&str>) -> SqlError {
    let name = |given: &str| shown.unwrap_or(given).to_owned();
    match error {
        ImageError::Missing { path } => SqlError::new(
            SqlState::UNDEFINED_FILE,
            format!("the image file \"{}\" does not exist", name(&path.to_string_lossy())),
        ),
        ImageError::NotAFile { path } => SqlError::new(
            SqlState::UNDEFINED_FILE,
            format!("\"{}\" is not a file", name(&path.to_string_lossy())),
        ),
        ImageError::NotAnImage { name: given } => SqlError::new(
            SqlState::INVALID_BINARY_REPRESENTATION,
            format!("\"{}\" is not an image", name(given)),
        )
        .with_hint(
            "JPEG, PNG, WebP, BMP, GIF and PNM are read; the content decides, not the file's name.",
        ),
        ImageError::Broken { name: given, reason } => SqlError::new(
            SqlState::INVALID_BINARY_REPRESENTATION,
            format!("\"{}\" is a broken image", name(given)),
        )
        .with_detail(reason.clone()),
        ImageError::TooLarge { name: given, reason } => SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("the image \"{}\" is too large: {reason}", name(given)),
        )
        .with_hint(
            "The settings max_image_bytes, max_image_pixels and max_image_side are the limits.",
        ),
        ImageError::NoImages | ImageError::BadSize { .. } => {
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, error.to_string())
        }
        ImageError::Io { path, source } => SqlError {
            message: format!("cannot access \"{}\": {source}", name(&path.to_string_lossy())),
            ..crate::error::io_error(source)
        },
    }
}

/// An error of training, embedding or a device.
pub fn ml_error(error: MlError) -> SqlError {
    let message = error.to_string();
    match error {
        MlError::NoDevice { .. } => SqlError::new(SqlState::SYSTEM_ERROR, message)
            .with_hint("device='cpu' always works; 'auto' takes a GPU if there is one."),
        MlError::UnknownName { known, .. } => {
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
                .with_hint(format!("Valid are: {known}."))
        }
        MlError::InvalidOption { .. }
        | MlError::TargetsMismatch { .. }
        | MlError::InputMismatch { .. } => {
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
        }
        MlError::TooFewImages { .. } => SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
            .with_hint("The query must yield more rows with readable images."),
        MlError::NotFinite { .. } => SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
            .with_hint("A lower learning_rate or a higher temperature helps."),
        MlError::Collapsed { .. } => SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message)
            .with_hint("A lower learning_rate or a longer warm-up (warmup_epochs) helps."),
        MlError::Stopped => crate::error::cancelled(),
        MlError::InvalidModel { .. } | MlError::InvalidCheckpoint { .. } => {
            SqlError::new(SqlState::DATA_CORRUPTED, message)
        }
        MlError::Device { .. } => SqlError::new(SqlState::SYSTEM_ERROR, message),
        MlError::Image(error) => image_error(&error, None),
        MlError::Io { source, .. } => SqlError { message, ..crate::error::io_error(&source) },
        // The enum may grow in a crate of its own; until it has a code it is a fault of ours.
        other => crate::error::internal(other),
    }
}
