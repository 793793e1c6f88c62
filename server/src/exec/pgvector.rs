//! What users of pgvector say before they use it: CREATE EXTENSION vector, and CREATE INDEX over vectors.
//!
//! The type is here from the start, so making the extension makes nothing. An index is refused, for nobody needs one: an approximate index pays from about a million
//! vectors on; below, a scan of all of them is bound by memory and takes milliseconds. An exact search gives `k` rows whenever `k` rows match a filter,
//! which approximate ones do not, and is right by construction.

use sqlparser::ast as pg;
use thanosql_protocol::{Notice, Response, SqlError, SqlState};

use super::Control;
use crate::sql;

/// The extension's name.
const EXTENSION: &str = "vector";

/// pgvector's methods of indexes.
const METHODS: [&str; 2] = ["hnsw", "ivfflat"];

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

/// Whether a statement makes an index over vectors.
pub(crate) fn is_vector_index(index: &pg::CreateIndex) -> bool {
    let Some(pg::IndexType::Custom(method)) = &index.using else { return false };
    METHODS.iter().any(|known| method.value.eq_ignore_ascii_case(known))
}

/// 0A000.
pub(crate) fn exact_search_serves() -> SqlError {
    SqlError::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "indexes over vectors are not supported: every search is exact and needs none",
    )
    .with_hint("ORDER BY embedding <=> $1 LIMIT k and SEARCH compare all vectors that match the filter, and keep the k best.")
}
