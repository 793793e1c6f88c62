//! What users of pgvector say before they use it: CREATE EXTENSION vector. The type is here from the start, so making the extension makes nothing.

use sqlparser::ast as pg;
use thanosql_protocol::{Notice, Response, SqlError, SqlState};

use super::Control;
use crate::sql;

/// The extension's name.
const EXTENSION: &str = "vector";

/// CREATE EXTENSION.
///
/// # Errors
/// 42710 for `vector` without IF NOT EXISTS, 0A000 for any other.
pub(crate) fn create_extension(
    create: &pg::CreateExtension,
    control: &Control,
) -> Result<Response, SqlError> {
    let name = sql::fold(&create.name);
    if name != EXTENSION {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("extension \"{name}\" is not available"),
        )
        .with_hint(
            "The type vector and its operators are built in; there are no other extensions.",
        ));
    }
    let exists = format!("extension \"{name}\" already exists");
    if !create.if_not_exists {
        return Err(SqlError::new(SqlState::DUPLICATE_OBJECT, exists));
    }
    control.notices.send(Notice::new(format!("{exists}, skipping")));
    Ok(Response::Done { tag: "CREATE EXTENSION".to_string() })
}
