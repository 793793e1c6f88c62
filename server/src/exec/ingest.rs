//! ThanoSQL's COPY, which makes a table out of a CSV file or a folder, and GET THANOSQL DATASET.
//!
//! The types of a CSV file's columns are inferred from all of its lines, so that a value far down cannot break a type that the
//! first lines suggested. A folder gives a row a file: its path and its name.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thanosql_protocol::{Notice, Response, SqlError, SqlState};

use super::models::{object_name, path_argument};
use super::{Control, keep, rowset};
use crate::error::{arrow_error, io_error};
use crate::files::file_name;
use crate::plan;
use crate::plan::rows::options;
use crate::session::ClientSession;
use crate::sql::{CopyFile, CopyFileOptions, GetDataset, GetDatasetOptions, IfExists, Parsed};

/// Rows that are read from a file at once.
const BATCH_ROWS: usize = 8192;
/// The dataset that this server draws.
pub const DIGITS: &str = "digits_data";
/// How many images it has.
const DIGITS_TRAIN: usize = 4_000;
const DIGITS_TEST: usize = 1_000;
const DIGITS_SEED: u64 = 1;

/// What a table is filled from.
enum Source {
    Csv { path: PathBuf, schema: SchemaRef },
    Listing(RecordBatch),
}

impl ClientSession {
    /// `COPY name [OPTIONS (if_exists=...)] FROM 'path'`.
    pub(crate) async fn copy_file(
        &mut self,
        parsed: &Parsed,
        copy: &CopyFile,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = object_name(&copy.table)?;
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &copy.options, CopyFileOptions::read)?;
        let path = path_argument(&scope, &copy.source)?;
        let files = self.server.files.clone();
        let source = tokio::task::block_in_place(|| open(&files, &path))
            .map_err(|error| SqlError { position: Some(copy.source.position), ..error })?;
        let rows = self.fill(&name, &source, given.if_exists, control).await.map_err(|error| {
            SqlError { position: error.position.or(Some(copy.table.position())), ..error }
        })?;
        Ok(Response::Done { tag: format!("COPY {rows}") })
    }

    async fn fill(
        &mut self,
        name: &str,
        source: &Source,
        if_exists: IfExists,
        control: &Control,
    ) -> Result<u64, SqlError> {
        let schema = rowset::storable_schema(match source {
            Source::Csv { schema, .. } => schema,
            Source::Listing(batch) => batch.schema_ref(),
        })?;
        let snapshot = self.transaction.snapshot();
        if snapshot.view(name).is_some() {
            return Err(super::ddl::exists(name));
        }
        let target = match (snapshot.table(name), if_exists) {
            (None, _) => {
                self.transaction.change(|transaction| {
                    transaction.create_table(name, schema.clone()).map(|_| ())
                })?;
                schema.clone()
            }
            (Some(_), IfExists::Fail) => {
                return Err(super::ddl::exists(name).with_hint(
                    "OPTIONS (if_exists='replace') replaces it, if_exists='append' adds to it.",
                ));
            }
            (Some(_), IfExists::Replace) => {
                self.transaction.change(|transaction| {
                    transaction.drop_table(name)?;
                    transaction.create_table(name, schema.clone()).map(|_| ())
                })?;
                schema.clone()
            }
            (Some(table), IfExists::Append) => {
                let target = table.schema();
                if let Some(extra) =
                    schema.fields().iter().find(|field| target.index_of(field.name()).is_err())
                {
                    return Err(super::dml::missing_column(extra.name(), name, &target));
                }
                target
            }
        };
        let mut rows = 0;
        match source {
            Source::Listing(batch) => {
                let batch = keep::by_name(batch, &target)?;
                rows += batch.num_rows() as u64;
                self.transaction.change(|transaction| transaction.append(name, &batch))?;
            }
            Source::Csv { path, schema } => {
                let file = tokio::task::block_in_place(|| text_file(path))?;
                let mut reader = ReaderBuilder::new(schema.clone())
                    .with_header(true)
                    .with_batch_size(BATCH_ROWS)
                    .build(BufReader::new(file))
                    .map_err(arrow_error)?;
                while let Some(batch) = tokio::task::block_in_place(|| reader.next()) {
                    // A place where a cancelled statement stops.
                    control.run(async { Ok(()) }).await?;
                    let batch = keep::by_name(&batch.map_err(arrow_error)?, &target)?;
                    rows += batch.num_rows() as u64;
                    self.transaction.change(|transaction| transaction.append(name, &batch))?;
                }
            }
        }
        Ok(rows)
    }

    /// GET THANOSQL DATASET.
    pub(crate) async fn get_dataset(
        &mut self,
        parsed: &Parsed,
        get: &GetDataset,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = get.name.value.clone();
        if name != DIGITS {
            let known = "Datasets that can be had: digits_data.";
            return Err(match name.as_str() {
                "mnist_data" => SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "dataset \"mnist_data\" is not supported yet",
                ),
                _ => SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("dataset \"{name}\" does not exist"),
                ),
            }
            .with_hint(known)
            .at(get.name.position));
        }
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &get.options, GetDatasetOptions::read)?;
        if super::ddl::relation_exists(&scope, &name) && !given.overwrite {
            return Err(super::ddl::exists(&name)
                .with_hint("OPTIONS (overwrite=True) replaces it.")
                .at(get.name.position));
        }
        let folder = self.server.dataset_dir.join(&name);
        let drawn = control
            .run(async {
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || {
                    if let Some(parent) = folder.parent() {
                        std::fs::create_dir_all(parent).map_err(|error| io_error(&error))?;
                    }
                    thanosql_ml::digits::write_dataset(
                        &folder,
                        DIGITS_TRAIN,
                        DIGITS_TEST,
                        DIGITS_SEED,
                    )
                    .map_err(crate::learning::ml_error)
                })
                .await
                .map_err(crate::error::internal)?
            })
            .await?;
        let source = tokio::task::block_in_place(|| csv(drawn.table.clone()))?;
        let rows = self.fill(&name, &source, IfExists::Replace, control).await?;
        control
            .notices
            .send(Notice::new(format!("{rows} images of digits are in {}", folder.display())));
        Ok(Response::Done { tag: "GET THANOSQL DATASET".to_string() })
    }
}

