//! Errors of every layer become what a client sees: one SQLSTATE, a message in lower case, and where it helps a
//! hint and a position.
//!
//! Here are decided the codes of errors that are not born as [`SqlError`] and come from more than one place. An internal error's text
//! stays in the log under an id that the client is told.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::StorageError;
use tokio_util::sync::CancellationToken;

use crate::sql::{ErrorKind, ParseError};

/// A fault of ours: the text goes to the log, the client gets an id to quote.
pub fn internal(text: impl std::fmt::Display) -> SqlError {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let id = &id[..12];
    tracing::error!(error_id = id, "internal error: {text}");
    SqlError::new(SqlState::INTERNAL_ERROR, format!("internal error {id}"))
        .with_hint("The server's log has the details under this id.")
}

/// A statement was stopped, by CancelRequest or because its client has gone.
pub fn cancelled() -> SqlError {
    SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

/// # Errors
/// 57014 when the statement was stopped.
pub fn check_stop(stop: &CancellationToken) -> Result<(), SqlError> {
    if stop.is_cancelled() { Err(cancelled()) } else { Ok(()) }
}

/// What this server does not do.
pub fn unsupported(what: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
}

/// What this server does not do so far.
pub fn not_yet(what: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported yet"))
}

/// The named relation is missing.
pub fn undefined_table(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
}

/// A grammar error, positioned in the script.
pub fn parse_error(error: ParseError) -> SqlError {
    let code = match error.kind {
        ErrorKind::Syntax => SqlState::SYNTAX_ERROR,
        ErrorKind::Unsupported => SqlState::FEATURE_NOT_SUPPORTED,
        ErrorKind::InvalidOption => SqlState::INVALID_PARAMETER_VALUE,
        ErrorKind::UndefinedObject => SqlState::UNDEFINED_OBJECT,
        ErrorKind::UndefinedFunction => SqlState::UNDEFINED_FUNCTION,
        ErrorKind::UndefinedParameter => SqlState::UNDEFINED_PARAMETER,
        ErrorKind::TooComplex => SqlState::STATEMENT_TOO_COMPLEX,
    };
    SqlError { hint: error.hint, position: error.position, ..SqlError::new(code, error.message) }
}

/// An error of the store.
pub fn storage_error(error: StorageError) -> SqlError {
    crate::storage_errors::to_sql(error)
}

/// An error of planning or running a query. `text` is the statement's script, to turn DataFusion's spans into positions.
pub fn datafusion_error(error: DataFusionError, text: Option<&str>) -> SqlError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<SqlError>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(error) => datafusion_error(*error, text),
                Err(inner) => match inner.downcast::<ArrowError>() {
                    Ok(error) => arrow_error(*error),
                    Err(inner) => internal(inner),
                },
            },
        },
        DataFusionError::Context(_, inner) => datafusion_error(*inner, text),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let mut error = datafusion_error(*inner, text);
            if error.position.is_none()
                && let (Some(span), Some(text)) = (diagnostic.span, text)
            {
                error.position = position(text, span.start.line, span.start.column);
            }
            error
        }
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => datafusion_error(first, text),
            None => internal("an empty collection of errors"),
        },
        DataFusionError::Shared(shared) => shared_error(&shared, text),
        DataFusionError::ArrowError(error, _) => arrow_error(*error),
        DataFusionError::SchemaError(error, _) => schema_error(*error),
        DataFusionError::SQL(error, _) => {
            SqlError::new(SqlState::SYNTAX_ERROR, lower_first(&error.to_string()))
        }
        DataFusionError::NotImplemented(message) => {
            SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, tidy(&message))
        }
        DataFusionError::Plan(message) => plan_error(&message),
        DataFusionError::Configuration(message) => {
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, tidy(&message))
        }
        DataFusionError::Execution(message) => execution_error(&message),
        DataFusionError::ResourcesExhausted(message) => {
            SqlError::new(SqlState::OUT_OF_MEMORY, "the query needs more memory than it may use")
                .with_detail(tidy(&message))
                .with_hint("Raise the setting query_memory_bytes, or make the query smaller.")
        }
        DataFusionError::IoError(error) => io_error(&error),
        DataFusionError::ExecutionJoin(error) => {
            if error.is_cancelled() {
                cancelled()
            } else {
                internal(error)
            }
        }
        DataFusionError::Internal(message)
        | DataFusionError::Substrait(message)
        | DataFusionError::Ffi(message) => internal(message),
        #[allow(unreachable_patterns)] // variants that depend on DataFusion's features
        other => internal(other),
    }
}

