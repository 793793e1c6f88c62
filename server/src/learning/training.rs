//! One training from its queue entry to the stored model: read what was asked for, decode, train, commit.
//!
//! The model is stored in one transaction at the very end, so nothing of a failed or cancelled job remains. A job's last
//! state is stored after its model, and what is kept of it is removed after that: [`super::resume`] has the order, and what a crash
//! between two of these steps comes to.
//!
//! After each epoch a checkpoint is stored, unless the epochs are so short that writing them would be felt
//! ([`CHECKPOINT_SHARE`]). Which of them a training goes on from makes no difference to what it ends with.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use thanosql_ml::images::{
    DECODING_VERSION, ImageFailure, ImageSource, choose_input_spec, load_images_within,
};
use thanosql_ml::{
    Color, EpochReport, EpochSummary, Flow, Images, InputSpec, MlError, Model, Pretrained,
    StepProgress, Trained, TrainingObserver,
};
use thanosql_protocol::{SqlError, SqlState};
use thanosql_storage::{ModelEntry, StorageError, Store};

use super::failure::{image_error, ml_error};
use super::job::{EpochRecord, JobError, JobRecord, JobState, LiveJob, now_us};
use super::model::{
    ALGORITHM, InputMetadata, KeptRow, ModelMetadata, ROWS_PART, Timings, TrainingRows,
    WEIGHTS_PART,
};
use super::reference::{VECTORS_PART, labelled_vectors};
use super::request::TrainingRequest;
use super::worker::{Worker, panicked};
use super::{LearningOptions, OnError};
use crate::hexadecimal::hexadecimal;

/// How often a commit that lost a race is tried again when it may replace what won.
const COMMIT_ATTEMPTS: usize = 5;

/// Part of a training's time that writing checkpoints may take. The first is always written.
const CHECKPOINT_SHARE: f64 = 0.05;

/// What the workers and the front share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) options: LearningOptions,
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

    /// Removes the records of the jobs that ended first, down to the number that is configured. Their models stay.
    pub(crate) fn forget_old_jobs(&self) {
        let forget = || -> Result<(), StorageError> {
            let mut ended = Vec::new();
            for (id, bytes) in self.store.jobs()? {
                // A record that cannot be read is nobody's any more.
                let record = serde_json::from_slice::<JobRecord>(&bytes).ok();
                if record.is_none_or(|record| record.state.is_finished()) {
                    ended.push(id);
                }
            }
            let surplus = ended.len().saturating_sub(self.options.finished_jobs);
            ended[..surplus].iter().try_for_each(|id| self.store.remove_job(*id))
        };
        if let Err(error) = forget() {
            tracing::error!(%error, "cannot remove the records of old jobs");
        }
    }
}

/// A filed training in its device's queue. What it was asked for is read from the store when its turn comes.
pub(crate) struct TrainingTask {
    pub(crate) job: Arc<LiveJob>,
    /// The model that it starts from, held so that nobody can take it away meanwhile.
    pub(crate) start: Option<(ModelEntry, Arc<Model>)>,
    /// Whether an earlier server filed it.
    pub(crate) again: bool,
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
    thanosql_ml::kernels::release_buffers();
    finish(&job, shared, outcome);
}

/// Ends a job that never started: it was cancelled, or the server stops.
pub(crate) fn finish_unstarted(task: &TrainingTask, shared: &Shared) {
    finish(&task.job, shared, Err(task.job.stop_error()));
}

