//! The models that somebody publishes: an index at the configured address, and the files beside it.
//!
//! ```json
//! [{"name": "digits", "file": "digits.safetensors", "sha256": "9f86d0...", "bytes": 412000, "description": "..."}]
//! ```
//!
//! A file is a model as EXPORT MODEL writes it. The index is read when LIST or GET runs, never while they are planned.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use serde::Deserialize;
use thanosql_protocol::{SqlError, SqlState};

use super::download::{Fetcher, Patience, shown};
use crate::error::{arrow_error, through_datafusion};

/// The longest index.
const MAX_INDEX_BYTES: u64 = 4 << 20;

/// One model that can be had.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishedModel {
    pub(crate) name: String,
    /// Beside the index.
    pub(crate) file: String,
    /// Of the file, in hexadecimal.
    pub(crate) sha256: String,
    /// The file's length, if the publisher says so.
    #[serde(default)]
    pub(crate) bytes: Option<u64>,
    #[serde(default)]
    pub(crate) description: Option<String>,
}

/// Reads the index. Blocking.
///
/// # Errors
/// 22P02 for an index that is none, and what fetching it answers.
pub(crate) fn index(url: &str) -> Result<Vec<PublishedModel>, SqlError> {
    let bytes = Fetcher::new(Patience::default()).read(url, MAX_INDEX_BYTES)?;
    parse(&bytes).map_err(|reason| {
        SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("{} is no index of models", shown(url)),
        )
        .with_detail(reason)
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<PublishedModel>, String> {
    let models: Vec<PublishedModel> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    for (index, model) in models.iter().enumerate() {
        let wrong = |what: &str| Err(format!("The entry of model \"{}\" {what}.", model.name));
        if model.name.is_empty() {
            return Err(format!("Entry {} has no name.", index + 1));
        }
        if models[..index].iter().any(|other| other.name == model.name) {
            return wrong("stands there twice");
        }
        if model.sha256.len() != 64 || !model.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return wrong("has no SHA-256 in hexadecimal");
        }
        // A path below the index, and nothing that leads elsewhere.
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !model.file.split('/').all(is_plain) || model.file.contains([':', '\\', '?', '#', '%']) {
            return wrong("names no file beside the index");
        }
    }
    Ok(models)
}

/// `LIST THANOSQL MODEL`: without a configured address there is nothing to be had.
pub(crate) fn list(url: Option<String>) -> datafusion::common::Result<StreamingTable> {
    StreamingTable::try_new(schema(), vec![Arc::new(Listing { url, schema: schema() })])
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("description", DataType::Utf8, true),
        Field::new("source", DataType::Utf8, true),
        Field::new("bytes", DataType::Int64, true),
        Field::new("sha256", DataType::Utf8, true),
    ]))
}

/// The rows of LIST, fetched when they are asked for.
struct Listing {
    url: Option<String>,
    schema: SchemaRef,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("url", &self.url.as_deref().map(shown)).finish()
    }
}

impl PartitionStream for Listing {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let url = self.url.clone();
        let rows = async move {
            let Some(url) = url else { return Ok(RecordBatch::new_empty(schema())) };
            tokio::task::spawn_blocking(move || index(&url).and_then(|models| batch(&url, &models)))
                .await
                .map_err(|error| through_datafusion(crate::error::internal(error)))?
                .map_err(through_datafusion)
        };
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::once(rows)))
    }
}

fn batch(url: &str, models: &[PublishedModel]) -> Result<RecordBatch, SqlError> {
    let texts = |text: fn(&PublishedModel) -> Option<&str>| -> ArrayRef {
        Arc::new(models.iter().map(text).collect::<StringArray>())
    };
    let sources: ArrayRef = Arc::new(StringArray::from_iter_values(
        models.iter().map(|model| shown(&file_url(url, &model.file))),
    ));
    let bytes: ArrayRef = Arc::new(
        models
            .iter()
            .map(|model| model.bytes.and_then(|bytes| i64::try_from(bytes).ok()))
            .collect::<Int64Array>(),
    );
    RecordBatch::try_new(
        schema(),
        vec![
            texts(|model| Some(&model.name)),
            texts(|model| model.description.as_deref()),
            sources,
            bytes,
            texts(|model| Some(&model.sha256)),
        ],
    )
    .map_err(arrow_error)
}

/// The address of a file beside the index.
pub(crate) fn file_url(index: &str, file: &str) -> String {
    let end = index.find(['?', '#']).unwrap_or(index.len());
    let folder = index[..end].rfind('/').unwrap_or(end);
    format!("{}/{file}", &index[..folder])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn an_index_is_read_and_a_wrong_one_is_explained() {
        let models = parse(
            format!(r#"[{{"name":"m","file":"a/m.safetensors","sha256":"{HASH}","bytes":7}}]"#)
                .as_bytes(),
        )
        .unwrap();
        assert_eq!((models[0].name.as_str(), models[0].bytes), ("m", Some(7)));
        let check = |name: &str, file: &str, hash: &str, reason: &str| {
            let entry = format!(r#"{{"name":"{name}","file":"{file}","sha256":"{hash}"}}"#);
            let error = parse(format!("[{entry}]").as_bytes()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        check("", "f", HASH, "no name");
        check("m", "f", "xyz", "SHA-256");
        for file in ["", "../f", "/f", "http://elsewhere/f", "a/../f", "f?x", "%2e%2e/f", "a//f"] {
            check("m", file, HASH, "no file beside");
        }
        let entry = format!(r#"{{"name":"m","file":"f","sha256":"{HASH}"}}"#);
        assert!(parse(format!("[{entry},{entry}]").as_bytes()).unwrap_err().contains("twice"));
        assert!(parse(b"{}").is_err());
        assert!(parse(br#"[{"name":"m"}]"#).is_err());
    }

    #[test]
    fn files_stand_beside_the_index() {
        assert_eq!(file_url("http://h/x/index.json", "m.s"), "http://h/x/m.s");
        assert_eq!(file_url("http://h/x/index.json?a=/b", "m.s"), "http://h/x/m.s");
    }
}