/// Errors that several operators share cannot be taken apart, only looked at.
fn shared_error(error: &DataFusionError, text: Option<&str>) -> SqlError {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
            Some(error) => error.clone(),
            None => internal(inner),
        },
        DataFusionError::Context(_, inner) => shared_error(inner, text),
        DataFusionError::Shared(inner) => shared_error(inner, text),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(inner) => match inner.downcast_ref::<SqlError>() {
                Some(error) => error.clone(),
                None => internal(inner),
            },
            ArrowError::DivideByZero => division_by_zero(),
            inner => execution_error(&inner.to_string()),
        },
        DataFusionError::ResourcesExhausted(message) => {
            datafusion_error(DataFusionError::ResourcesExhausted(message.clone()), text)
        }
        DataFusionError::Execution(message) => execution_error(message),
        DataFusionError::Plan(message) => plan_error(message),
        DataFusionError::NotImplemented(message) => {
            SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, tidy(message))
        }
        other => internal(other),
    }
}

/// An error of a compute kernel: overflow, division, a text that is no number.
pub fn arrow_error(error: ArrowError) -> SqlError {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast::<SqlError>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(error) => datafusion_error(*error, None),
                Err(inner) => internal(inner),
            },
        },
        ArrowError::DivideByZero => division_by_zero(),
        ArrowError::ArithmeticOverflow(_) => {
            SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range")
        }
        ArrowError::CastError(message) | ArrowError::ParseError(message) => cast_error(&message),
        ArrowError::NotYetImplemented(message) => {
            SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, tidy(&message))
        }
        ArrowError::InvalidArgumentError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::SchemaError(message) => execution_error(&message),
        ArrowError::CsvError(message) | ArrowError::JsonError(message) => {
            SqlError::new(SqlState::BAD_COPY_FILE_FORMAT, tidy(&message))
        }
        ArrowError::IoError(_, error) => io_error(&error),
        ArrowError::MemoryError(message) => SqlError::new(SqlState::OUT_OF_MEMORY, tidy(&message)),
        ArrowError::IpcError(message)
        | ArrowError::ParquetError(message)
        | ArrowError::CDataInterface(message) => internal(message),
        ArrowError::AvroError(message) => internal(message),
        ArrowError::DictionaryKeyOverflowError
        | ArrowError::RunEndIndexOverflowError
        | ArrowError::OffsetOverflowError(_) => SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "a column's values are too large for one batch",
        ),
    }
}

/// An error of the operating system.
pub fn io_error(error: &std::io::Error) -> SqlError {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => SqlState::UNDEFINED_FILE,
        std::io::ErrorKind::PermissionDenied => SqlState::INSUFFICIENT_PRIVILEGE,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => SqlState::DISK_FULL,
        std::io::ErrorKind::OutOfMemory => SqlState::OUT_OF_MEMORY,
        _ => SqlState::IO_ERROR,
    };
    SqlError::new(code, lower_first(&error.to_string()))
}

fn schema_error(error: SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = SqlError::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{}\" does not exist", field.flat_name()),
            );
            let candidates = valid_fields.iter().map(|column| column.name.as_str());
            match crate::sql::closest(&field.name, candidates) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => SqlError::new(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        ),
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => SqlError::new(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{name}\" specified more than once"),
        ),
    }
}

