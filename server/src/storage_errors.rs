//! What the store's errors are to a client. Exhaustive, so that a new cause must be given a code.

use thanosql_protocol::{ErrorSubject, SqlError, SqlState};
use thanosql_storage::{ObjectKind, StorageError};

use crate::error::{arrow_error, internal, io_error, root_cause};
use crate::exec::checks::row_text;

/// The SQLSTATE and message of a storage error.
pub(crate) fn to_sql(error: StorageError) -> SqlError {
    match error {
        StorageError::Io { source, .. } => io_error(&source),
        StorageError::Locked { .. } | StorageError::UnknownFormat { .. } => {
            SqlError::new(SqlState::CANNOT_CONNECT_NOW, error.to_string())
        }
        StorageError::Corrupt { what } => {
            tracing::error!("damaged data: {what}");
            SqlError::new(SqlState::DATA_CORRUPTED, "stored data fails its checksum")
                .with_hint("Restore the store from a backup; the server's log names the record.")
        }
        StorageError::Engine { ref source, .. } => {
            let cause = root_cause(source.as_ref());
            tracing::error!("the store's engine failed: {cause}");
            if cause.contains("No space left") {
                SqlError::new(SqlState::DISK_FULL, "no space left on the store's disk")
            } else {
                SqlError::new(SqlState::IO_ERROR, error.to_string())
            }
        }
        StorageError::Stopped => SqlError::new(SqlState::IO_ERROR, error.to_string())
            .with_hint("Restart the server; what was committed is safe."),
        StorageError::Exists { kind, ref name } => match kind {
            ObjectKind::Table | ObjectKind::View => SqlError::new(
                SqlState::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists"),
            ),
            ObjectKind::Model => SqlError::new(
                SqlState::DUPLICATE_OBJECT,
                format!("model \"{name}\" already exists"),
            )
            .with_hint("OPTIONS (overwrite=True) replaces it."),
        },
        StorageError::NotFound { kind, ref name } => match kind {
            ObjectKind::Table => {
                SqlError::new(SqlState::UNDEFINED_TABLE, format!("table \"{name}\" does not exist"))
            }
            ObjectKind::View => {
                SqlError::new(SqlState::UNDEFINED_TABLE, format!("view \"{name}\" does not exist"))
            }
            ObjectKind::Model => SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("model \"{name}\" does not exist"),
            ),
        },
        StorageError::Conflict { ref name } => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            format!("could not serialize access to \"{name}\" due to concurrent update"),
        )
        .with_hint("Run the transaction again."),
        StorageError::NotNull { ref table, ref column } => SqlError::new(
            SqlState::NOT_NULL_VIOLATION,
            format!(
                "null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"
            ),
        )
        .about(ErrorSubject {
            schema: Some("public".to_string()),
            table: Some(table.clone()),
            column: Some(column.clone()),
            constraint: None,
        }),
        StorageError::NotUnique { ref table, ref key, ref values, existing } => {
            let message = if existing {
                format!("could not create unique index \"{key}\"")
            } else {
                format!("duplicate key value violates unique constraint \"{key}\"")
            };
            let schema = values.schema();
            let columns: Vec<&str> =
                schema.fields().iter().map(|field| field.name().as_str()).collect();
            let state = if existing { "is duplicated" } else { "already exists" };
            SqlError::new(SqlState::UNIQUE_VIOLATION, message)
                .with_detail(format!(
                    "Key ({})=({}) {state}.",
                    columns.join(", "),
                    row_text(values, 0)
                ))
                .about(ErrorSubject {
                    schema: Some("public".to_string()),
                    table: Some(table.clone()),
                    column: None,
                    constraint: Some(key.clone()),
                })
        }
        StorageError::Refused { source, .. } => match source.downcast::<SqlError>() {
            Ok(error) => *error,
            Err(source) => internal(source),
        },
        StorageError::SchemaMismatch { ref detail, .. } => {
            SqlError::new(SqlState::DATATYPE_MISMATCH, error.to_string())
                .with_detail(detail.clone())
        }
        StorageError::Exhausted { .. } => {
            SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, error.to_string())
        }
        StorageError::Arrow { source, .. } => arrow_error(source),
        StorageError::NoSuchRow { .. } | StorageError::NoSuchPart { .. } => internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_race_and_damage_have_their_codes() {
        let conflict = to_sql(StorageError::Conflict { name: "t".to_string() });
        assert_eq!(conflict.code, SqlState::SERIALIZATION_FAILURE);
        let damage = to_sql(StorageError::Corrupt { what: "piece 7".to_string() });
        assert_eq!(damage.code, SqlState::DATA_CORRUPTED);
        assert!(!damage.message.contains("piece 7"));
    }

    #[test]
    fn a_full_disk_has_its_code_wherever_it_is_met() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = std::path::PathBuf::from("store");
        let met = StorageError::Io { action: "write", path, source: full() };
        assert_eq!(to_sql(met).code, SqlState::DISK_FULL);
        let source = "IO error: No space left on device (os error 28)".into();
        let met = StorageError::Engine { action: "write to", source };
        assert_eq!(to_sql(met).code, SqlState::DISK_FULL);
        let source = "IO error: Input/output error (os error 5)".into();
        let met = StorageError::Engine { action: "write to", source };
        assert_eq!(to_sql(met).code, SqlState::IO_ERROR);
    }
}
