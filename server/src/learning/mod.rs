//! Learning: jobs, devices, models and embedding, as statements use them.
//!
//! - [`Learning::submit`] files a training; [`job`] is what is known of it, [`training`] how it runs;
//! - [`Learning::embed`] turns images into vectors: decoding on blocking threads, the encoder on its device's [`worker`],
//!   between the steps of a training;
//! - [`model`] is what a stored model is, [`reference`](mod@reference) the labelled vectors in it, [`cache`] the loaded ones.
//!
//! - [`resume`] lets the trainings of the last server go on, [`request`] is what is kept of them; [`exchange`] is a model as a file.
//!
//! A device is opened when it is first needed, so that a server which never learns anything stays small and starts at
//! once.

mod cache;
pub mod exchange;
mod failure;
pub mod job;
pub mod model;
mod pretrained;
pub mod reference;
mod request;
mod resume;
mod training;
mod worker;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use futures::{StreamExt, TryStreamExt};
use thanosql_ml::images::{ImageFailure, ImageLimits, ImageSource, load_images};
use thanosql_ml::{
    Color, ComputeDevice, DeviceChoice, Model, PrecisionChoice, TrainOptions, ViewRecipe,
};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{ModelEntry, Store};
use tokio_util::sync::CancellationToken;

use crate::files::FileAccess;
use cache::{CacheKey, CachePart, Cached, ModelCache};
pub use failure::{image_error, ml_error};
use job::LiveJob;
pub use job::{EpochRecord, JobError, JobHandle, JobKind, JobRecord, JobState};
pub use model::{
    Mark, ModelMetadata, Origin, TargetColumn, TrainingRows, other_vectors, vector_column_name,
    vector_field, vector_type,
};
pub(crate) use pretrained::read_file;
use reference::Reference;
pub(crate) use request::color_name;
use training::{Shared, TrainingTask};
pub(crate) use training::{model_exists, values_within_limit};
use worker::{EmbedTask, PIECE_PERMITS, Purpose, Worker};

/// Most decoded bytes of one piece of embedding work, whatever the batch size asks for.
const MAX_PIECE_BYTES: usize = 32 * 1024 * 1024;

/// Pieces of one call that are under way at once: one on the device, one being decoded.
const PIECES_AHEAD: usize = 2;

/// What the learning side is configured with.
#[derive(Clone, Debug)]
pub struct LearningOptions {
    /// The device of jobs that name none, and of embedding.
    pub device: DeviceChoice,
    /// The precision of trainings.
    pub precision: PrecisionChoice,
    /// What an image may cost.
    pub limits: ImageLimits,
    /// Loaded models and training rows in memory, in bytes.
    pub model_cache_bytes: u64,
    /// Images that go through the encoder at once.
    pub embed_batch: usize,
    /// Jobs that may be queued or running at once.
    pub max_jobs: usize,
    /// Jobs that have ended and are still listed.
    pub finished_jobs: usize,
    /// Memory for a training's images: those that came as values, and decoded ones, which beyond it lie in a file.
    pub training_memory_bytes: u64,
    /// Largest training set: its images decoded, in memory or in a file, and those that came as values.
    pub max_training_bytes: u64,
    /// The folder of that file.
    pub scratch: PathBuf,
    /// Largest model's file that is read.
    pub max_model_file_bytes: u64,
    /// ResNet-18's weights from elsewhere.
    pub pretrained_resnet18: Option<PathBuf>,
    /// The files that trainings which go on may read.
    pub files: FileAccess,
}

impl Default for LearningOptions {
    fn default() -> Self {
        LearningOptions {
            device: DeviceChoice::Auto,
            precision: PrecisionChoice::Auto,
            limits: ImageLimits::default(),
            model_cache_bytes: 512 * 1024 * 1024,
            embed_batch: 256,
            max_jobs: 100,
            finished_jobs: 1000,
            training_memory_bytes: 2 << 30,
            max_training_bytes: 256 << 30,
            scratch: std::env::temp_dir(),
            max_model_file_bytes: 512 << 20,
            pretrained_resnet18: None,
            files: FileAccess::default(),
        }
    }
}

