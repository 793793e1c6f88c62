//! EXPORT MODEL and UPLOAD MODEL: a model's file on the server, inside the data roots. What the file holds is [`crate::learning::exchange`]'s.
//!
//! EXPORT writes the model as the statement's snapshot has it and takes part in no transaction: the file is there whatever becomes of it, as with
//! COPY TO. UPLOAD is part of its transaction like DROP MODEL.

use thanosql_protocol::{Response, SqlError};

use super::Control;
use super::models::{model_lock, path_argument};
use super::statement_text::quoted;
use crate::learning::{model_exists, read_file};
use crate::plan;
use crate::plan::rows::{model, options};
use crate::session::ClientSession;
use crate::sql::{
    ExportModel, ExportModelOptions, Parsed, UploadModel, UploadModelOptions, quote_ident,
};

impl ClientSession {
    /// EXPORT MODEL.
    pub(crate) fn export_model(
        &self,
        parsed: &Parsed,
        export: &ExportModel,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &export.options, ExportModelOptions::read)?;
        let (entry, _) = model(&scope, &export.name)?;
        let path = path_argument(&scope, &export.path)?;
        let (learning, files) = (&self.server.learning, &self.server.files);
        tokio::task::block_in_place(|| {
            // Before the model is read, so that a path that cannot be is told at once.
            let target = files.target(&path, given.overwrite)?;
            files.write(&path, &target, &learning.export(&entry)?, given.overwrite)
        })
        .map_err(|error| SqlError { position: Some(export.path.position), ..error })?;
        Ok(Response::Done { tag: "EXPORT MODEL".to_string() })
    }

    /// UPLOAD MODEL.
    pub(crate) async fn upload_model(
        &mut self,
        parsed: &Parsed,
        upload: &UploadModel,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let name = &upload.name.value;
        self.lock(&model_lock(name), control).await?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &upload.options, UploadModelOptions::read)?;
        if scope.snapshot.model(name).is_some() && !given.overwrite {
            return Err(model_exists(name).at(upload.name.position));
        }
        let path = path_argument(&scope, &upload.path)?;
        let overwrite = if given.overwrite { " OPTIONS (overwrite=True)" } else { "" };
        let statement =
            format!("UPLOAD MODEL {}{overwrite} FROM {}", quote_ident(name), quoted(&path));
        let limit = self.server.learning.options().max_model_file_bytes;
        tokio::task::block_in_place(|| {
            let bytes = read_file(&self.server.files.resolve(&path)?, &path, limit)?;
            self.take_in(name, &bytes, statement)
        })
        .map_err(|error| SqlError { position: Some(upload.path.position), ..error })?;
        Ok(Response::Done { tag: "UPLOAD MODEL".to_string() })
    }

    /// Makes a model of what EXPORT MODEL wrote, in the transaction. `statement` is kept with it. Blocking.
    pub(super) fn take_in(
        &mut self,
        name: &str,
        bytes: &[u8],
        statement: String,
    ) -> Result<(), SqlError> {
        let uploaded = self.server.learning.uploaded(bytes, name, &self.client.user, statement)?;
        self.transaction.change(|transaction| {
            transaction.put_model(name, &uploaded.metadata, &uploaded.parts()).map(drop)
        })
    }
}
