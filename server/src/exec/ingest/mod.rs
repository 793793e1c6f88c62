//! ThanoSQL's COPY, which makes a table out of a file, a folder, or rows in the statement.
//!
//! The ending of a file's name says how it is read: csv ([`csv`]), JSON ([`json`]) or Parquet ([`parquet`]). Types are inferred
//! from all rows before the first is stored, so that a value far down cannot break a type that the first ones suggested;
//! so a csv or JSON file is read twice, and never held in memory. A folder gives a row an image file: its path and its name.
//!
//! `if_exists='append'` takes the table's types instead: values of csv and texts of JSON, which have no type of their own,
//! are read as PostgreSQL reads them for the column; Parquet's types must be assignable ([`assign`]).
//!
//! Files are read on a thread of their own, which hands chunks over through a short queue: the statement can be stopped at
//! any time, and neither side runs ahead of the other.

mod assign;
mod csv;
mod json;
mod parquet;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thanosql_protocol::{Response, SqlError, SqlState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::append::{Appender, Chunk, Places};
use super::models::{object_name, path_argument};
use super::{Control, rowset};
use crate::catalog::constraints::TableDefinition;
use crate::files::{FileAccess, file_name, shown_name};
use crate::plan;
use crate::plan::Scope;
use crate::plan::rows::options;
use crate::session::ClientSession;
use crate::sql::{CopyFile, CopyFileOptions, IfExists, Parsed};

/// Chunks that may wait to be stored.
const QUEUE_CHUNKS: usize = 2;
/// The most columns of a table, as in PostgreSQL.
const MAX_COLUMNS: usize = 1600;

const HINT: &str = "COPY reads .csv, .json, .jsonl, .ndjson and .parquet files, folders of images, and rows as a JSON array in the statement.";

/// What a table is filled from.
enum Source {
    Csv(csv::CsvFile),
    Json(json::JsonRows),
    Parquet(Box<parquet::ParquetFile>),
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
        let name = object_name(&copy.table, &self.transaction.peek())?;
        self.lock(&name, control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &copy.options, CopyFileOptions::read)?;
        let path = path_argument(&scope, &copy.source)?;
        self.check_target(&scope, &name, given.if_exists)
            .map_err(|error| error.at(copy.table.position()))?;
        let in_source =
            |error: SqlError| SqlError { position: Some(copy.source.position), ..error };
        let files = self.server.files.clone();
        let stop = control.cancel.clone();
        let source =
            off_thread(control, move || open(&files, &path, &stop)).await.map_err(in_source)?;
        let rows =
            self.fill(&scope, &name, source, given.if_exists, control).await.map_err(|error| {
                SqlError { position: error.position.or(Some(copy.source.position)), ..error }
            })?;
        Ok(Response::Done { tag: format!("COPY {rows}") })
    }

    /// Makes, replaces or extends a table with the rows of a csv file with a header.
    pub(crate) async fn fill_from_csv(
        &mut self,
        scope: &Scope,
        name: &str,
        path: PathBuf,
        if_exists: IfExists,
        control: &Control,
    ) -> Result<u64, SqlError> {
        let stop = control.cancel.clone();
        let open = move || csv::CsvFile::open(path, &stop).map(Source::Csv);
        let source = off_thread(control, open).await?;
        self.fill(scope, name, source, if_exists, control).await
    }

    /// Whether the name is free, or may be used.
    pub(crate) fn check_target(
        &self,
        scope: &Scope,
        name: &str,
        if_exists: IfExists,
    ) -> Result<(), SqlError> {
        if scope.snapshot.view(name).is_some() {
            return Err(match if_exists {
                IfExists::Fail => super::ddl::exists(name),
                IfExists::Replace | IfExists::Append => {
                    SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is a view"))
                }
            });
        }
        if scope.snapshot.table(name).is_some() && if_exists == IfExists::Fail {
            return Err(super::ddl::exists(name).with_hint(
                "OPTIONS (if_exists='replace') replaces it, if_exists='append' adds to it.",
            ));
        }
        Ok(())
    }

