//! Models: opaque metadata, and parts of any size such as weights.
//!
//! A model is replaced whole: its parts are a unit of their own, and the commit that swaps the model's record swaps all
//! of them. Whoever holds a [`ModelEntry`] reads the parts of that version even if the model is replaced meanwhile.
//!
//! A name's version goes up for ever, also across a drop, so that vectors that remember "model digits, version 2" never
//! match another model that later takes the name. What metadata and parts mean is not known here.

use std::sync::Arc;

use crate::error::{Result, StorageError};
use crate::piece::Unit;

/// One version of a model. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ModelEntry {
    version: Arc<ModelVersion>,
}

/// What a model is in one version.
#[derive(Debug)]
pub(crate) struct ModelVersion {
    pub(crate) oid: u32,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) metadata: Vec<u8>,
    pub(crate) unit: Arc<Unit>,
    pub(crate) parts: Vec<(String, u64)>,
}

impl ModelEntry {
    pub(crate) fn new(version: Arc<ModelVersion>) -> ModelEntry {
        ModelEntry { version }
    }

    /// The object id; replacing a model keeps it.
    pub fn oid(&self) -> u32 {
        self.version.oid
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.version.name
    }

    /// How many models have had this name, this one included.
    pub fn version(&self) -> u64 {
        self.version.version
    }

    /// What was given as metadata.
    pub fn metadata(&self) -> &[u8] {
        &self.version.metadata
    }

    /// Names and lengths in bytes of the parts, in the order in which they were given.
    pub fn parts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.version.parts.iter().map(|(name, bytes)| (name.as_str(), *bytes))
    }

    /// Reads a part.
    pub fn part(&self, name: &str) -> Result<Vec<u8>> {
        let (index, (_, bytes)) =
            self.version.parts.iter().enumerate().find(|(_, (part, _))| part == name).ok_or_else(
                || StorageError::NoSuchPart {
                    model: self.version.name.clone(),
                    part: name.to_owned(),
                },
            )?;
        Ok(self.version.unit.read_part(index as u32, *bytes)?.to_vec())
    }
}

/// Writes a model's parts as a unit, which is garbage until a commit takes it over.
pub(crate) fn write_parts(unit: &Unit, parts: &[(&str, &[u8])]) -> Result<Vec<(String, u64)>> {
    let mut written = Vec::with_capacity(parts.len());
    for (index, (name, bytes)) in parts.iter().enumerate() {
        unit.write_part(index as u32, bytes)?;
        written.push(((*name).to_owned(), bytes.len() as u64));
    }
    Ok(written)
}
