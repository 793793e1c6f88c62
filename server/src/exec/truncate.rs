//! TRUNCATE, with CONTINUE or RESTART IDENTITY.

use std::sync::Arc;

use sqlparser::ast as pg;
use thanosql_protocol::{Response, SqlError};
use thanosql_storage::Table;

use super::Control;
use super::targets::existing_name;
use crate::catalog::constraints::TableDefinition;
use crate::catalog::sequences::ColumnSequence;
use crate::error::undefined_table;
use crate::session::ClientSession;

impl ClientSession {
    /// TRUNCATE.
    pub(crate) async fn truncate(
        &mut self,
        truncate: &pg::Truncate,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        for target in &truncate.table_names {
            let name = existing_name(&target.name, &self.transaction.peek())?;
            self.lock(&name, control).await?;
            let Some(table) = self.transaction.snapshot().table(&name) else {
                return Err(undefined_table(&name));
            };
            self.transaction.change(|transaction| transaction.truncate(&name))?;
            if truncate.identity == Some(pg::TruncateIdentityOption::Restart) {
                self.restart_sequences(&table)?;
            }
        }
        Ok(Response::Done { tag: "TRUNCATE TABLE".to_string() })
    }

    /// Lets the sequences of a table begin again, in this transaction: outside they go on until it is committed.
    fn restart_sequences(&self, table: &Table) -> Result<(), SqlError> {
        let mut definition = TableDefinition::of(table);
        let mut restarted = false;
        for column in &mut definition.columns {
            if let Some(mut sequence) = ColumnSequence::of(column) {
                let counter = self.transaction.change(|transaction| transaction.new_oid())?;
                sequence.restarted = Some(counter);
                *column = Arc::new(sequence.given_to(column.as_ref().clone()));
                restarted = true;
            }
        }
        if restarted { self.redefine(table, &definition) } else { Ok(()) }
    }
}
