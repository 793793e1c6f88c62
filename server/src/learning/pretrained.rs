//! The weights that `pretrained=True` starts from: the file that the setting `pretrained_resnet18` names.
//!
//! The file is read when a training is filed, so that a wrong one is an error of the statement, and again when it starts. Its digest is
//! kept with the training in between: what begins with one file does not go on with another.

use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use thanosql_ml::Pretrained;
use thanosql_protocol::{SqlError, SqlState};

use super::training::Shared;
use crate::files::open_file;
use crate::hexadecimal::hexadecimal;

impl Shared {
    /// The weights, and the SHA-256 of their file. `known` is the digest that it must have.
    ///
    /// # Errors
    /// 22023 without the setting, 58P01 and its like for a file that cannot be read, 54000 for one that is too large, 22P03 if it holds
    /// something else, 55000 if it is not the one with the known digest.
    pub(super) fn pretrained(&self, known: Option<&str>) -> Result<(Pretrained, String), SqlError> {
        let path = self.options.pretrained_resnet18.as_ref().ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "pretrained=True needs weights, and the setting pretrained_resnet18 names none",
            )
            .with_hint("Set pretrained_resnet18 to a file with ResNet-18's weights in torchvision's names, .safetensors or .pth.")
        })?;
        let bytes =
            read_file(path, &path.display().to_string(), self.options.max_model_file_bytes)?;
        let digest = hexadecimal(&Sha256::digest(&bytes));
        if known.is_some_and(|known| known != digest) {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the pretrained weights have changed since the training was asked for",
            )
            .with_hint("Run the statement again to start from the weights as they are now."));
        }
        let weights = Pretrained::from_bytes(&bytes).map_err(|error| {
            SqlError::new(
                SqlState::INVALID_BINARY_REPRESENTATION,
                format!("the file of the setting pretrained_resnet18 does not hold ResNet-18's weights: {error}"),
            )
        })?;
        Ok((weights, digest))
    }
}

/// A whole file of at most `limit` bytes. `shown` is its name to people.
///
/// # Errors
/// 42809 for what is no file, 54000 for one that is too large, and the operating system's.
pub(crate) fn read_file(path: &Path, shown: &str, limit: u64) -> Result<Vec<u8>, SqlError> {
    let failed = |error: std::io::Error| {
        let error = crate::error::io_error(&error);
        SqlError { message: format!("cannot read \"{shown}\": {}", error.message), ..error }
    };
    let file = open_file(path, shown)?;
    let length = file.metadata().map_err(failed)?.len();
    let too_large = || {
        SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("the file \"{shown}\" is larger than {} MiB", limit.div_ceil(1 << 20)),
        )
        .with_hint("The setting max_model_file_bytes is the limit.")
    };
    if length > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // It may grow while it is read.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [1; 100]).unwrap();
        assert_eq!(read_file(&path, "f", 100).unwrap(), [1; 100]);
        let code = |path: &Path, limit| read_file(path, "f", limit).unwrap_err().code;
        assert_eq!(code(&path, 99), SqlState::PROGRAM_LIMIT_EXCEEDED);
        assert_eq!(code(folder.path(), 100), SqlState::WRONG_OBJECT_TYPE);
        assert_eq!(code(&folder.path().join("missing"), 100), SqlState::UNDEFINED_FILE);
        // A device is no file, and would be read for ever.
        assert_eq!(code(Path::new("/dev/zero"), 100), SqlState::WRONG_OBJECT_TYPE);
    }
}
