//! What a server finds of the trainings of the one before it, and how they go on.
//!
//! ```text
//! filed      request kept, record 'queued'
//! running    record 'running'; after an epoch: record, checkpoint
//! ended      model stored, record 'succeeded' | 'failed' | 'cancelled', request and checkpoint removed
//! ```
//!
//! A record that is neither of the last three when a server starts belongs to a training that was interrupted, whether by SIGTERM, kill -9 or a
//! power cut, and whether its client waited for it or not: a training is hours of work, and its model is what was asked for. It waits in the
//! queue again and goes on from its newest checkpoint, on the CPU with the same result, bit by bit, as if nothing had happened. Some cases are told apart first:
//!
//! - Its model is stored already, under its number: it has succeeded.
//! - Its request is gone: it was being cancelled.
//! - An older server filed it, which kept no requests: it has failed.
//!
//! One that may be what ends the server, because it ended [`MAX_FRUITLESS`] times without an epoch in between, fails too: a server must not
//! start for ever only to be killed for want of memory.
//!
//! Devices are opened by a thread of its own, so that a server with an interrupted training starts as fast as any.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;

use thanosql_protocol::{SqlError, SqlState};

use super::job::{JobError, JobRecord, JobState, LiveJob, job_cancelled, now_us};
use super::model::ModelMetadata;
use super::request::TrainingRequest;
use super::training::{self, Shared, TrainingTask};
use super::{Learning, LearningError};

/// How often the server may end unexpectedly while a training runs and finishes no epoch.
const MAX_FRUITLESS: u32 = 3;

/// Decides what becomes of every stored job that has not ended, and removes what is kept of those that have. Those that go on are live afterwards
/// and are answered by their numbers, first come first.
pub(super) fn take_over(shared: &Shared) -> Result<Vec<u64>, LearningError> {
    let mut going_on = Vec::new();
    let made = OnceCell::new();
    for (id, bytes) in shared.store.jobs().map_err(LearningError::Jobs)? {
        let record: JobRecord = match serde_json::from_slice(&bytes) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(job = id, %error, "a stored job cannot be read");
                continue;
            }
        };
        if record.state.is_finished() {
            continue;
        }
        let record = judge(shared, record, made.get_or_init(|| jobs_with_models(shared)))?;
        shared
            .store_job(&record)
            .map_err(|source| LearningError::Record { id, source: Box::new(source) })?;
        tracing::warn!(
            job = id,
            state = record.state.as_str(),
            "a job was interrupted by the end of the last server"
        );
        if !record.state.is_finished() {
            shared.live().insert(id, LiveJob::new(record));
            going_on.push(id);
        }
    }
    // A crash may have come between a job's last record and the removal of what was kept of it, or before its first record.
    for job in shared.store.jobs_with_kept().map_err(LearningError::Jobs)? {
        if !going_on.contains(&job) {
            shared.store.remove_kept(job).map_err(LearningError::Jobs)?;
        }
    }
    shared.forget_old_jobs();
    Ok(going_on)
}

/// The jobs that made the models that are here.
fn jobs_with_models(shared: &Shared) -> HashSet<u64> {
    let models = shared.store.snapshot().models();
    models
        .iter()
        .filter_map(|entry| ModelMetadata::read(entry).ok())
        .filter_map(|metadata| metadata.job)
        .collect()
}

/// The record of an interrupted job as it is from now on. `made`: the jobs whose models are stored.
fn judge(
    shared: &Shared,
    mut record: JobRecord,
    made: &HashSet<u64>,
) -> Result<JobRecord, LearningError> {
    let error = if made.contains(&record.id) {
        record.state = JobState::Succeeded;
        None
    } else if !record.resumable {
        record.state = JobState::Failed;
        Some(SqlError::new(SqlState::ADMIN_SHUTDOWN, "the server stopped while the job ran"))
    } else if !shared.store.has_request(record.id).map_err(LearningError::Jobs)? {
        record.state = JobState::Cancelled;
        Some(job_cancelled())
    } else {
        if record.state == JobState::Running {
            record.interruptions += 1;
            record.fruitless += 1;
            record.note =
                Some("interrupted when the server ended without being told to stop".to_owned());
        }
        record.state = JobState::Queued;
        record.remaining_seconds = None;
        record.images_per_second = None;
        if record.fruitless < MAX_FRUITLESS {
            return Ok(record);
        }
        record.state = JobState::Failed;
        Some(
            SqlError::new(
                SqlState::SYSTEM_ERROR,
                format!(
                    "the server ended {MAX_FRUITLESS} times while the training ran, with no epoch finished in between"
                ),
            )
            .with_hint("It may have been killed for want of memory; the system's log says so."),
        )
    };
    record.error = error.as_ref().map(JobError::of);
    record.finished_at = Some(now_us());
    record.remaining_seconds = None;
    Ok(record)
}

impl Learning {
    /// Puts interrupted trainings back into the queues of their devices. Blocking: devices are opened, models loaded.
    pub(super) fn queue_again(&self, jobs: &[u64]) {
        for id in jobs {
            let Some(job) = self.shared.live().get(id).cloned() else { continue };
            if let Err(error) = self.queue_one_again(&job) {
                training::finish(&job, &self.shared, Err(error));
            }
        }
    }

    fn queue_one_again(&self, job: &Arc<LiveJob>) -> Result<(), SqlError> {
        if job.cancel_token().is_cancelled() {
            return Err(job.stop_error());
        }
        let bytes = self.shared.store.request(job.id()).map_err(crate::error::storage_error)?;
        // It may be cancelled while this runs.
        let request = TrainingRequest::decode(bytes.ok_or_else(job_cancelled)?)?;
        let worker = self.worker(request.device.unwrap_or(self.shared.options.device));
        let worker = match worker {
            Err(_) if job.cancel_token().is_cancelled() => return Err(job.stop_error()),
            worker => worker?,
        };
        let start = match &request.start {
            Some((name, version)) => {
                let entry = self
                    .shared
                    .store
                    .snapshot()
                    .model(name)
                    .filter(|entry| entry.version() == *version)
                    .ok_or_else(|| base_is_gone(name, *version))?;
                let model = self.load_encoder(&entry, &worker)?;
                Some((entry, model))
            }
            None => None,
        };
        job.update(|record| record.device = worker.device().name().to_owned());
        let task = TrainingTask { job: Arc::clone(job), start, again: true };
        if worker.train(task).is_err() {
            // The server is being stopped; the training goes on when it starts again.
            return Err(job.stop_error());
        }
        Ok(())
    }
}

fn base_is_gone(name: &str, version: u64) -> SqlError {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!(
            "version {version} of the model \"{name}\", from which the training starts, is gone"
        ),
    )
    .with_detail("It was dropped or replaced while the training was interrupted.")
}