/// What keeps the learning side from starting.
#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    /// The stored jobs cannot be read or corrected.
    #[error("cannot read the stored jobs")]
    Jobs(#[source] thanosql_storage::StorageError),
    /// No thread can be started.
    #[error("cannot start a thread for interrupted jobs")]
    Thread(#[source] std::io::Error),
    /// A job cannot be written down.
    #[error("cannot write down job {id}")]
    Record {
        /// The job.
        id: u64,
        /// Why.
        #[source]
        source: Box<SqlError>,
    },
}

/// What happens to rows whose images cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnError {
    /// The statement fails with the first of them.
    #[default]
    Fail,
    /// They are left out (training) or get no vector (embedding).
    Skip,
}

/// One row of a training query.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingRow {
    /// The image; a path that [`crate::files::FileAccess`] has allowed.
    pub image: ImageSource,
    /// The path as the query spelled it.
    pub path: Option<String>,
    /// The file's name.
    pub filename: Option<String>,
    /// The target in text form.
    pub target: Option<String>,
}

/// BUILD MODEL or FIT MODEL with its query's rows.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The model's name.
    pub name: String,
    /// The statement's text.
    pub statement: String,
    /// Who asks.
    pub user: String,
    /// Whether a model of that name may be replaced.
    pub overwrite: bool,
    /// How to train.
    pub options: TrainOptions,
    /// The options as the statement gave them, to be kept.
    pub options_given: serde_json::Value,
    /// Input side in pixels; chosen from the images if none.
    pub image_size: Option<u32>,
    /// Input channels; chosen from the images if none.
    pub color: Option<Color>,
    /// Unreadable images.
    pub on_error: OnError,
    /// The rows.
    pub rows: Vec<TrainingRow>,
    /// The query's column with the images.
    pub image_col: String,
    /// The query's column with the files' names.
    pub fname_col: Option<String>,
    /// The query's column with the targets.
    pub target: Option<TargetColumn>,
    /// The device, if the statement names one.
    pub device: Option<DeviceChoice>,
    /// Whether it starts from the weights that are configured.
    pub pretrained: bool,
    /// FIT MODEL: the model whose weights it starts from.
    pub start: Option<ModelEntry>,
}

/// Vectors of images, in the images' order.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// `[count, dim]`, row-major; zeros where there is no vector.
    pub vectors: Vec<f32>,
    /// Length of a vector.
    pub dim: usize,
    /// Whether an image has a vector: false where it could not be read and that was allowed.
    pub ok: Vec<bool>,
}

/// What the images of one statement go through.
struct Pass {
    worker: Arc<Worker>,
    model: Arc<Model>,
    purpose: Purpose,
}

