//! The schema `thanosql`: what the server knows of its models, jobs, trainings and datasets, as relations.
//!
//! They are computed when a query names them, from the statement's snapshot and the jobs as they stand. LIST and SHOW JOBS read
//! the same relations.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use thanosql_storage::{ModelEntry, Snapshot};

use super::system::{ObjectDescription, ObjectKind};
use crate::error::through_datafusion;
use crate::exec::datasets::{Dataset, Datasets, published};
use crate::learning::{EpochRecord, Learning, ModelMetadata};

/// Object ids of the schema's relations: below those of users' objects, above PostgreSQL's.
const FIRST_OID: u32 = 16_300;

/// What LIST THANOSQL MODEL reads. It stands in no catalog: to read it is to ask another server.
pub const PUBLISHED_MODELS: &str = "published_models";

/// The relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Models,
    Tables,
    Jobs,
    TrainingMetrics,
    Datasets,
}

const RELATIONS: [Relation; 5] = [
    Relation::Models,
    Relation::Tables,
    Relation::Jobs,
    Relation::TrainingMetrics,
    Relation::Datasets,
];

impl Relation {
    fn name(self) -> &'static str {
        match self {
            Relation::Models => "models",
            Relation::Tables => "tables",
            Relation::Jobs => "jobs",
            Relation::TrainingMetrics => "training_metrics",
            Relation::Datasets => "datasets",
        }
    }

    fn columns(self) -> &'static [(&'static str, Kind)] {
        use Kind::{Boolean, Float, Int, Long, Text, Time};
        match self {
            Relation::Models => &[
                ("name", Text),
                ("class_name", Text),
                ("last_updated_utc", Time),
                ("version", Long),
                ("encoder", Text),
                ("embedding_dim", Int),
                ("image_size", Int),
                ("color", Text),
                ("images", Long),
                ("epochs", Int),
                ("loss", Float),
                ("knn_accuracy", Float),
                ("device", Text),
                ("queued_seconds", Float),
                ("loading_seconds", Float),
                ("training_seconds", Float),
                ("vector_column", Text),
                ("image_col", Text),
                ("fname", Text),
                ("target", Text),
                ("fingerprint", Text),
                ("created_by", Text),
                ("job_id", Long),
                ("skipped", Long),
                ("started_from", Text),
                ("started_from_version", Long),
                ("pretrained", Text),
                ("uploaded_from", Text),
                ("options_given", Text),
                ("options", Text),
                ("statement", Text),
            ],
            Relation::Tables => &[("name", Text), ("type", Text), ("rows", Long), ("columns", Int)],
            Relation::Jobs => &[
                ("id", Long),
                ("kind", Text),
                ("state", Text),
                ("model", Text),
                ("device", Text),
                ("progress", Float),
                ("epoch", Int),
                ("epochs", Int),
                ("step", Long),
                ("steps", Long),
                ("loss", Float),
                ("images_per_second", Float),
                ("remaining_seconds", Float),
                ("images", Long),
                ("submitted_at", Time),
                ("started_at", Time),
                ("finished_at", Time),
                ("sqlstate", Text),
                ("error", Text),
                ("interruptions", Int),
                ("note", Text),
                ("created_by", Text),
                ("statement", Text),
            ],
            Relation::TrainingMetrics => &[
                ("job_id", Long),
                ("model", Text),
                ("epoch", Int),
                ("loss", Float),
                ("chance_loss", Float),
                ("alignment", Float),
                ("uniformity", Float),
                ("effective_rank", Float),
                ("dead_dimensions", Float),
                ("knn_accuracy", Float),
                ("seconds", Float),
            ],
            Relation::Datasets => &[
                ("name", Text),
                ("description", Text),
                ("source", Text),
                ("fetched", Boolean),
                ("rows", Long),
            ],
        }
    }

    fn schema(self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns()
            .iter()
            .map(|(name, kind)| Field::new(*name, kind.data_type(), true))
            .collect();
        Arc::new(Schema::new(fields))
    }
}

/// The types of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Boolean,
    Text,
    Int,
    Long,
    Float,
    Time,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Text => DataType::Utf8,
            Kind::Int => DataType::Int32,
            Kind::Long => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// One value of a row; its kind must be the column's.
#[derive(Debug)]
enum Value {
    Boolean(bool),
    Null,
    Text(Option<String>),
    Int(i64),
    Float(Option<f64>),
    /// Microseconds since 1970, UTC.
    Time(Option<i64>),
}

/// The relations as the system catalog lists them.
pub fn descriptions() -> Vec<ObjectDescription> {
    RELATIONS
        .iter()
        .zip(FIRST_OID..)
        .map(|(relation, oid)| ObjectDescription {
            oid,
            name: relation.name().to_string(),
            schema: "thanosql".to_string(),
            kind: ObjectKind::View,
            columns: relation.schema(),
            row_count: 0,
            definition: None,
            keys: Vec::new(),
            checks: Vec::new(),
            vector_indexes: Vec::new(),
        })
        .collect()
}

