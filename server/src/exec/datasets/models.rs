//! GET THANOSQL MODEL: a published model's file, fetched and checked, and from there on what UPLOAD MODEL does with it.

use thanosql_protocol::{Notice, NoticeSender, Response, SqlError, SqlState};
use tokio_util::sync::CancellationToken;

use super::download::{Expected, Fetcher, Patience, shown};
use super::published::{PublishedModel, file_url, index};
use super::{DOWNLOADS, Datasets, tell};
use crate::error::io_error;
use crate::exec::Control;
use crate::exec::models::model_lock;
use crate::exec::statement_text::quoted;
use crate::learning::{model_exists, read_file};
use crate::plan;
use crate::plan::rows::options;
use crate::session::ClientSession;
use crate::sql::{GetModel, GetModelOptions, Parsed, closest, quote_ident};

/// The folder, among the downloads, of models.
const MODELS: &str = "models";

impl ClientSession {
    /// GET THANOSQL MODEL. The model's name here is its published one unless `model_name` says otherwise.
    pub(crate) async fn get_model(
        &mut self,
        parsed: &Parsed,
        get: &GetModel,
        parameters: plan::Parameters,
        control: &Control,
    ) -> Result<Response, SqlError> {
        self.refuse_in_read_only()?;
        let scope = self.scope(parsed, parameters, control)?;
        let given = options(&scope.parameters, &get.options, GetModelOptions::read)?;
        let name = given.model_name.unwrap_or_else(|| get.name.value.clone());
        self.lock(&model_lock(&name), control).await?;
        if self.transaction.snapshot().model(&name).is_some() && !given.overwrite {
            return Err(model_exists(&name).at(get.name.position));
        }
        let datasets = self.server.datasets.clone();
        let turn = control.run(async { Ok(datasets.turn.clone().lock_owned().await) }).await?;
        let (stop, notices) = (control.cancel.clone(), control.notices.clone());
        let limit = self.server.learning.options().max_model_file_bytes;
        let wanted = get.name.value.clone();
        let bytes = control
            .run(async move {
                tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    datasets.fetch_model(&wanted, limit, &stop, &notices)
                })
                .await
                .map_err(crate::error::internal)?
            })
            .await
            .map_err(|error| SqlError { position: Some(get.name.position), ..error })?;
        let mut statement = format!("GET THANOSQL MODEL {}", quote_ident(&get.name.value));
        if name != get.name.value {
            statement.push_str(&format!(" OPTIONS (model_name={})", quoted(&name)));
        }
        tokio::task::block_in_place(|| self.take_in(&name, &bytes, statement))?;
        Ok(Response::Done { tag: "GET THANOSQL MODEL".to_string() })
    }
}

impl Datasets {
    /// Fetches a published model's file and hands it over; it is kept no longer. Blocking.
    fn fetch_model(
        &self,
        name: &str,
        max_bytes: u64,
        stop: &CancellationToken,
        notices: &NoticeSender,
    ) -> Result<Vec<u8>, SqlError> {
        let url = self.model_url.as_deref().ok_or_else(|| {
            SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "no address of published models is configured",
            )
            .with_hint("The setting model_url names their index.")
        })?;
        let models = index(url)?;
        let model = find(&models, name)?;
        let folder = self.folder.join(DOWNLOADS).join(MODELS);
        std::fs::create_dir_all(&folder).map_err(|error| io_error(&error))?;
        let place = folder.join(model.sha256.to_ascii_lowercase());
        let address = file_url(url, &model.file);
        notices.send(Notice::new(format!("fetching model \"{name}\" from {}", shown(&address))));
        let expected = Expected {
            sha256: model.sha256.clone(),
            max_bytes: model.bytes.map_or(max_bytes, |bytes| bytes.min(max_bytes)),
            unpacked_bytes: None,
        };
        let fetcher = Fetcher::new(Patience::default());
        fetcher.fetch(&address, &place, &expected, stop, &mut tell(name, notices))?;
        let bytes = read_file(&place, &model.file, max_bytes)?;
        std::fs::remove_file(&place).map_err(|error| io_error(&error))?;
        Ok(bytes)
    }
}

fn find<'a>(models: &'a [PublishedModel], name: &str) -> Result<&'a PublishedModel, SqlError> {
    models.iter().find(|model| model.name == name).ok_or_else(|| {
        let error =
            SqlError::new(SqlState::UNDEFINED_OBJECT, format!("no model \"{name}\" is published"));
        match closest(name, models.iter().map(|model| model.name.as_str())) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None => error.with_hint("LIST THANOSQL MODEL shows the models that are."),
        }
    })
}
