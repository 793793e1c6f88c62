//! What a statement can name: stored tables, the system's own relations, and ThanoSQL's views.

pub mod system;
pub mod table;
pub mod thanosql;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use thanosql_protocol::ClientIdentity;
use thanosql_storage::Store;

use crate::session::settings::Settings;
use crate::session::transaction::SessionTransaction;
use system::{CatalogSource, ObjectDescription, ObjectKind, Setting};

/// What the system relations are computed from in one session: its snapshot and its settings, as they are when asked.
pub struct SessionCatalog {
    transaction: SessionTransaction,
    store: Store,
    settings: Arc<Mutex<Settings>>,
    client: ClientIdentity,
}

impl SessionCatalog {
    /// The catalog of a session.
    pub fn new(
        transaction: SessionTransaction,
        store: Store,
        settings: Arc<Mutex<Settings>>,
        client: ClientIdentity,
    ) -> SessionCatalog {
        SessionCatalog { transaction, store, settings, client }
    }
}

impl fmt::Debug for SessionCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCatalog")
            .field("connection", &self.client.connection_id)
            .finish_non_exhaustive()
    }
}

impl CatalogSource for SessionCatalog {
    fn objects(&self) -> Vec<ObjectDescription> {
        let snapshot = self.transaction.snapshot();
        let mut objects: Vec<ObjectDescription> = snapshot
            .tables()
            .into_iter()
            .map(|table| ObjectDescription {
                oid: table.oid(),
                name: table.name().to_string(),
                schema: "public".to_string(),
                kind: ObjectKind::Table,
                columns: table.schema(),
                row_count: table.row_count(),
                definition: None,
            })
            .collect();
        objects.extend(snapshot.views().into_iter().map(|view| ObjectDescription {
            oid: view.oid(),
            name: view.name().to_string(),
            schema: "public".to_string(),
            kind: ObjectKind::View,
            columns: view.schema(),
            row_count: 0,
            definition: Some(view.definition().to_string()),
        }));
        objects.extend(thanosql::descriptions());
        objects
    }

    fn user(&self) -> String {
        self.client.user.clone()
    }

    fn database(&self) -> String {
        self.client.database.clone()
    }

    fn settings(&self) -> Vec<Setting> {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings
            .list()
            .into_iter()
            .map(|listed| Setting {
                name: listed.name,
                value: listed.value,
                unit: String::new(),
                category: "Client Connection Defaults".to_string(),
                description: listed.description,
                default: listed.default,
            })
            .collect()
    }

    fn connection_id(&self) -> i32 {
        self.client.connection_id
    }

    fn database_bytes(&self) -> Option<u64> {
        self.store.size_on_disk().ok()
    }
}