/// DataFusion tells causes of planning errors in words only; these are the ones that clients act on.
fn plan_error(message: &str) -> SqlError {
    // A function of ours refused its arguments; DataFusion keeps the words of an error only.
    if let Some(start) = message.find("vectors of different lengths") {
        let text = message[start..].split(" (").next().unwrap_or_default();
        return SqlError::new(SqlState::DATA_EXCEPTION, text);
    }
    let code = if message.starts_with("Invalid function") {
        let name = message.split('\'').nth(1).unwrap_or_default();
        return SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        );
    } else if message.contains("No function matches")
        || message.contains("Failed to coerce arguments")
    {
        SqlState::UNDEFINED_FUNCTION
    } else if message.contains("Aggregate functions are not allowed")
        || message.contains("must appear in the GROUP BY")
        || message.contains("must be in the GROUP BY")
    {
        SqlState::GROUPING_ERROR
    } else if message.contains("Cannot infer common argument type")
        || message.contains("cannot be coerced")
        || message.contains("must be a boolean")
        || message.contains("Can not coerce")
    {
        SqlState::DATATYPE_MISMATCH
    } else if message.contains("Table Functions are not supported")
        || message.starts_with("table function")
    {
        SqlState::UNDEFINED_FUNCTION
    } else if message.contains("No value found for placeholder") {
        SqlState::UNDEFINED_PARAMETER
    } else if message.contains("Unsupported") || message.contains("not supported") {
        SqlState::FEATURE_NOT_SUPPORTED
    } else {
        SqlState::SYNTAX_ERROR
    };
    SqlError::new(code, tidy(message))
}

fn execution_error(message: &str) -> SqlError {
    let lower = message.to_lowercase();
    if lower.contains("divide by zero") || lower.contains("division by zero") {
        division_by_zero()
    } else if lower.contains("overflow") || lower.contains("out of range") {
        SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, tidy(message))
    } else if lower.contains("scalar subquery") || lower.contains("more than one row") {
        SqlError::new(
            SqlState::CARDINALITY_VIOLATION,
            "more than one row returned by a subquery used as an expression",
        )
    } else if lower.contains("cannot cast")
        || lower.contains("error parsing")
        || lower.contains("parser error")
    {
        cast_error(message)
    } else {
        SqlError::new(SqlState::DATA_EXCEPTION, tidy(message))
    }
}

fn cast_error(message: &str) -> SqlError {
    let lower = message.to_lowercase();
    if lower.contains("overflow")
        || lower.contains("out of range")
        || lower.contains("can't cast value")
    {
        SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, tidy(message))
    } else {
        SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, tidy(message))
    }
}

/// Nothing can be divided by zero.
pub fn division_by_zero() -> SqlError {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

/// The first line of a library's message in our form: lower case, no full stop.
fn tidy(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default().trim().trim_end_matches('.');
    lower_first(line)
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.clone().next()) {
        // Words in capitals are names (SQL keywords, types) and stay.
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text.to_string(),
    }
}

/// Line and column (both from 1) as PostgreSQL's position: characters from 1.
pub fn position(text: &str, line: u64, column: u64) -> Option<usize> {
    if line == 0 || column == 0 {
        return None;
    }
    let before: usize = text
        .lines()
        .take(usize::try_from(line - 1).ok()?)
        .map(|line| line.chars().count() + 1)
        .sum();
    Some(before + usize::try_from(column).ok()?)
}

/// The deepest cause of an error, for logs.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Wraps an error of ours for the way through DataFusion.
pub fn through_datafusion(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_over_lines() {
        assert_eq!(position("select 1", 1, 8), Some(8));
        assert_eq!(position("가나\nselect x", 2, 8), Some(11));
        assert_eq!(position("select 1", 0, 0), None);
    }

    #[test]
    fn an_error_of_ours_survives_datafusion() {
        let ours = SqlError::new(SqlState::UNDEFINED_OBJECT, "model \"m\" does not exist").at(3);
        let wrapped = through_datafusion(ours.clone()).context("while planning");
        assert_eq!(datafusion_error(wrapped, None), ours);
        let arrow = ArrowError::ExternalError(Box::new(through_datafusion(ours.clone())));
        assert_eq!(arrow_error(arrow), ours);
    }

    #[test]
    fn internal_errors_keep_their_text_to_themselves() {
        let error = internal("the secret of row 7");
        assert_eq!(error.code, SqlState::INTERNAL_ERROR);
        assert!(!error.message.contains("secret"));
    }

    #[test]
    fn messages_start_in_lower_case_unless_a_name_stands_there() {
        assert_eq!(tidy("Something went wrong."), "something went wrong");
        assert_eq!(tidy("NUMERIC overflow"), "NUMERIC overflow");
    }
}
