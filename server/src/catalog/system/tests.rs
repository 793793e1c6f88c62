//! Queries that clients really send, run over a small catalog: a table `mnist_dataset` (OID 16400) and a view `v` (16401).
//!
//! `testdata/*.sql` are what the clients sent to a real server, as its log showed them, a comment line before each with what
//! was typed or called.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider,
};
use datafusion::datasource::MemTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as PlannedStatement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::*;

#[derive(Debug)]
struct Fake;

fn mnist() -> SchemaRef {
    let default = HashMap::from([("default".to_string(), "0".to_string())]);
    Arc::new(Schema::new(vec![
        Field::new("img_path", DataType::Utf8, true),
        Field::new("filename", DataType::Utf8, false),
        Field::new("label", DataType::Int64, true).with_metadata(default),
        Field::new(
            "embedding",
            DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), 128),
            true,
        ),
    ]))
}

impl CatalogSource for Fake {
    fn objects(&self) -> Vec<ObjectDescription> {
        let view = Schema::new(vec![Field::new("img_path", DataType::Utf8, true)]);
        vec![
            ObjectDescription {
                oid: 16_400,
                name: "mnist_dataset".into(),
                schema: "public".into(),
                kind: ObjectKind::Table,
                columns: mnist(),
                row_count: 2000,
                definition: None,
                keys: Vec::new(),
                checks: Vec::new(),
                vector_indexes: Vec::new(),
            },
            ObjectDescription {
                oid: 16_401,
                name: "v".into(),
                schema: "public".into(),
                kind: ObjectKind::View,
                columns: Arc::new(view),
                row_count: 0,
                definition: Some("SELECT img_path FROM mnist_dataset".into()),
                keys: Vec::new(),
                checks: Vec::new(),
                vector_indexes: Vec::new(),
            },
        ]
    }

    fn user(&self) -> String {
        "ann".into()
    }

    fn database(&self) -> String {
        "thanosql".into()
    }

    fn settings(&self) -> Vec<Setting> {
        vec![Setting {
            name: "TimeZone".into(),
            value: "Asia/Seoul".into(),
            unit: String::new(),
            category: "Client Connection Defaults / Locale and Formatting".into(),
            description: "Sets the time zone for displaying and interpreting time stamps.".into(),
            default: "UTC".into(),
        }]
    }

    fn connection_id(&self) -> i32 {
        42
    }

    fn set(&self, _: &str, value: &str, _: bool) -> Result<String, SqlError> {
        Ok(value.to_string())
    }
}

fn context() -> SessionContext {
    let source: Arc<dyn CatalogSource> = Arc::new(Fake);
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("thanosql", "public")
        .with_information_schema(false);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_analyzer_rule(Arc::new(CorrelatedSubqueries))
        .build();
    let context = SessionContext::new_with_state(state);
    let catalog = MemoryCatalogProvider::new();
    let public = MemorySchemaProvider::new();
    let empty = MemTable::try_new(mnist(), vec![vec![]]).unwrap();
    public.register_table("mnist_dataset".into(), Arc::new(empty)).unwrap();
    catalog.register_schema("public", Arc::new(public)).unwrap();
    catalog.register_schema("pg_catalog", pg_catalog(Arc::clone(&source))).unwrap();
    catalog.register_schema("information_schema", information_schema(Arc::clone(&source))).unwrap();
    context.register_catalog("thanosql", Arc::new(catalog));
    for function in functions(source) {
        context.register_udf(function);
    }
    context
}

async fn run(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let mut statements =
        Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| format!("parse: {error}"))?;
    let mut statement = statements.remove(0);
    crate::plan::names::name_items(&mut statement);
    adapt(&mut statement);
    let plan = context
        .state()
        .statement_to_plan(PlannedStatement::Statement(Box::new(statement)))
        .await
        .map_err(|error| format!("plan: {error}"))?;
    SQLOptions::new().verify_plan(&plan).map_err(|error| error.to_string())?;
    let frame =
        context.execute_logical_plan(plan).await.map_err(|error| format!("execute: {error}"))?;
    frame.collect().await.map_err(|error| format!("run: {error}"))
}