    async fn fill(
        &mut self,
        scope: &Scope,
        name: &str,
        mut source: Source,
        if_exists: IfExists,
        control: &Control,
    ) -> Result<u64, SqlError> {
        let existing = scope.snapshot.table(name);
        let appends = if_exists == IfExists::Append && existing.is_some();
        // No rows of no columns are nothing to make a table of, but may be added to one.
        if source.names().is_empty() && appends {
            return Ok(0);
        }
        check_names(&source.names())?;
        let (schema, targets) = match (&existing, if_exists) {
            (Some(table), IfExists::Append) => {
                let schema = table.schema();
                let targets = targets(&source.names(), name, &schema)?;
                source.check_types(name, &schema, &targets)?;
                (schema, targets)
            }
            _ => {
                let stop = control.cancel.clone();
                let (inferred, back) = off_thread(control, move || {
                    let schema = source.infer(&stop)?;
                    Ok((schema, source))
                })
                .await?;
                source = back;
                let mut schema = rowset::storable_schema(&inferred)?;
                if let Some(existing) = &existing {
                    schema = TableDefinition::in_place_of(existing, &schema).schema();
                }
                self.transaction.change(|transaction| match &existing {
                    Some(_) => {
                        transaction.truncate(name)?;
                        transaction.redefine_table(name, schema.clone())
                    }
                    None => transaction.create_table(name, schema.clone()).map(|_| ()),
                })?;
                let targets = (0..schema.fields().len()).collect();
                (schema, targets)
            }
        };
        let appender = self.appender(scope, name, schema, targets, None)?;
        pump(source, appender, control).await
    }
}

/// The table's column of each of the data's.
fn targets(names: &[&str], table: &str, schema: &SchemaRef) -> Result<Vec<usize>, SqlError> {
    names
        .iter()
        .map(|name| {
            schema.index_of(name).map_err(|_| super::targets::missing_column(name, table, schema))
        })
        .collect()
}

/// # Errors
/// 42701 for a name that comes twice, 22P04 for an empty one or none at all, 54011 for too many.
fn check_names(names: &[&str]) -> Result<(), SqlError> {
    if names.is_empty() {
        return Err(SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, "the data has no columns"));
    }
    if names.len() > MAX_COLUMNS {
        return Err(SqlError::new(
            SqlState::TOO_MANY_COLUMNS,
            format!("tables can have at most {MAX_COLUMNS} columns, the data has {}", names.len()),
        ));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(SqlError::new(
                SqlState::BAD_COPY_FILE_FORMAT,
                format!("column {} of the data has no name", index + 1),
            )
            .with_hint("Every column needs a name of its own."));
        }
        if names[..index].contains(name) {
            return Err(SqlError::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
    }
    Ok(())
}

/// Reads a source on a thread of its own and stores its chunks. Answers how many rows were stored.
async fn pump(source: Source, mut appender: Appender, control: &Control) -> Result<u64, SqlError> {
    let table = appender.table.clone();
    let fields: Vec<Field> =
        appender.targets.iter().map(|target| appender.schema.field(*target).clone()).collect();
    let (sender, mut receiver) = mpsc::channel::<Chunk>(QUEUE_CHUNKS);
    let reader = tokio::task::spawn_blocking(move || {
        source.read(&table, &fields, &mut |chunk| {
            // The other side is gone when the statement was stopped, or a row was refused.
            sender.blocking_send(chunk).map_err(|_| crate::error::cancelled())
        })
    });
    while let Some(chunk) = control.run(async { Ok(receiver.recv().await) }).await? {
        appender.store(chunk)?;
    }
    reader.await.map_err(crate::error::internal)??;
    Ok(appender.rows)
}

/// Runs blocking work unless the statement is stopped first.
async fn off_thread<T: Send + 'static>(
    control: &Control,
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    control
        .run(async { tokio::task::spawn_blocking(work).await.map_err(crate::error::internal)? })
        .await
}

impl Source {
    fn names(&self) -> Vec<&str> {
        match self {
            Source::Csv(file) => file.names().collect(),
            Source::Json(rows) => rows.names().collect(),
            Source::Parquet(file) => {
                file.schema().fields().iter().map(|field| field.name().as_str()).collect()
            }
            Source::Listing(batch) => {
                batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect()
            }
        }
    }

    /// The columns with their types, found out from all rows. Blocking.
    fn infer(&mut self, stop: &CancellationToken) -> Result<SchemaRef, SqlError> {
        match self {
            Source::Csv(file) => file.infer(stop),
            Source::Json(rows) => Ok(rows.schema()),
            Source::Parquet(file) => Ok(file.schema().clone()),
            Source::Listing(batch) => Ok(batch.schema()),
        }
    }