/// The learning side of the server. One in a process, shared by all sessions.
pub struct Learning {
    shared: Arc<Shared>,
    cache: ModelCache,
    /// Opened devices by what they were asked for as; one worker may stand here under two names.
    workers: Mutex<Vec<(DeviceChoice, Arc<Worker>)>>,
    closing: AtomicBool,
    /// The thread that queues interrupted trainings again.
    resuming: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Learning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Learning")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Learning {
    /// Takes over the store's jobs: what was queued or running when the last server ended goes on. Opens no device itself. Blocking.
    ///
    /// # Errors
    /// If the stored jobs cannot be read or corrected.
    pub fn start(store: Store, options: LearningOptions) -> Result<Arc<Learning>, LearningError> {
        let cache = ModelCache::new(options.model_cache_bytes);
        let shared = Shared { store, options, live: Mutex::default() };
        let going_on = resume::take_over(&shared)?;
        let learning = Arc::new(Learning {
            shared: Arc::new(shared),
            cache,
            workers: Mutex::default(),
            closing: AtomicBool::new(false),
            resuming: Mutex::default(),
        });
        if !going_on.is_empty() {
            let own = Arc::clone(&learning);
            let thread = std::thread::Builder::new()
                .name("resume".to_owned())
                .spawn(move || own.queue_again(&going_on))
                .map_err(LearningError::Thread)?;
            *learning.resuming.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        Ok(learning)
    }

    /// What it is configured with.
    pub fn options(&self) -> &LearningOptions {
        &self.shared.options
    }

    /// What an image may cost.
    pub fn limits(&self) -> &ImageLimits {
        &self.shared.options.limits
    }

    /// Files a training: its record and all that it needs are durable when this returns. Blocking (flushes of the store, and the opening of
    /// the device at its first use).
    ///
    /// # Errors
    /// 42710 if the name is taken, 22023 for an option, 53400 if too many jobs wait, 58000 without the device, what the pretrained
    /// weights give if they are asked for.
    pub fn submit(&self, request: BuildRequest) -> Result<JobHandle, SqlError> {
        if !request.overwrite && self.shared.store.snapshot().model(&request.name).is_some() {
            return Err(model_exists(&request.name));
        }
        let worker = self.worker(request.device.unwrap_or(self.shared.options.device))?;
        let start = match &request.start {
            Some(entry) => Some((entry.clone(), self.load_encoder(entry, &worker)?)),
            None => None,
        };
        let pretrained = match request.pretrained {
            true => Some(self.shared.pretrained(None)?.1),
            false => None,
        };
        let kept = request::encode(&request, pretrained)?;
        let id = self.shared.store.next_job_id().map_err(crate::error::storage_error)?;
        let record = JobRecord {
            id,
            kind: if start.is_some() { JobKind::Fit } else { JobKind::Build },
            state: JobState::Queued,
            model: request.name,
            statement: request.statement,
            user: request.user,
            device: worker.device().name().to_owned(),
            images: request.rows.len() as u64,
            epoch: 0,
            epochs: request.options.max_epochs,
            step: 0,
            steps: 0,
            loss: None,
            images_per_second: None,
            remaining_seconds: None,
            submitted_at: job::now_us(),
            started_at: None,
            finished_at: None,
            error: None,
            curve: Vec::new(),
            resumable: true,
            interruptions: 0,
            fruitless: 0,
            note: None,
            fingerprint: None,
            decoding: 0,
            interrupted: false,
        };
        // From here on the rows are in the store.
        drop(request.rows);
        let job = LiveJob::new(record.clone());
        {
            let mut live = self.shared.live();
            if self.closing.load(Ordering::SeqCst) {
                return Err(worker::shutting_down());
            }
            let unfinished = live.values().filter(|job| !job.record().is_over()).count();
            if unfinished >= self.shared.options.max_jobs {
                return Err(SqlError::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    format!("{unfinished} jobs are queued or running already"),
                )
                .with_hint("CANCEL JOB makes room; SHOW JOBS lists them."));
            }
            live.insert(id, Arc::clone(&job));
        }
        // The request before the record: a record without a request is that of a cancelled job.
        let filed = self
            .shared
            .store
            .put_request(id, &kept)
            .map_err(crate::error::storage_error)
            .and_then(|()| self.shared.store_job(&record));
        if let Err(error) = filed {
            self.shared.live().remove(&id);
            return Err(error);
        }
        let task = TrainingTask { job: Arc::clone(&job), start, again: false };
        if let Err(task) = worker.train(task) {
            job.interrupt();
            training::finish_unstarted(&task, &self.shared);
        }
        Ok(JobHandle { job })
    }