/// The schema for one statement.
#[derive(Debug)]
pub struct ThanosqlSchema {
    snapshot: Snapshot,
    learning: Arc<Learning>,
    datasets: Arc<Datasets>,
}

impl ThanosqlSchema {
    /// What a statement with this snapshot sees.
    pub fn new(
        snapshot: Snapshot,
        learning: Arc<Learning>,
        datasets: Arc<Datasets>,
    ) -> ThanosqlSchema {
        ThanosqlSchema { snapshot, learning, datasets }
    }

    fn rows(&self, relation: Relation) -> Result<Vec<Vec<Value>>> {
        match relation {
            Relation::Models => self.snapshot.models().iter().map(model_row).collect(),
            Relation::Tables => Ok(self.table_rows()),
            Relation::Jobs => Ok(self.learning.jobs().into_iter().map(job_row).collect()),
            Relation::TrainingMetrics => Ok(self.metric_rows()),
            Relation::Datasets => Ok(self.dataset_rows()),
        }
    }

    fn table_rows(&self) -> Vec<Vec<Value>> {
        let tables = self.snapshot.tables().into_iter().map(|table| {
            let columns = table.schema().fields().len();
            vec![
                text(table.name()),
                text("table"),
                Value::Int(table.row_count() as i64),
                Value::Int(columns as i64),
            ]
        });
        let views = self.snapshot.views().into_iter().map(|view| {
            let columns = view.schema().fields().len();
            vec![text(view.name()), text("view"), Value::Int(0), Value::Int(columns as i64)]
        });
        tables.chain(views).collect()
    }

    fn dataset_rows(&self) -> Vec<Vec<Value>> {
        let row = |dataset: Dataset| {
            vec![
                text(dataset.name()),
                text(dataset.description()),
                Value::Text(self.datasets.source(dataset)),
                Value::Boolean(self.datasets.is_fetched(dataset)),
                Value::Int(dataset.rows() as i64),
            ]
        };
        Dataset::ALL.into_iter().map(row).collect()
    }

    /// A row an epoch: of all jobs, and of the models whose job is another server's or forgotten.
    fn metric_rows(&self) -> Vec<Vec<Value>> {
        let row = |job: Option<u64>, model: &str, epoch: &EpochRecord| {
            vec![
                job.map_or(Value::Null, |job| Value::Int(job as i64)),
                text(model),
                Value::Int(i64::from(epoch.epoch)),
                Value::Float(epoch.loss),
                Value::Float(epoch.chance_loss),
                Value::Float(epoch.alignment),
                Value::Float(epoch.uniformity),
                Value::Float(epoch.effective_rank),
                Value::Float(epoch.dead_dimensions),
                Value::Float(epoch.knn_accuracy),
                Value::Float(Some(epoch.seconds)),
            ]
        };
        let jobs = self.learning.jobs();
        let known: std::collections::HashSet<u64> = jobs.iter().map(|job| job.id).collect();
        let mut rows = Vec::new();
        for entry in self.snapshot.models() {
            let Ok(metadata) = ModelMetadata::read(&entry) else { continue };
            if !metadata.job.is_some_and(|job| known.contains(&job)) {
                rows.extend(
                    metadata.curve.iter().map(|epoch| row(metadata.job, entry.name(), epoch)),
                );
            }
        }
        for job in &jobs {
            rows.extend(job.curve.iter().map(|epoch| row(Some(job.id), &job.model, epoch)));
        }
        rows
    }
}

fn text(value: &str) -> Value {
    Value::Text(Some(value.to_string()))
}

fn model_row(entry: &ModelEntry) -> Result<Vec<Value>> {
    let metadata = ModelMetadata::read(entry).map_err(through_datafusion)?;
    let last = metadata.curve.last();
    Ok(vec![
        text(entry.name()),
        text(&metadata.algorithm),
        Value::Time(Some(metadata.created_at)),
        Value::Int(entry.version() as i64),
        text(&metadata.encoder),
        Value::Int(metadata.embedding_dim as i64),
        Value::Int(i64::from(metadata.input.size)),
        text(&metadata.input.color),
        Value::Int(metadata.images as i64),
        Value::Int(metadata.curve.len() as i64),
        Value::Float(last.and_then(|epoch| epoch.loss)),
        Value::Float(last.and_then(|epoch| epoch.knn_accuracy)),
        text(&metadata.device),
        Value::Float(Some(metadata.timings.queued)),
        Value::Float(Some(metadata.timings.loading)),
        Value::Float(Some(metadata.timings.training)),
        text(&metadata.vector_column()),
        text(&metadata.image_col),
        Value::Text(metadata.fname_col.clone()),
        Value::Text(metadata.target.as_ref().map(|target| target.name.clone())),
        text(&metadata.fingerprint),
        text(&metadata.user),
        metadata.job.map_or(Value::Null, |job| Value::Int(job as i64)),
        Value::Int(metadata.skipped as i64),
        Value::Text(metadata.started_from.as_ref().map(|(name, _)| name.clone())),
        metadata
            .started_from
            .as_ref()
            .map_or(Value::Null, |(_, version)| Value::Int(*version as i64)),
        Value::Text(metadata.pretrained.clone()),
        Value::Text(metadata.uploaded_from.as_ref().map(|origin| {
            format!("{} version {} of {}", origin.name, origin.version, origin.user)
        })),
        text(&metadata.options_given.to_string()),
        text(&metadata.options_used.to_string()),
        text(&metadata.statement),
    ])
}