/// Stores what a job has come to and lets go of it. One that only the server's end has interrupted stays in the queue.
pub(crate) fn finish(job: &LiveJob, shared: &Shared, outcome: Result<(), SqlError>) {
    let mut record = job.record();
    let now = now_us();
    record.remaining_seconds = None;
    match &outcome {
        Err(_) if job.is_interrupted() => {
            if record.state == JobState::Running {
                record.interruptions += 1;
                record.note = Some("interrupted when the server was stopped".to_owned());
            }
            record.state = JobState::Queued;
            record.images_per_second = None;
            record.interrupted = true;
        }
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
        _ if record.interrupted => {
            tracing::info!(job = record.id, "the job goes on when the server starts again");
        }
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
    if !record.interrupted {
        record.finished_at = Some(now);
    }
    match shared.store_job(&record) {
        Ok(()) => {
            if !record.interrupted {
                if let Err(error) = shared.store.remove_kept(record.id) {
                    tracing::error!(job = record.id, %error, "cannot remove what is kept of the job");
                }
                shared.forget_old_jobs();
            }
            // Whoever waits for the job hears of its end when it is no longer one that could be cancelled.
            shared.live().remove(&record.id);
        }
        // Stays among the live ones, as this server knows it. The next finds it as it was before, and the job goes on from there.
        Err(error) => {
            tracing::error!(job = record.id, %error, "cannot store the job's last state");
        }
    }
    job.update(|live| *live = record);
}

fn train(task: TrainingTask, worker: &Worker, shared: &Shared) -> Result<(), SqlError> {
    let TrainingTask { job, start, again } = task;
    let id = job.id();
    let storage_error = crate::error::storage_error;
    // It is gone once the job is being cancelled.
    let request =
        shared.store.request(id).map_err(storage_error)?.ok_or_else(|| job.stop_error())?;
    let request = TrainingRequest::decode(request)?;
    let started_at = job.record().started_at.unwrap_or_else(now_us);
    let record = job.update(|record| {
        record.state = JobState::Running;
        record.started_at = Some(started_at);
    });
    shared.store_job(&record)?;
    if again {
        request.check_files(&shared.options.files)?;
    }

    let clock = Instant::now();
    let pretrained = match &request.pretrained {
        Some(digest) => Some(shared.pretrained(Some(digest))?.0),
        None => None,
    };
    let mut notes = Vec::with_capacity(request.rows.len());
    let mut sources = Vec::with_capacity(request.rows.len());
    for row in request.rows {
        sources.push(row.image);
        notes.push((row.path, row.filename, row.target));
    }
    let shape = Shape {
        fixed: start.as_ref().map(|(_, model)| model.input()),
        size: request.image_size,
        color: pretrained.as_ref().map(|_| Pretrained::COLOR).or(request.color),
    };
    let cancel = job.cancel_token();
    let decoded = worker
        .embed_while(shared, || decode(&sources, shape, &shared.options, &|| cancel.is_cancelled()))
        .map_err(|panic| panicked("decoding", &*panic))?;
    if cancel.is_cancelled() {
        return Err(job.stop_error());
    }
    let (images, failures) = decoded?;
    drop(sources);
    if let (OnError::Fail, Some(failure)) = (request.on_error, failures.first()) {
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
    let classes = request.target.as_ref().map(|_| class_numbers(&kept));
    let fingerprint = worker
        .embed_while(shared, || fingerprint(&*images, &|| cancel.is_cancelled()))
        .map_err(|panic| panicked("hashing", &*panic))?;
    if cancel.is_cancelled() {
        return Err(job.stop_error());
    }
    let fingerprint = fingerprint.map_err(ml_error)?;
    same_images(&job, shared, &fingerprint)?;
    let loading = clock.elapsed().as_secs_f64();

    let clock = Instant::now();
    let from_elsewhere =
        pretrained.map(|weights| weights.model(images.spec().size, worker.device()));
    let start_model = from_elsewhere.as_ref().or(start.as_ref().map(|(_, model)| model.as_ref()));
    let mut observer = Observer::new(&job, worker, shared);
    let mut run = |resume: Option<&[u8]>| {
        thanosql_ml::train(
            &*images,
            classes.as_deref(),
            &request.options,
            resume,
            start_model,
            worker.device(),
            &mut observer,
        )
    };
    let trained = match checkpoint(shared, id).as_deref() {
        Some(bytes) => match run(Some(bytes)) {
            // Another version of this program may have written it. From the beginning is further and as good.
            Err(MlError::InvalidCheckpoint { reason }) => {
                tracing::warn!(reason, "the checkpoint cannot be used, the training begins anew");
                run(None)
            }
            trained => trained,
        },
        None => run(None),
    };
    let (failure, seconds_before) = (observer.failure.take(), observer.seconds_before);
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
        job: Some(record.id),
        user: record.user.clone(),
        statement: record.statement.clone(),
        options_given: request.options_given,
        options_used: recipe,
        started_from: start.as_ref().map(|(entry, _)| (entry.name().to_owned(), entry.version())),
        pretrained: request.pretrained,
        uploaded_from: None,
        image_col: request.image_col,
        fname_col: request.fname_col,
        target: request.target,
        images: images.len() as u64,
        skipped,
        fingerprint,
        input: InputMetadata::of(model.input()),
        embedding_dim: model.embedding_dim(),
        encoder: model.encoder_name().to_owned(),
        curve: curve.iter().map(EpochRecord::of).collect(),
        device: worker.device().name().to_owned(),
        timings: Timings {
            queued: (started_at - record.submitted_at) as f64 / 1e6,
            loading,
            training: seconds_before + clock.elapsed().as_secs_f64(),
        },
    };
    let weights = model.to_safetensors().map_err(ml_error)?;
    let rows = TrainingRows::to_ipc(&kept).map_err(crate::error::arrow_error)?;
    let vectors = labelled_vectors(&model, &*images, &kept, || {
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
    job.start_storing()?;
    commit(&shared.store, &record.model, request.overwrite, &metadata_json, &parts)
}

/// The newest checkpoint of a job, if there is one that can be read.
fn checkpoint(shared: &Shared, job: u64) -> Option<Vec<u8>> {
    shared.store.checkpoint(job).unwrap_or_else(|error| {
        tracing::warn!(%error, "the checkpoint cannot be read, the training begins anew");
        None
    })
}

/// Writes down what the images are when they are decoded for the first time; later they must be the same, if they are decoded in the same way.
fn same_images(job: &LiveJob, shared: &Shared, fingerprint: &str) -> Result<(), SqlError> {
    let JobRecord { fingerprint: known, decoding, .. } = job.record();
    match known.filter(|_| decoding == DECODING_VERSION) {
        Some(known) if known == fingerprint => Ok(()),
        Some(_) => Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the training's images have changed since it began, it cannot go on",
        )
        .with_detail(
            "It was interrupted by the server's end, and its files are not what they were before.",
        )
        .with_hint("Run the statement again to train with the files as they are now.")),
        None => {
            let record = job.update(|record| {
                record.fingerprint = Some(fingerprint.to_owned());
                record.decoding = DECODING_VERSION;
            });
            shared.store_job(&record)
        }
    }
}

/// What is known of the images' shape before they are looked at.
#[derive(Clone, Copy)]
struct Shape {
    /// The shape that the model to start from reads.
    fixed: Option<InputSpec>,
    size: Option<u32>,
    color: Option<Color>,
}

fn decode(
    sources: &[ImageSource],
    shape: Shape,
    options: &LearningOptions,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(Box<dyn Images>, Vec<ImageFailure>), SqlError> {
    let spec = match shape.fixed {
        Some(spec) => {
            let asked = InputSpec {
                size: shape.size.unwrap_or(spec.size),
                color: shape.color.unwrap_or(spec.color),
            };
            if asked != spec {
                return Err(ml_error(MlError::InputMismatch { expected: spec, found: asked }));
            }
            spec
        }
        None if sources.is_empty() => {
            return Err(ml_error(MlError::TooFewImages { given: 0, needed: 2 }));
        }
        None => choose_input_spec(sources, shape.size, shape.color, &options.limits)
            .map_err(|error| image_error(&error, None))?,
    };
    let values = sources.iter().map(|source| match source {
        ImageSource::Path(_) => 0,
        ImageSource::Bytes(bytes) => bytes.len() as u64,
    });
    let values: u64 = values.sum();
    let decoded = (sources.len() as u64).saturating_mul(spec.image_len() as u64);
    let (bytes, limit) = (values.saturating_add(decoded), options.max_training_bytes);
    if bytes > limit {
        return Err(over_limit("the training set takes", bytes, limit).with_hint(
            "Fewer rows, a smaller image_size or color='gray' take less; the setting max_training_bytes is the limit.",
        ));
    }
    let memory = options.training_memory_bytes.saturating_sub(values);
    load_images_within(sources, spec, &options.limits, memory, &options.scratch, stop)
        .map_err(ml_error)
}

/// # Errors
/// 54000 if the images that a query yields as values take more bytes than a training may keep in memory.
pub(crate) fn values_within_limit(bytes: u64, limit: u64) -> Result<(), SqlError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(over_limit("the image values of the training set take", bytes, limit).with_hint(
        "Images in files, given by their paths, stay there; the setting training_memory_bytes is the limit.",
    ))
}

fn over_limit(what: &str, bytes: u64, limit: u64) -> SqlError {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    SqlError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("{what} {} MiB, more than the {} MiB allowed", mib(bytes), mib(limit)),
    )
}