    /// Asks a job to stop; it does so within a step. The record is the one at the moment: wait for the end with
    /// [`Learning::handle`]. Blocking.
    ///
    /// Errors: 42704 for an unknown job, 55000 for one that has ended.
    pub fn cancel(&self, job: u64) -> Result<JobRecord, SqlError> {
        let live = self.shared.live().get(&job).cloned();
        if let Some(live) = &live
            && !live.record().is_over()
            && live.stop(job::job_cancelled())
        {
            // So that a crash before the job has noticed does not bring it back.
            self.shared.store.remove_kept(job).map_err(crate::error::storage_error)?;
            return Ok(live.record());
        }
        let record = match live {
            Some(live) => live.record(),
            None => self.stored_job(job)?,
        };
        Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "job {job} has ended already: it {}",
                match record.state {
                    JobState::Succeeded => "succeeded",
                    JobState::Failed => "failed",
                    JobState::Cancelled => "was cancelled",
                    // Its model is being stored, or it ended between the two looks.
                    JobState::Queued | JobState::Running => "was about to end",
                }
            ),
        ))
    }

    /// A handle to any job, to wait for it. Blocking. Errors: 42704 for an unknown job.
    pub fn handle(&self, job: u64) -> Result<JobHandle, SqlError> {
        let live = self.shared.live().get(&job).cloned();
        let live = match live {
            Some(live) => live,
            None => LiveJob::new(self.stored_job(job)?),
        };
        Ok(JobHandle { job: live })
    }

    /// All jobs by their number: the stored ones, and live ones as far as they have come. Blocking.
    pub fn jobs(&self) -> Vec<JobRecord> {
        let mut records = BTreeMap::new();
        match self.shared.store.jobs() {
            Ok(stored) => {
                for (id, bytes) in stored {
                    match serde_json::from_slice::<JobRecord>(&bytes) {
                        Ok(record) => {
                            records.insert(id, record);
                        }
                        Err(error) => {
                            tracing::error!(job = id, %error, "a stored job cannot be read")
                        }
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the stored jobs cannot be read"),
        }
        for (id, job) in self.shared.live().iter() {
            let record = job.record();
            // A job that ended between the two looks is stored with its last state already.
            if records.get(id).is_none_or(|stored| !stored.state.is_finished()) {
                records.insert(*id, record);
            }
        }
        records.into_values().collect()
    }

    fn stored_job(&self, job: u64) -> Result<JobRecord, SqlError> {
        let bytes =
            self.shared.store.job(job).map_err(crate::error::storage_error)?.ok_or_else(|| {
                SqlError::new(SqlState::UNDEFINED_OBJECT, format!("job {job} does not exist"))
            })?;
        serde_json::from_slice(&bytes).map_err(|error| {
            SqlError::new(SqlState::DATA_CORRUPTED, format!("job {job} cannot be read: {error}"))
        })
    }

    /// The vectors of images. Decodes in parallel on blocking threads while earlier images are on the device; stops soon after
    /// `cancel` fires or this future is dropped.
    ///
    /// Errors: the first unreadable image's (58P01, 22P03, 54000) unless they may be skipped; 57014; 58000 without a device.
    pub async fn embed(
        self: &Arc<Self>,
        entry: &ModelEntry,
        images: Vec<ImageSource>,
        on_error: OnError,
        batch_size: Option<usize>,
        cancel: &CancellationToken,
    ) -> Result<Embedded, SqlError> {
        self.through_encoder(entry, Purpose::Vectors, images, on_error, batch_size, cancel).await
    }

    /// How far apart two views of each image lie, as the model's recipe draws them: one number an image, from 0 to 4
    /// ([`thanosql_ml::quality::squared_distance`]). Otherwise as [`Learning::embed`].
    pub async fn view_distances(
        self: &Arc<Self>,
        entry: &ModelEntry,
        images: Vec<ImageSource>,
        cancel: &CancellationToken,
    ) -> Result<Embedded, SqlError> {
        let recipe = ViewRecipe::of(&ModelMetadata::read(entry)?.options_used);
        let purpose = Purpose::ViewDistances(recipe);
        self.through_encoder(entry, purpose, images, OnError::Fail, None, cancel).await
    }

    async fn through_encoder(
        self: &Arc<Self>,
        entry: &ModelEntry,
        purpose: Purpose,
        images: Vec<ImageSource>,
        on_error: OnError,
        batch_size: Option<usize>,
        cancel: &CancellationToken,
    ) -> Result<Embedded, SqlError> {
        let cancel = cancel.child_token();
        // Work that was handed to other threads ends when this future is dropped.
        let _stop_when_dropped = cancel.clone().drop_guard();
        let work = self.embed_all(entry, purpose, images, on_error, batch_size, &cancel);
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(crate::error::cancelled()),
            outcome = work => outcome,
        }
    }

    async fn embed_all(
        self: &Arc<Self>,
        entry: &ModelEntry,
        purpose: Purpose,
        images: Vec<ImageSource>,
        on_error: OnError,
        batch_size: Option<usize>,
        cancel: &CancellationToken,
    ) -> Result<Embedded, SqlError> {
        let (worker, model) = {
            let learning = Arc::clone(self);
            let entry = entry.clone();
            blocking(move || {
                let worker = learning.worker(learning.shared.options.device)?;
                let model = learning.load_encoder(&entry, &worker)?;
                Ok((worker, model))
            })
            .await?
        };
        let dim = purpose.width(&model);
        let pass = Pass { worker, model, purpose };
        let model = &pass.model;
        let count = images.len();
        let images: Arc<[ImageSource]> = images.into();
        let piece = (MAX_PIECE_BYTES / model.input().image_len().max(1))
            .clamp(1, batch_size.unwrap_or(self.shared.options.embed_batch).max(1));
        let pieces = (0..count).step_by(piece).map(|start| start..(start + piece).min(count));
        let mut results = futures::stream::iter(pieces.map(|range| {
            let permits = (range.len() * PIECE_PERMITS).div_ceil(piece);
            self.embed_piece(&pass, Arc::clone(&images), range, permits, on_error, cancel)
        }))
        .buffered(PIECES_AHEAD);
        let mut embedded = Embedded {
            vectors: Vec::with_capacity(count * dim),
            dim,
            ok: Vec::with_capacity(count),
        };
        while let Some(piece) = results.try_next().await? {
            embedded.vectors.extend_from_slice(&piece.vectors);
            embedded.ok.extend_from_slice(&piece.ok);
        }
        Ok(embedded)
    }

    async fn embed_piece(
        self: &Arc<Self>,
        pass: &Pass,
        images: Arc<[ImageSource]>,
        range: Range<usize>,
        permits: usize,
        on_error: OnError,
        cancel: &CancellationToken,
    ) -> Result<Embedded, SqlError> {
        let Pass { worker, model, purpose } = pass;
        let permits = u32::try_from(permits).map_err(crate::error::internal)?;
        let permit =
            worker.permits().acquire_many_owned(permits).await.map_err(crate::error::internal)?;
        let count = range.len();
        let (set, failures) = {
            let spec = model.input();
            let limits = self.shared.options.limits;
            let cancel = cancel.clone();
            blocking(move || {
                Ok(load_images(&images[range], spec, &limits, &|| cancel.is_cancelled()))
            })
            .await?
        };
        if cancel.is_cancelled() {
            return Err(crate::error::cancelled());
        }
        if let (OnError::Fail, Some(failure)) = (on_error, failures.first()) {
            return Err(image_error(&failure.error, None));
        }
        let dim = purpose.width(model);
        let vectors = if set.is_empty() {
            Vec::new()
        } else {
            let (reply, answer) = tokio::sync::oneshot::channel();
            let task = EmbedTask {
                purpose: purpose.clone(),
                model: Arc::clone(model),
                images: set,
                cancel: cancel.clone(),
                reply,
                permit,
            };
            if !worker.embed(task) {
                return Err(worker::shutting_down());
            }
            // The worker drops a task unanswered only when it is cancelled.
            answer.await.map_err(|_| crate::error::cancelled())??
        };
        Ok(spread(&vectors, dim, count, &failures))
    }

    /// The training rows of a model, from the cache if they are there. Blocking.
    pub fn training_rows(&self, entry: &ModelEntry) -> Result<Arc<TrainingRows>, SqlError> {
        let key = CacheKey { oid: entry.oid(), version: entry.version(), part: CachePart::Rows };
        let cached = self.cache.get_or_load(&key, || {
            let metadata = ModelMetadata::read(entry)?;
            let rows = TrainingRows::read(entry, &metadata)?;
            let bytes = rows.memory_bytes();
            Ok((Cached::Rows(Arc::new(rows)), bytes))
        })?;
        match cached {
            Cached::Rows(rows) => Ok(rows),
            Cached::Encoder(_) | Cached::Reference(_) => {
                Err(crate::error::internal("the model cache holds something else as rows"))
            }
        }
    }

    /// The labelled vectors of a model, from the cache if they are there. Blocking.
    ///
    /// Errors: 55000 if it has none.
    pub fn reference(&self, entry: &ModelEntry) -> Result<Arc<Reference>, SqlError> {
        let rows = self.training_rows(entry)?;
        let key =
            CacheKey { oid: entry.oid(), version: entry.version(), part: CachePart::Reference };
        let cached = self.cache.get_or_load(&key, || {
            let metadata = ModelMetadata::read(entry)?;
            let reference = Reference::read(entry, &metadata, rows)?;
            let bytes = reference.memory_bytes();
            Ok((Cached::Reference(Arc::new(reference)), bytes))
        })?;
        match cached {
            Cached::Reference(reference) => Ok(reference),
            Cached::Encoder(_) | Cached::Rows(_) => {
                Err(crate::error::internal("the model cache holds something else as vectors"))
            }
        }
    }

    fn load_encoder(&self, entry: &ModelEntry, worker: &Worker) -> Result<Arc<Model>, SqlError> {
        let key = CacheKey {
            oid: entry.oid(),
            version: entry.version(),
            part: CachePart::Encoder { device: worker.device().name().to_owned() },
        };
        let cached = self.cache.get_or_load(&key, || {
            let bytes = entry.part(model::WEIGHTS_PART).map_err(crate::error::storage_error)?;
            let encoder = Model::from_safetensors(&bytes, worker.device()).map_err(ml_error)?;
            // Its arrays as they were stored, and as inference takes them: on the CPU up to 16 numbers for 9.
            Ok((Cached::Encoder(Arc::new(encoder)), 3 * bytes.len() as u64))
        })?;
        match cached {
            Cached::Encoder(encoder) => Ok(encoder),
            Cached::Rows(_) | Cached::Reference(_) => {
                Err(crate::error::internal("the model cache holds something else as an encoder"))
            }
        }
    }

    /// The worker of a device, which is opened if it is not yet. Blocking.
    fn worker(&self, choice: DeviceChoice) -> Result<Arc<Worker>, SqlError> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.load(Ordering::SeqCst) {
            return Err(worker::shutting_down());
        }
        if let Some((_, worker)) = workers.iter().find(|(known, _)| *known == choice) {
            return Ok(Arc::clone(worker));
        }
        let device = ComputeDevice::open(choice).map_err(ml_error)?;
        let device = device.with_precision(self.shared.options.precision);
        let same = workers
            .iter()
            .find(|(_, worker)| worker.device().name() == device.name())
            .map(|(_, worker)| Arc::clone(worker));
        let worker = match same {
            Some(worker) => worker,
            None => {
                let precision = device.precision();
                tracing::info!(device = device.name(), ?precision, "device opened");
                Worker::start(device, Arc::clone(&self.shared))
                    .map_err(|error| crate::error::io_error(&error))?
            }
        };
        workers.push((choice, Arc::clone(&worker)));
        Ok(worker)
    }

    /// Interrupts all jobs: whoever waits for one is answered 57P01, and it goes on when the server starts again. Nothing is taken on
    /// afterwards. Does not wait; to be called before statements are cancelled, because a cancelled statement cancels its job.
    pub fn interrupt(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.shared.live().values().for_each(|job| job.interrupt());
    }

    /// Interrupts all jobs and waits until the devices' threads have ended.
    pub async fn shutdown(self: &Arc<Self>) {
        self.interrupt();
        let learning = Arc::clone(self);
        let stopped = blocking(move || {
            let resuming = learning.resuming.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = resuming
                && thread.join().is_err()
            {
                tracing::error!("the thread that queues interrupted jobs panicked");
            }
            let workers = std::mem::take(
                &mut *learning.workers.lock().unwrap_or_else(PoisonError::into_inner),
            );
            for (_, worker) in workers {
                worker.stop();
            }
            Ok(())
        })
        .await;
        if let Err(error) = stopped {
            tracing::error!(%error, "the devices did not stop in order");
        }
    }
}

/// Spreads the readable images' vectors over all rows.
fn spread(vectors: &[f32], dim: usize, count: usize, failures: &[ImageFailure]) -> Embedded {
    let mut ok = vec![true; count];
    for failure in failures {
        if let Some(place) = ok.get_mut(failure.index) {
            *place = false;
        }
    }
    let mut all = vec![0.0; count * dim];
    let mut readable = vectors.chunks_exact(dim.max(1));
    for (row, _) in ok.iter().enumerate().filter(|(_, ok)| **ok) {
        if let Some(vector) = readable.next() {
            all[row * dim..(row + 1) * dim].copy_from_slice(vector);
        }
    }
    Embedded { vectors: all, dim, ok }
}

/// Runs blocking work off the async threads; a panic in it is an internal error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SqlError> + Send + 'static,
) -> Result<T, SqlError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => {
            Err(worker::panicked("blocking work", &*error.into_panic()))
        }
        Err(_) => Err(crate::error::cancelled()),
    }
}

#[cfg(test)]
mod tests;
