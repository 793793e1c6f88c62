//! What an index over a table's rows keeps besides them: bytes that can be made anew from the rows, of an index that the store
//! knows nothing else about.
//!
//! They are written outside transactions, because they change nothing of what a query answers. A table names the indexes whose data are
//! kept ([`INDEX_DATA_KEY`]); when it names one no longer, the data go, after the commit or when the store is next opened.

use std::collections::HashSet;

use arrow::datatypes::Schema;

use crate::error::Result;
use crate::keys::{Family, Key};
use crate::snapshot::CatalogState;
use crate::{Store, StoreInner};

/// A schema's metadata under this key names the OIDs of indexes, with spaces between, whose data are kept as long as the table is there.
pub const INDEX_DATA_KEY: &str = "thanosql.index_oids";

impl Store {
    /// Sets an index's data in place of the earlier ones; durable on return.
    pub fn put_index_data(&self, oid: u32, bytes: &[u8]) -> Result<()> {
        self.inner.put_kept(&Key::IndexData(oid), bytes)
    }

    /// An index's data.
    pub fn index_data(&self, oid: u32) -> Result<Option<Vec<u8>>> {
        self.inner.kept(&Key::IndexData(oid))
    }
}

impl StoreInner {
    /// Removes indexes' data.
    pub(crate) fn forget_indexes(&self, oids: &[u32]) -> Result<()> {
        oids.iter().try_for_each(|oid| self.swap_kept(&Key::IndexData(*oid), None))
    }

    /// Removes the data of indexes that no table names.
    pub(crate) fn forget_unnamed_indexes(&self, state: &CatalogState) -> Result<()> {
        let named: HashSet<u32> =
            state.tables.values().flat_map(|table| indexes_of(&table.schema)).collect();
        for (key, _) in self.core.kv.scan(Family::IndexData)? {
            if let Key::IndexData(oid) = key
                && !named.contains(&oid)
            {
                self.swap_kept(&key, None)?;
            }
        }
        Ok(())
    }
}

/// The indexes that a schema names.
pub(crate) fn indexes_of(schema: &Schema) -> Vec<u32> {
    let text = schema.metadata().get(INDEX_DATA_KEY);
    text.into_iter().flat_map(|text| text.split(' ')).filter_map(|oid| oid.parse().ok()).collect()
}
