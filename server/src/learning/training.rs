//! One training from its queue entry to the stored model: decode, train, commit.
//!
//! The model is stored in one transaction at the very end, so nothing of a failed or cancelled job remains. A job's last
//! state is stored after its model: a crash between the two is recognised at the next start by the job number that the
//! model carries.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use sha2::{Digest, Sha256};
use thanosql_ml::images::{ImageFailure, ImageLimits, ImageSource, choose_input_spec, load_images};
use thanosql_ml::{
    Color, EpochReport, Flow, ImageSet, InputSpec, MlError, Model, StepProgress, TrainOptions,
    Trained, TrainingObserver,
};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{ModelEntry, StorageError, Store};

use super::failure::{image_error, ml_error};
use super::job::{EpochRecord, JobError, JobRecord, JobState, LiveJob, now_us};
use super::model::{
    ALGORITHM, InputMetadata, KeptRow, ModelMetadata, ROWS_PART, TargetColumn, Timings,
    TrainingRows, WEIGHTS_PART,
};
use super::reference::{VECTORS_PART, labelled_vectors};
use super::worker::{Worker, panicked};
use super::{OnError, TrainingRow};

/// How often a commit that lost a race is tried again when it may replace what won.
const COMMIT_ATTEMPTS: usize = 5;

/// What the workers and the front share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) limits: ImageLimits,
    /// Jobs that are queued or running.
    pub(crate) live: Mutex<HashMap<u64, Arc<LiveJob>>>,
}

impl Shared {
    pub(crate) fn live(&self) -> MutexGuard<'_, HashMap<u64, Arc<LiveJob>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn store_job(&self, record: &JobRecord) -> Result<(), SqlError> {
        let bytes = serde_json::to_vec(record).map_err(crate::error::internal)?;
        self.store.put_job(record.id, &bytes).map_err(crate::error::storage_error)
    }
}

/// A filed training, ready to run.
pub(crate) struct TrainingTask {
    pub(crate) job: Arc<LiveJob>,
    pub(crate) overwrite: bool,
    pub(crate) options: TrainOptions,
    pub(crate) options_given: serde_json::Value,
    pub(crate) image_size: Option<u32>,
    pub(crate) color: Option<Color>,
    pub(crate) on_error: OnError,
    pub(crate) rows: Vec<TrainingRow>,
    pub(crate) image_col: String,
    pub(crate) fname_col: Option<String>,
    pub(crate) target: Option<TargetColumn>,
    pub(crate) start: Option<(ModelEntry, Arc<Model>)>,
}

/// Runs a training on the worker's thread, whatever happens in it.
pub(crate) fn run(task: TrainingTask, worker: &Worker, shared: &Shared) {
    let job = Arc::clone(&task.job);
    if job.cancel_token().is_cancelled() {
        finish(&job, shared, Err(job.stop_error()));
        return;
    }
    let record = job.record();
    let span = tracing::info_span!(
        "job",
        id = record.id,
        kind = record.kind.statement(),
        model = record.model,
        device = record.device
    );
    let _entered = span.enter();
    let outcome = catch_unwind(AssertUnwindSafe(|| train(task, worker, shared)))
        .unwrap_or_else(|panic| Err(panicked("training", &*panic)));
    finish(&job, shared, outcome);
}

/// Ends a cancelled job that never started.
pub(crate) fn finish_unstarted(task: &TrainingTask, shared: &Shared) {
    finish(&task.job, shared, Err(task.job.stop_error()));
}

fn finish(job: &LiveJob, shared: &Shared, outcome: Result<(), SqlError>) {
    let mut record = job.record();
    let now = now_us();
    record.finished_at = Some(now);
    record.remaining_seconds = None;
    match &outcome {
        Ok(()) => record.state = JobState::Succeeded,
        Err(error) => {
            record.state = if job.cancel_token().is_cancelled() {
                JobState::Cancelled
            } else {
                JobState::Failed
            };
            record.error = Some(JobError::of(error));
        }
    }
    let seconds = (now - record.started_at.unwrap_or(now)) as f64 / 1e6;
    match &outcome {
        Ok(()) => {
            tracing::info!(job = record.id, state = record.state.as_str(), seconds, "job ended")
        }
        Err(error) => tracing::warn!(
            job = record.id,
            state = record.state.as_str(),
            seconds,
            sqlstate = error.code.0,
            "job ended"
        ),
    }
    // A state that cannot be stored is found 'running' at the next start and corrected there.
    if let Err(error) = shared.store_job(&record) {
        tracing::error!(job = record.id, %error, "cannot store the job's last state");
    }
    job.update(|live| *live = record.clone());
    shared.live().remove(&record.id);
}