fn job_row(job: crate::learning::JobRecord) -> Vec<Value> {
    let progress = job.progress();
    vec![
        Value::Int(job.id as i64),
        text(job.kind.statement()),
        text(job.state.as_str()),
        text(&job.model),
        text(&job.device),
        Value::Float(Some(progress)),
        Value::Int(i64::from(job.epoch)),
        Value::Int(i64::from(job.epochs)),
        Value::Int(job.step as i64),
        Value::Int(job.steps as i64),
        Value::Float(job.loss),
        Value::Float(job.images_per_second),
        Value::Float(job.remaining_seconds),
        Value::Int(job.images as i64),
        Value::Time(Some(job.submitted_at)),
        Value::Time(job.started_at),
        Value::Time(job.finished_at),
        Value::Text(job.error.as_ref().map(|error| error.sqlstate.clone())),
        Value::Text(job.error.as_ref().map(|error| error.message.clone())),
        Value::Int(i64::from(job.interruptions)),
        Value::Text(job.note.clone()),
        text(&job.user),
        text(&job.statement),
    ]
}

/// Rows as a batch. A value whose kind is not its column's becomes NULL; the tests see that there is none.
fn batch(relation: Relation, rows: &[Vec<Value>]) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (index, (_, kind)) in relation.columns().iter().enumerate() {
        let values = rows.iter().map(|row| row.get(index));
        columns.push(match kind {
            Kind::Boolean => {
                let mut builder = BooleanBuilder::new();
                values.for_each(|value| match value {
                    Some(Value::Boolean(value)) => builder.append_value(*value),
                    _ => builder.append_null(),
                });
                Arc::new(builder.finish())
            }
            Kind::Text => {
                let mut builder = StringBuilder::new();
                values.for_each(|value| match value {
                    Some(Value::Text(text)) => builder.append_option(text.as_ref()),
                    _ => builder.append_null(),
                });
                Arc::new(builder.finish())
            }
            Kind::Int => {
                let mut builder = Int32Builder::new();
                values.for_each(|value| match value {
                    Some(Value::Int(number)) => builder.append_option(i32::try_from(*number).ok()),
                    _ => builder.append_null(),
                });
                Arc::new(builder.finish())
            }
            Kind::Long => {
                let mut builder = Int64Builder::new();
                values.for_each(|value| match value {
                    Some(Value::Int(number)) => builder.append_value(*number),
                    _ => builder.append_null(),
                });
                Arc::new(builder.finish())
            }
            Kind::Float => {
                let mut builder = Float64Builder::new();
                values.for_each(|value| match value {
                    Some(Value::Float(number)) => builder.append_option(*number),
                    _ => builder.append_null(),
                });
                Arc::new(builder.finish())
            }
            Kind::Time => {
                let mut builder = TimestampMicrosecondBuilder::new().with_timezone("UTC");
                values.for_each(|value| match value {
                    Some(Value::Time(time)) => builder.append_option(*time),
                    _ => builder.append_null(),
                });
                Arc::new(builder.finish())
            }
        });
    }
    Ok(RecordBatch::try_new(relation.schema(), columns)?)
}

#[async_trait]
impl SchemaProvider for ThanosqlSchema {
    fn table_names(&self) -> Vec<String> {
        RELATIONS.iter().map(|relation| relation.name().to_string()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == PUBLISHED_MODELS {
            return Ok(Some(Arc::new(published::list(self.datasets.model_url.clone())?)));
        }
        let Some(relation) = RELATIONS.into_iter().find(|relation| relation.name() == name) else {
            return Ok(None);
        };
        let batch = batch(relation, &self.rows(relation)?)?;
        Ok(Some(Arc::new(MemTable::try_new(relation.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        name == PUBLISHED_MODELS || RELATIONS.iter().any(|relation| relation.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_relation_takes_its_own_rows() {
        for relation in RELATIONS {
            let row: Vec<Value> = relation
                .columns()
                .iter()
                .map(|(_, kind)| match kind {
                    Kind::Boolean => Value::Boolean(true),
                    Kind::Text => text("x"),
                    Kind::Int | Kind::Long => Value::Int(1),
                    Kind::Float => Value::Float(Some(1.0)),
                    Kind::Time => Value::Time(Some(1)),
                })
                .collect();
            let batch = batch(relation, &[row]).unwrap();
            assert!(
                batch.columns().iter().all(|column| column.null_count() == 0),
                "{}",
                relation.name()
            );
        }
    }
}
