//! The system relations as DataFusion's schemas and tables.
//!
//! A table makes its rows when it is scanned, from the snapshot that its [`CatalogSource`] stands for. Relations whose rows
//! never change are made once and kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session};
use datafusion::common::Result;
use datafusion::datasource::{MemTable, TableProvider, TableType};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::relations::{self, Relation, SystemSchema, find};
use super::{CatalogSource, information, tables};

/// Relations that hold the same rows for everyone.
const CONSTANT: [&str; 10] = [
    "pg_am",
    "pg_cast",
    "pg_collation",
    "pg_get_keywords",
    "pg_language",
    "pg_namespace",
    "pg_operator",
    "pg_proc",
    "pg_tablespace",
    "pg_type",
];

/// One of the two schemas over one snapshot.
#[derive(Debug)]
pub(super) struct SystemSchemaProvider {
    pub(super) schema: SystemSchema,
    pub(super) source: Arc<dyn CatalogSource>,
}

#[async_trait]
impl SchemaProvider for SystemSchemaProvider {
    fn table_names(&self) -> Vec<String> {
        relations::listed()
            .filter(|relation| relation.schema == self.schema)
            .map(|relation| relation.name.to_string())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(find(self.schema, name).map(|relation| {
            Arc::new(SystemTable { relation, source: Arc::clone(&self.source) })
                as Arc<dyn TableProvider>
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        find(self.schema, name).is_some()
    }
}

/// A system relation over one snapshot.
struct SystemTable {
    relation: &'static Relation,
    source: Arc<dyn CatalogSource>,
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTable").field("name", &self.relation.name).finish()
    }
}

impl SystemTable {
    fn batch(&self) -> Result<RecordBatch> {
        let rows = match self.relation.schema {
            SystemSchema::PgCatalog => tables::rows(self.relation, self.source.as_ref()),
            SystemSchema::InformationSchema => {
                information::rows(self.relation, self.source.as_ref())
            }
        };
        Ok(self.relation.batch(&rows)?)
    }

    fn rows(&self) -> Result<RecordBatch> {
        static KEPT: LazyLock<Mutex<HashMap<&'static str, RecordBatch>>> =
            LazyLock::new(Mutex::default);
        let name = self.relation.name;
        if self.relation.schema != SystemSchema::PgCatalog || !CONSTANT.contains(&name) {
            return self.batch();
        }
        if let Some(batch) = KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(batch.clone());
        }
        let batch = self.batch()?;
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(name, batch.clone());
        Ok(batch)
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.relation.arrow_schema()
    }

    fn table_type(&self) -> TableType {
        if self.relation.kind == "r" { TableType::Base } else { TableType::View }
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        MemTable::try_new(self.schema(), vec![vec![self.rows()?]])?
            .scan(state, projection, filters, limit)
            .await
    }
}