fn train(task: TrainingTask, worker: &Worker, shared: &Shared) -> Result<(), SqlError> {
    let TrainingTask {
        job,
        overwrite,
        options,
        options_given,
        image_size,
        color,
        on_error,
        rows,
        image_col,
        fname_col,
        target,
        start,
    } = task;
    let started_at = now_us();
    let record = job.update(|record| {
        record.state = JobState::Running;
        record.started_at = Some(started_at);
    });
    shared.store_job(&record)?;

    let clock = Instant::now();
    let mut notes = Vec::with_capacity(rows.len());
    let mut sources = Vec::with_capacity(rows.len());
    for row in rows {
        sources.push(row.image);
        notes.push((row.path, row.filename, row.target));
    }
    let fixed_spec = start.as_ref().map(|(_, model)| model.input());
    let cancel = job.cancel_token();
    let decoded = worker
        .embed_while(shared, || {
            decode(&sources, fixed_spec, image_size, color, &shared.limits, &|| {
                cancel.is_cancelled()
            })
        })
        .map_err(|panic| panicked("decoding", &*panic))?;
    if cancel.is_cancelled() {
        return Err(job.stop_error());
    }
    let (images, failures) = decoded?;
    drop(sources);
    if let (OnError::Fail, Some(failure)) = (on_error, failures.first()) {
        let path = notes.get(failure.index).and_then(|(path, _, _)| path.as_deref());
        return Err(image_error(&failure.error, path)
            .with_hint("on_error='skip' leaves unreadable images out."));
    }
    let skipped = failures.len() as u64;
    if skipped > 0 {
        tracing::warn!(skipped, "images that cannot be read are left out");
    }
    let unreadable: std::collections::HashSet<usize> =
        failures.iter().map(|failure| failure.index).collect();
    let kept: Vec<KeptRow<'_>> = notes
        .iter()
        .enumerate()
        .filter(|(index, _)| !unreadable.contains(index))
        .map(|(_, (path, filename, target))| KeptRow {
            path: path.as_deref(),
            filename: filename.as_deref(),
            target: target.as_deref(),
        })
        .collect();
    let classes = target.as_ref().map(|_| class_numbers(&kept));
    let loading = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let mut observer = Observer { job: &job, worker, shared, failure: None };
    let trained = thanosql_ml::train(
        &images,
        classes.as_deref(),
        &options,
        None,
        start.as_ref().map(|(_, model)| model.as_ref()),
        worker.device(),
        &mut observer,
    );
    let failure = observer.failure.take();
    let Trained { model, curve, recipe } = match trained {
        Ok(trained) => trained,
        Err(MlError::Stopped) => return Err(failure.unwrap_or_else(|| job.stop_error())),
        Err(error) => return Err(ml_error(error)),
    };
    if cancel.is_cancelled() {
        return Err(job.stop_error());
    }

    let record = job.record();
    let metadata = ModelMetadata {
        format: ModelMetadata::FORMAT,
        name: record.model.clone(),
        algorithm: ALGORITHM.to_owned(),
        created_at: now_us(),
        job: record.id,
        user: record.user.clone(),
        statement: record.statement.clone(),
        options_given,
        options_used: recipe,
        started_from: start.as_ref().map(|(entry, _)| (entry.name().to_owned(), entry.version())),
        image_col,
        fname_col,
        target,
        images: images.len() as u64,
        skipped,
        fingerprint: fingerprint(&images),
        input: InputMetadata::of(model.input()),
        embedding_dim: model.embedding_dim(),
        encoder: model.encoder_name().to_owned(),
        curve: curve
            .iter()
            .map(|epoch| EpochRecord {
                epoch: epoch.epoch,
                loss: Some(epoch.loss).filter(|loss| loss.is_finite()),
                knn_accuracy: epoch.knn_accuracy,
                seconds: epoch.seconds,
            })
            .collect(),
        device: worker.device().name().to_owned(),
        timings: Timings {
            queued: (started_at - record.submitted_at) as f64 / 1e6,
            loading,
            training: clock.elapsed().as_secs_f64(),
        },
    };
    let weights = model.to_safetensors().map_err(ml_error)?;
    let rows = TrainingRows::to_ipc(&kept).map_err(crate::error::arrow_error)?;
    let vectors = labelled_vectors(&model, &images, &kept, || {
        worker.between_steps(shared);
        if cancel.is_cancelled() { Err(MlError::Stopped) } else { Ok(()) }
    });
    let vectors = match vectors {
        Ok(vectors) => vectors,
        Err(MlError::Stopped) => return Err(job.stop_error()),
        Err(error) => return Err(ml_error(error)),
    };
    let mut parts = vec![(WEIGHTS_PART, weights.as_slice()), (ROWS_PART, rows.as_slice())];
    parts.extend(vectors.as_deref().map(|vectors| (VECTORS_PART, vectors)));
    let metadata_json = serde_json::to_vec(&metadata).map_err(crate::error::internal)?;
    commit(&shared.store, &record.model, overwrite, &metadata_json, &parts)
}