/// The rows as psql would show them without alignment: `|` between columns, nothing for NULL.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(
                columns
                    .iter()
                    .map(|column| column.value(row).to_string())
                    .collect::<Vec<_>>()
                    .join("|"),
            );
        }
    }
    rows
}

async fn rows(sql: &str) -> Vec<String> {
    let context = context();
    match run(&context, sql).await {
        Ok(batches) => shown(&batches),
        Err(error) => panic!("{error}\n{sql}"),
    }
}

/// The queries of a file: the comment line before each, and its text.
fn queries(file: &str) -> Vec<(&str, String)> {
    let mut queries: Vec<(&str, String)> = Vec::new();
    for line in file.lines() {
        if let Some(label) = line.strip_prefix("-- ") {
            queries.push((label, String::new()));
        } else if let Some((_, text)) = queries.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    queries
}

async fn all_run(file: &str) {
    let context = context();
    let mut failures = Vec::new();
    let queries = queries(file);
    assert!(!queries.is_empty());
    for (label, sql) in &queries {
        if let Err(error) = run(&context, sql).await {
            failures.push(format!("-- {label}: {error}\n{sql}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} fail:\n{}",
        failures.len(),
        queries.len(),
        failures.join("\n")
    );
}

#[tokio::test]
async fn every_query_of_psql_runs() {
    all_run(include_str!("testdata/psql.sql")).await;
}

#[tokio::test]
async fn every_query_of_sqlalchemy_runs() {
    all_run(include_str!("testdata/sqlalchemy.sql")).await;
}

#[tokio::test]
async fn every_query_of_pgjdbc_runs() {
    all_run(include_str!("testdata/pgjdbc.sql")).await;
}

#[tokio::test]
async fn every_query_of_psycopg_and_asyncpg_runs() {
    all_run(include_str!("testdata/python_drivers.sql")).await;
}

/// The rows of the `number`th query that psql sends for a command.
async fn psql(command: &str, number: usize) -> Vec<String> {
    let queries = queries(include_str!("testdata/psql.sql"));
    let (_, sql) = queries.iter().filter(|(label, _)| *label == command).nth(number).unwrap();
    rows(sql).await
}

#[tokio::test]
async fn tables_are_listed() {
    assert_eq!(psql("\\dt", 0).await, ["public|mnist_dataset|table|ann"]);
    assert_eq!(psql("\\d", 0).await, ["public|mnist_dataset|table|ann", "public|v|view|ann"]);
    assert_eq!(psql("\\dv", 0).await, ["public|v|view|ann"]);
    assert_eq!(psql("\\dt mn*", 0).await, ["public|mnist_dataset|table|ann"]);
}

#[tokio::test]
async fn a_table_is_described() {
    assert_eq!(psql("\\d mnist_dataset", 0).await, ["16400|public|mnist_dataset"]);
    assert_eq!(
        psql("\\d mnist_dataset", 1).await,
        ["0|r|false|false|false|false|false|false|false||0||p|d|heap"]
    );
    assert_eq!(
        psql("\\d mnist_dataset", 2).await,
        [
            "img_path|text||false|||",
            "filename|text||true|||",
            "label|bigint|0|false|||",
            "embedding|vector(128)||false|||"
        ]
    );
    for further in 3..8 {
        assert_eq!(psql("\\d mnist_dataset", further).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_view_is_described() {
    assert_eq!(psql("\\d v", 0).await, ["16401|public|v"]);
    assert_eq!(psql("\\d+ v", 2).await, [" SELECT img_path FROM mnist_dataset;"]);
}

#[tokio::test]
async fn roles_schemas_and_databases_are_listed() {
    assert_eq!(psql("\\du", 0).await, ["ann|true|true|true|true|true|-1||[]|false|true"]);
    assert_eq!(psql("\\dn", 0).await, ["public|ann", "thanosql|ann"]);
    assert_eq!(psql("\\l", 0).await.len(), 1);
    assert_eq!(psql("\\dconfig", 0).await, ["TimeZone|Asia/Seoul"]);
    assert_eq!(
        psql("\\dT", 0).await,
        ["public|vector|a vector of float4: the embedding of an image"]
    );
}
