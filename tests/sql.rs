//! The golden files in `tests/sql`: one feature a file, in sqllogictest's format, over a real connection. Errors are matched by
//! SQLSTATE. `$DATA` in a file is the data root, with 60 drawn digits in `$DATA/digits`, and in `$DATA/copy` and `$DATA/bad`
//! the files of `files.rs`. With THANOSQL_GOLDEN only the files whose path contains its value are run.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thanosql_tests::sqllogictest::{self, AsyncDB, DBOutput, DefaultColumnType};
use thanosql_tests::{TestServer, describe, state_of};
use tokio_postgres::{Client, SimpleQueryMessage};

/// A connection, with the folder that `$DATA` stands for.
struct Connection {
    client: Client,
    data: String,
}

/// An error as the golden files match it.
#[derive(Debug)]
struct Failure {
    state: String,
    text: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.state, self.text)
    }
}

impl std::error::Error for Failure {}

#[async_trait::async_trait]
impl AsyncDB for Connection {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let sql = sql.replace("$DATA", &self.data);
        let messages = self
            .client
            .simple_query(&sql)
            .await
            .map_err(|error| Failure { state: state_of(&error), text: describe(&error) })?;
        let mut rows = Vec::new();
        let mut columns = None;
        let mut count = 0;
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(description) => {
                    columns = Some(description.len())
                }
                SimpleQueryMessage::Row(row) => rows.push(
                    (0..row.len())
                        .map(|column| match row.get(column) {
                            None => "NULL".to_owned(),
                            Some("") => "(empty)".to_owned(),
                            Some(text) => text.replace(&self.data, "$DATA"),
                        })
                        .collect(),
                ),
                SimpleQueryMessage::CommandComplete(rows) => count = rows,
                _ => {}
            }
        }
        Ok(match columns {
            Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "thanosql"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        Some(error.state.clone())
    }
}

fn golden_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            golden_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            files.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn golden_files_hold() {
    let mut files = Vec::new();
    golden_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/sql")), &mut files);
    files.sort();
    assert!(files.len() >= 8, "only {} golden files were found", files.len());
    if let Ok(part) = std::env::var("THANOSQL_GOLDEN") {
        files.retain(|file| file.display().to_string().contains(&part));
        assert!(!files.is_empty(), "no golden file is called {part}");
    }
    let mut failures = Vec::new();
    for file in &files {
        // A server a file, so that no file sees another's tables.
        let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
        thanosql_ml::digits::write_dataset(&server.data.join("digits"), 60, 4, 7).unwrap();
        files::prepare(&server.data);
        let mut runner = sqllogictest::Runner::new(|| async {
            let client = server.connect().await;
            Ok(Connection { client, data: server.data.display().to_string() })
        });
        if let Err(error) = runner.run_file_async(file).await {
            failures.push(format!("{}: {error}", file.display()));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} files fail:\n{}",
        failures.len(),
        files.len(),
        failures.join("\n\n")
    );
}