    /// Whether the columns may be appended to these of a table.
    fn check_types(
        &self,
        table: &str,
        schema: &SchemaRef,
        targets: &[usize],
    ) -> Result<(), SqlError> {
        let (given, texts) = match self {
            // Values without a type: each is looked at when it is read.
            Source::Csv(_) => return Ok(()),
            Source::Json(rows) => (rows.schema(), assign::Texts::Literals),
            Source::Parquet(file) => (file.schema().clone(), assign::Texts::Typed),
            Source::Listing(batch) => (batch.schema(), assign::Texts::Typed),
        };
        for (field, target) in given.fields().iter().zip(targets) {
            assign::check(table, schema.field(*target), field, texts)?;
        }
        Ok(())
    }

    /// Hands over all rows as values of `fields`, which are in the order of the data's columns. Blocking.
    fn read(
        self,
        table: &str,
        fields: &[Field],
        emit: &mut dyn FnMut(Chunk) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        match self {
            Source::Csv(file) => file.read(table, fields, emit),
            Source::Json(rows) => rows.read(table, fields, emit),
            Source::Parquet(file) => file.read(table, fields, emit),
            Source::Listing(batch) => {
                let places = Places::Rows { first: 1, count: batch.num_rows() };
                let columns = assign::columns(table, batch.columns(), fields, &places)?;
                emit(Chunk { columns, places })
            }
        }
    }
}

/// Finds out what a path holds. Blocking.
fn open(files: &FileAccess, path: &str, stop: &CancellationToken) -> Result<Source, SqlError> {
    if path.trim_start().starts_with('[') {
        return json::JsonRows::of_text(path, stop).map(Source::Json);
    }
    let resolved = files.resolve(path)?;
    if resolved.is_dir() {
        return listing(files, path).map(Source::Listing);
    }
    match ending(&resolved).as_deref() {
        Some("csv") => csv::CsvFile::open(resolved, stop).map(Source::Csv),
        Some("json" | "jsonl" | "ndjson") => {
            json::JsonRows::of_file(resolved, stop).map(Source::Json)
        }
        Some("parquet") => parquet::ParquetFile::open(&resolved).map(Box::new).map(Source::Parquet),
        Some(_) | None => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY cannot tell what \"{path}\" holds"),
        )
        .with_hint(HINT)),
    }
}

fn ending(path: &Path) -> Option<String> {
    path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase)
}

/// The images below a folder.
fn listing(files: &FileAccess, folder: &str) -> Result<RecordBatch, SqlError> {
    let paths = files.list_folder(folder, &[], true)?;
    let names: ArrayRef =
        Arc::new(StringArray::from_iter_values(paths.iter().map(|path| file_name(path))));
    let paths: ArrayRef = Arc::new(StringArray::from_iter_values(&paths));
    let schema = Arc::new(Schema::new(vec![
        Field::new("image_path", DataType::Utf8, true),
        Field::new("filename", DataType::Utf8, true),
    ]));
    RecordBatch::try_new(schema, vec![paths, names]).map_err(crate::error::arrow_error)
}

/// Opens a file for reading from its start.
fn open_file(path: &Path) -> Result<std::fs::File, SqlError> {
    crate::files::open_file(path, &shown_name(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_needs_a_name_of_its_own() {
        assert!(check_names(&["a", "A", "이름", "with space"]).is_ok());
        let check = |names: &[&str], code: SqlState| {
            assert_eq!(check_names(names).unwrap_err().code, code, "{names:?}");
        };
        check(&[], SqlState::BAD_COPY_FILE_FORMAT);
        check(&["a", ""], SqlState::BAD_COPY_FILE_FORMAT);
        check(&["a", "b", "a"], SqlState::DUPLICATE_COLUMN);
        check(&["x"; 2000], SqlState::TOO_MANY_COLUMNS);
    }

    #[test]
    fn the_ending_says_what_a_file_is() {
        assert_eq!(ending(Path::new("a/b.CSV")).as_deref(), Some("csv"));
        assert_eq!(ending(Path::new("a.csv/b")), None);
    }
}