fn decode(
    sources: &[ImageSource],
    fixed: Option<InputSpec>,
    image_size: Option<u32>,
    color: Option<Color>,
    limits: &ImageLimits,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(ImageSet, Vec<ImageFailure>), SqlError> {
    let spec = match fixed {
        Some(spec) => {
            let asked = InputSpec {
                size: image_size.unwrap_or(spec.size),
                color: color.unwrap_or(spec.color),
            };
            if asked != spec {
                return Err(ml_error(MlError::InputMismatch { expected: spec, found: asked }));
            }
            spec
        }
        None if sources.is_empty() => {
            return Err(ml_error(MlError::TooFewImages { given: 0, needed: 2 }));
        }
        None => choose_input_spec(sources, image_size, color, limits)
            .map_err(|error| image_error(&error, None))?,
    };
    Ok(load_images(sources, spec, limits, stop))
}

/// Each distinct target gets a number, in the order of their text forms; a row without one stays without.
fn class_numbers(rows: &[KeptRow<'_>]) -> Vec<Option<u32>> {
    let distinct: std::collections::BTreeSet<&str> =
        rows.iter().filter_map(|row| row.target).collect();
    let numbers: HashMap<&str, u32> = distinct.into_iter().zip(0..).collect();
    rows.iter().map(|row| row.target.map(|target| numbers[target])).collect()
}

fn fingerprint(images: &ImageSet) -> String {
    let mut hash = Sha256::new();
    for length in images.shape() {
        hash.update((length as u64).to_le_bytes());
    }
    hash.update(images.pixels());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stores the model in one step. A name that was taken meanwhile is an error unless it may be replaced.
fn commit(
    store: &Store,
    name: &str,
    overwrite: bool,
    metadata: &[u8],
    parts: &[(&str, &[u8])],
) -> Result<(), SqlError> {
    for attempt in 1..=COMMIT_ATTEMPTS {
        let mut transaction = store.begin();
        if !overwrite && transaction.snapshot().model(name).is_some() {
            return Err(model_exists(name));
        }
        transaction.put_model(name, metadata, parts).map_err(crate::error::storage_error)?;
        match transaction.commit() {
            Ok(()) => return Ok(()),
            Err(StorageError::Conflict { .. }) if attempt < COMMIT_ATTEMPTS => {}
            Err(error) => return Err(crate::error::storage_error(error)),
        }
    }
    Err(crate::error::internal("a commit was neither done nor refused"))
}

/// 42710.
pub(crate) fn model_exists(name: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_OBJECT, format!("model \"{name}\" already exists"))
        .with_hint("OPTIONS (overwrite=True) replaces it.")
}

struct Observer<'a> {
    job: &'a LiveJob,
    worker: &'a Worker,
    shared: &'a Shared,
    /// Why the training is stopped, if nobody asked for it.
    failure: Option<SqlError>,
}

impl Observer<'_> {
    fn flow(&self) -> Flow {
        if self.failure.is_some() || self.job.cancel_token().is_cancelled() {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }
}

impl TrainingObserver for Observer<'_> {
    fn on_step(&mut self, progress: &StepProgress) -> Flow {
        self.job.update(|record| {
            record.epoch = progress.epoch;
            record.epochs = progress.epochs;
            record.step = u64::from(progress.step);
            record.steps = u64::from(progress.steps);
            record.loss = Some(progress.loss).filter(|loss| loss.is_finite());
            record.images_per_second =
                Some(progress.images_per_second).filter(|rate| rate.is_finite());
            record.remaining_seconds = Some(progress.remaining.as_secs_f64());
        });
        self.worker.between_steps(self.shared);
        self.flow()
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Flow {
        let record = self.job.update(|record| {
            record.epoch = report.epoch;
            record.curve.push(EpochRecord {
                epoch: report.epoch,
                loss: Some(report.loss).filter(|loss| loss.is_finite()),
                knn_accuracy: report.knn_accuracy,
                seconds: report.seconds,
            });
        });
        if let Err(error) = self.shared.store_job(&record) {
            self.failure.get_or_insert(error);
        }
        self.worker.between_steps(self.shared);
        self.flow()
    }
}