/// Each distinct target gets a number, in the order of their text forms; a row without one stays without.
fn class_numbers(rows: &[KeptRow<'_>]) -> Vec<Option<u32>> {
    let distinct: std::collections::BTreeSet<&str> =
        rows.iter().filter_map(|row| row.target).collect();
    let numbers: HashMap<&str, u32> = distinct.into_iter().zip(0..).collect();
    rows.iter().map(|row| row.target.map(|target| numbers[target])).collect()
}

fn fingerprint(images: &dyn Images, stop: &dyn Fn() -> bool) -> Result<String, MlError> {
    let mut hash = Sha256::new();
    let InputSpec { size, color } = images.spec();
    for length in [images.len(), color.channels(), size as usize, size as usize] {
        hash.update((length as u64).to_le_bytes());
    }
    images.each(&mut |some| {
        if stop() {
            return Err(MlError::Stopped);
        }
        hash.update(some.pixels());
        Ok(())
    })?;
    Ok(hexadecimal(&hash.finalize()))
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
    /// What the epochs took that an earlier server ran.
    seconds_before: f64,
    /// When the last checkpoint was written, and how long that took.
    checkpoint: Option<(Instant, Duration)>,
}

impl<'a> Observer<'a> {
    fn new(job: &'a LiveJob, worker: &'a Worker, shared: &'a Shared) -> Observer<'a> {
        Observer { job, worker, shared, failure: None, seconds_before: 0.0, checkpoint: None }
    }

    fn flow(&self) -> Flow {
        if self.failure.is_some() || self.job.cancel_token().is_cancelled() {
            Flow::Stop
        } else {
            Flow::Continue
        }
    }

    fn keep_checkpoint(&mut self, report: &EpochReport, epochs: u32) -> Result<(), SqlError> {
        let began = Instant::now();
        let is_due = self.checkpoint.is_none_or(|(written, took)| {
            written.elapsed().as_secs_f64() * CHECKPOINT_SHARE >= took.as_secs_f64()
        });
        // After the last epoch the model itself is stored.
        if !is_due || report.summary.epoch >= epochs {
            return Ok(());
        }
        self.shared
            .store
            .put_checkpoint(self.job.id(), &report.checkpoint)
            .map_err(crate::error::storage_error)?;
        self.checkpoint = Some((Instant::now(), began.elapsed()));
        Ok(())
    }
}

/// A note on an interruption, with how the training went on after it.
fn went_on(note: Option<&str>, how: &str) -> String {
    let cause = note.and_then(|note| note.split(';').next()).unwrap_or("interrupted");
    format!("{cause}; {how}")
}

impl TrainingObserver for Observer<'_> {
    fn on_resume(&mut self, done: &[EpochSummary]) {
        self.seconds_before = done.iter().map(|epoch| epoch.seconds).sum();
        tracing::info!(epochs = done.len(), "the training goes on from its checkpoint");
        self.job.update(|record| {
            // The record may know of an epoch more than the checkpoint does.
            record.curve = done.iter().map(EpochRecord::of).collect();
            let how = format!("went on after epoch {}", done.len());
            record.note = Some(went_on(record.note.as_deref(), &how));
        });
    }

    fn on_step(&mut self, progress: &StepProgress) -> Flow {
        self.job.update(|record| {
            if progress.epoch == 1 && progress.step == 1 && record.interruptions > 0 {
                // The curve is that of an earlier run, which left no checkpoint.
                record.curve.clear();
                record.note = Some(went_on(record.note.as_deref(), "began again"));
            }
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

    fn on_hashing(&mut self) -> Flow {
        self.worker.between_steps(self.shared);
        self.flow()
    }

    fn on_measuring(&mut self) -> Flow {
        self.on_hashing()
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Flow {
        let record = self.job.update(|record| {
            record.epoch = report.summary.epoch;
            record.fruitless = 0;
            record.curve.push(EpochRecord::of(&report.summary));
        });
        let kept = self
            .shared
            .store_job(&record)
            .and_then(|()| self.keep_checkpoint(report, record.epochs));
        if let Err(error) = kept {
            self.failure.get_or_insert(error);
        }
        self.worker.between_steps(self.shared);
        self.flow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_values_may_take_as_much_as_allowed_and_no_more() {
        assert!(values_within_limit(10 << 20, 10 << 20).is_ok());
        let error = values_within_limit((10 << 20) + 1, 10 << 20).unwrap_err();
        assert_eq!(error.code, SqlState::PROGRAM_LIMIT_EXCEEDED);
        assert!(error.message.contains("11 MiB"), "{error}");
        assert!(error.hint.unwrap().contains("training_memory_bytes"));
    }
}
