//! Logs and spans: what is written to standard error, in which form, from which modules.
//!
//! A span stands for a connection, a statement or a job and is logged with its duration when it closes. The filter is
//! `tracing-subscriber`'s: `info`, `warn,thanosql_server::learning=debug`. Passwords, parameters and rows are never
//! handed to a span by anyone; there is nothing here that could take them out again.

use std::io::IsTerminal;

use thanosql_protocol::SqlState;
use tracing::Span;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("the log filter \"{filter}\" is malformed")]
    Filter {
        /// The filter as configured.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before in this process.
    #[error("logging is set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
}

/// Reads a filter: levels, for all modules or by module.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })
}

/// Sets logging up for the process: to standard error, coloured if that is a terminal. Once a process.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = parse_filter(filter)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(TelemetryError::AlreadySet)
}

/// A span for a statement: `kind` is its first words (`SELECT`, `BUILD MODEL`), never its text. Rows and SQLSTATE are filled in
/// with [`record_end`].
pub fn statement_span(connection: i32, kind: &str) -> Span {
    tracing::info_span!(
        "statement",
        connection,
        kind,
        rows = tracing::field::Empty,
        sqlstate = tracing::field::Empty
    )
}

/// How a statement ended: the rows that it sent or changed, and its SQLSTATE.
pub fn record_end(span: &Span, rows: Option<u64>, sqlstate: SqlState) {
    if let Some(rows) = rows {
        span.record("rows", rows);
    }
    span.record("sqlstate", sqlstate.0);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn filters_name_modules() {
        assert!(parse_filter("warn,thanosql_server::learning=debug").is_ok());
        assert!(matches!(parse_filter("thanosql=loud"), Err(TelemetryError::Filter { .. })));
    }

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_statement_is_logged_with_duration_rows_and_sqlstate() {
        let captured = Captured::default();
        let writer = captured.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_span_events(FmtSpan::CLOSE)
            .json()
            .flatten_event(true);
        let subscriber =
            tracing_subscriber::registry().with(parse_filter("info").unwrap()).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let span = statement_span(7, "SELECT");
            record_end(&span, Some(3), SqlState::SUCCESSFUL_COMPLETION);
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(line["span"]["rows"], 3);
        assert_eq!(line["span"]["sqlstate"], "00000");
        assert_eq!(line["span"]["connection"], 7);
        assert!(line["time.busy"].is_string());
    }
}