/// Finds out what a path holds. Blocking.
fn open(files: &crate::files::FileAccess, path: &str) -> Result<Source, SqlError> {
    if path.trim_start().starts_with('[') {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "COPY from rows in the statement is not supported yet",
        ));
    }
    let resolved = files.resolve(path)?;
    if resolved.is_dir() {
        let paths = files.list_folder(path, &[], true)?;
        let names: ArrayRef =
            Arc::new(StringArray::from_iter_values(paths.iter().map(|path| file_name(path))));
        let paths: ArrayRef = Arc::new(StringArray::from_iter_values(&paths));
        let schema = Arc::new(Schema::new(vec![
            Field::new("image_path", DataType::Utf8, true),
            Field::new("filename", DataType::Utf8, true),
        ]));
        return RecordBatch::try_new(schema, vec![paths, names])
            .map(Source::Listing)
            .map_err(arrow_error);
    }
    match resolved
        .extension()
        .and_then(|extension| extension.to_str())
        .map(str::to_lowercase)
        .as_deref()
    {
        Some("csv") => csv(resolved),
        Some("parquet" | "json") => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY from \"{path}\" is not supported yet"),
        )
        .with_hint("COPY reads .csv files and folders.")),
        Some(_) | None => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY cannot tell what \"{path}\" holds"),
        )
        .with_hint("COPY reads .csv files and folders.")),
    }
}

/// A CSV file with a header. Blocking: reads it once to infer its types.
fn csv(path: PathBuf) -> Result<Source, SqlError> {
    let file = text_file(&path)?;
    let format = Format::default().with_header(true);
    let (inferred, _) = format.infer_schema(BufReader::new(file), None).map_err(arrow_error)?;
    if inferred.fields().is_empty() {
        return Err(SqlError::new(
            SqlState::BAD_COPY_FILE_FORMAT,
            format!(
                "\"{}\" has no columns",
                path.file_name().unwrap_or_default().to_string_lossy()
            ),
        ));
    }
    let fields: Vec<Field> = inferred
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let name = match field.name().trim() {
                "" => format!("column_{}", index + 1),
                name => name.to_string(),
            };
            // A column without a single value is text.
            let data_type = match field.data_type() {
                DataType::Null => DataType::Utf8,
                data_type => data_type.clone(),
            };
            Field::new(name, data_type, true)
        })
        .collect();
    Ok(Source::Csv { path, schema: Arc::new(Schema::new(fields)) })
}

/// Opens a text file behind its byte order mark, if it has one.
fn text_file(path: &Path) -> Result<File, SqlError> {
    let mut file = File::open(path).map_err(|error| io_error(&error))?;
    let mut mark = [0; 3];
    let has_mark = file.read_exact(&mut mark).is_ok() && mark == [0xEF, 0xBB, 0xBF];
    if !has_mark {
        file.seek(SeekFrom::Start(0)).map_err(|error| io_error(&error))?;
    }
    Ok(file)
}

/// The datasets that GET THANOSQL DATASET knows: name, images, where they come from.
pub fn datasets() -> [(&'static str, i64, &'static str); 1] {
    [(DIGITS, (DIGITS_TRAIN + DIGITS_TEST) as i64, "handwriting-like digits, drawn by the server")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_inferred_from_all_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let mut text = "\u{feff}a,b,\n".to_string();
        for line in 0..3000 {
            text.push_str(&format!("{line},{},x\n", line));
        }
        text.push_str("1,not a number,가나\n");
        std::fs::write(&path, text).unwrap();
        let Source::Csv { schema, .. } = csv(path).unwrap() else { panic!("not a csv") };
        assert_eq!(schema.field(0), &Field::new("a", DataType::Int64, true));
        assert_eq!(schema.field(1), &Field::new("b", DataType::Utf8, true));
        assert_eq!(schema.field(2).name(), "column_3");
    }

    #[test]
    fn an_empty_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "").unwrap();
        assert!(csv(path).is_err());
    }
}
