//! Jobs: what is remembered of a training, and how a statement waits for one.
//!
//! A [`JobRecord`] is stored as JSON at each change of state and at the end of each epoch; between these its live copy
//! in memory is ahead of the stored one. A statement that waits sees every epoch, because it reads them off the record's
//! list and not off single messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thanosql_ml::EpochSummary;
use thanosql_protocol::{Notice, NoticeSender, SqlError, SqlState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a waiting statement hears of a step.
const NOTICE_PERIOD: Duration = Duration::from_secs(2);

/// How long a cancelled statement waits for its job to stop before it answers. Below the second that the protocol grants.
const CANCEL_PATIENCE: Duration = Duration::from_millis(800);

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for the device.
    Queued,
    /// It runs.
    Running,
    /// Its model is stored.
    Succeeded,
    /// It ended with an error.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl JobState {
    /// The word in `thanosql.jobs`.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_finished(self) -> bool {
        match self {
            JobState::Queued | JobState::Running => false,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => true,
        }
    }
}

/// What a job makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// A model from nothing: BUILD MODEL.
    Build,
    /// A model from another one's weights: FIT MODEL.
    Fit,
}

impl JobKind {
    /// The statement that files such a job, in the words of its command tag.
    pub fn statement(self) -> &'static str {
        match self {
            JobKind::Build => "BUILD MODEL",
            JobKind::Fit => "FIT MODEL",
        }
    }
}

/// Why a job failed, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// SQLSTATE.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the reader can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl JobError {
    pub(crate) fn of(error: &SqlError) -> JobError {
        JobError {
            sqlstate: error.code.0.to_owned(),
            message: error.message.clone(),
            detail: error.detail.clone(),
            hint: error.hint.clone(),
        }
    }

    /// The same as an answer to a client.
    pub fn to_sql_error(&self) -> SqlError {
        let code = SqlState::from_code(&self.sqlstate).unwrap_or(SqlState::INTERNAL_ERROR);
        let mut error = SqlError::new(code, self.message.clone());
        error.detail = self.detail.clone();
        error.hint = self.hint.clone();
        error
    }
}

/// One finished epoch of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: u32,
    /// Mean contrastive loss.
    pub loss: Option<f64>,
    /// The loss of a network that tells nothing apart. None of this and of the measures in epochs of older servers.
    #[serde(default)]
    pub chance_loss: Option<f64>,
    /// Mean squared distance between two views of an image, from 0 to 4; lower is better.
    #[serde(default)]
    pub alignment: Option<f64>,
    /// How evenly the images are spread over the sphere, from -8 to 0; lower is better.
    #[serde(default)]
    pub uniformity: Option<f64>,
    /// How many directions the vectors use (RankMe).
    #[serde(default)]
    pub effective_rank: Option<f64>,
    /// Share of the vectors' numbers that are the same for all images, from 0 to 1.
    #[serde(default)]
    pub dead_dimensions: Option<f64>,
    /// Share of labelled training images whose nearest neighbours vote for their class, from 0 to 1; none without labels.
    pub knn_accuracy: Option<f64>,
    /// How long the epoch took.
    pub seconds: f64,
}

impl EpochRecord {
    /// An epoch as it is kept: as JSON, which has no infinity.
    pub(crate) fn of(epoch: &EpochSummary) -> EpochRecord {
        let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
        EpochRecord {
            epoch: epoch.epoch,
            loss: finite(Some(epoch.loss)),
            chance_loss: finite(Some(epoch.chance)),
            alignment: finite(epoch.quality.alignment),
            uniformity: finite(epoch.quality.uniformity),
            effective_rank: finite(epoch.quality.effective_rank),
            dead_dimensions: finite(epoch.quality.dead_dimensions),
            knn_accuracy: finite(epoch.quality.knn_accuracy),
            seconds: epoch.seconds,
        }
    }
}

/// All that is known of a job. Times are microseconds since 1970, UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The number that CANCEL JOB takes.
    pub id: u64,
    /// What it makes.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// The model's name.
    pub model: String,
    /// The statement that filed it.
    pub statement: String,
    /// Who filed it.
    pub user: String,
    /// The device that it runs on.
    pub device: String,
    /// Rows handed in.
    pub images: u64,
    /// The epoch under way, from 1; 0 before the first.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// The last finished step of this epoch.
    pub step: u64,
    /// Steps an epoch.
    pub steps: u64,
    /// The loss last measured.
    pub loss: Option<f64>,
    /// Source images a second.
    pub images_per_second: Option<f64>,
    /// Estimate of the time left, in seconds.
    pub remaining_seconds: Option<f64>,
    /// When it was filed.
    pub submitted_at: i64,
    /// When it started.
    pub started_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
    /// Why it failed or was stopped.
    pub error: Option<JobError>,
    /// The finished epochs.
    #[serde(default)]
    pub curve: Vec<EpochRecord>,
    /// Whether it was filed together with all that it needs to go on after the server's end.
    #[serde(default)]
    pub resumable: bool,
    /// How often the server ended while it ran.
    #[serde(default)]
    pub interruptions: u32,
    /// How often the server ended unexpectedly since the last epoch was finished.
    #[serde(default)]
    pub fruitless: u32,
    /// What happened to it on the way, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// SHA-256 of its images as they were first decoded: it goes on only with the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The [`DECODING_VERSION`](thanosql_ml::images::DECODING_VERSION) that gave those.
    #[serde(default)]
    pub decoding: u32,
    /// This server is being stopped and the job with it: whoever waits need not wait any longer.
    #[serde(skip)]
    pub interrupted: bool,
}

impl JobRecord {
    /// Whether this server does nothing more for it.
    pub fn is_over(&self) -> bool {
        self.interrupted || self.state.is_finished()
    }

    /// How much of it is done, from 0 to 1.
    pub fn progress(&self) -> f64 {
        match self.state {
            JobState::Succeeded => 1.0,
            JobState::Queued | JobState::Running | JobState::Failed | JobState::Cancelled => {
                if self.epochs == 0 || self.steps == 0 || self.epoch == 0 {
                    return 0.0;
                }
                let per_epoch = self.steps as f64;
                let done = f64::from(self.epoch - 1) * per_epoch + self.step as f64;
                (done / (f64::from(self.epochs) * per_epoch)).clamp(0.0, 1.0)
            }
        }
    }

    /// The progress in one line: `epoch 2/5, step 31/156, loss 3.21, 412 images/s, 1 min 20 s left`.
    pub fn progress_line(&self) -> String {
        let mut line =
            format!("epoch {}/{}, step {}/{}", self.epoch, self.epochs, self.step, self.steps);
        if let Some(loss) = self.loss {
            line.push_str(&format!(", loss {loss:.3}"));
        }
        if let Some(rate) = self.images_per_second {
            line.push_str(&format!(", {rate:.0} images/s"));
        }
        if let Some(seconds) = self.remaining_seconds {
            line.push_str(&format!(", {} left", duration_text(seconds)));
        }
        line
    }

    fn epoch_line(&self, epoch: &EpochRecord) -> String {
        let mut line = format!("epoch {}/{} done", epoch.epoch, self.epochs);
        if let Some(loss) = epoch.loss {
            line.push_str(&format!(", loss {loss:.3}"));
        }
        if let Some(chance) = epoch.chance_loss {
            line.push_str(&format!(" (by chance {chance:.3})"));
        }
        if let Some(accuracy) = epoch.knn_accuracy {
            line.push_str(&format!(", kNN accuracy {:.1} %", accuracy * 100.0));
        }
        if let Some(alignment) = epoch.alignment {
            line.push_str(&format!(", alignment {alignment:.3}"));
        }
        if let Some(uniformity) = epoch.uniformity {
            line.push_str(&format!(", uniformity {uniformity:.3}"));
        }
        if let Some(rank) = epoch.effective_rank {
            line.push_str(&format!(", effective rank {rank:.1}"));
        }
        if let Some(dead) = epoch.dead_dimensions {
            line.push_str(&format!(", dead dimensions {:.1} %", dead * 100.0));
        }
        line.push_str(&format!(", {}", duration_text(epoch.seconds)));
        line
    }
}

/// `1 min 20 s`, `2 h 5 min`, `4 s`.
pub fn duration_text(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600.. => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Now, as records keep it.
pub(crate) fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// A job in memory: its record as it changes, and the way to stop it.
#[derive(Debug)]
pub(crate) struct LiveJob {
    id: u64,
    record: watch::Sender<JobRecord>,
    cancel: CancellationToken,
    /// Set before `cancel` is pulled.
    course: Mutex<Course>,
}

/// What becomes of a job: the first decision stays.
#[derive(Clone, Debug)]
enum Course {
    /// It goes on.
    Open,
    /// It is being stopped.
    Stopped(StopReason),
    /// Its model is being stored, which nothing stops any more.
    Storing,
}

/// Why a job is stopped.
#[derive(Clone, Debug)]
enum StopReason {
    /// Somebody wants it stopped.
    Cancelled(SqlError),
    /// The server is being stopped. The job goes on when it starts again.
    Interrupted,
}

impl LiveJob {
    pub(crate) fn new(record: JobRecord) -> Arc<LiveJob> {
        Arc::new(LiveJob {
            id: record.id,
            record: watch::Sender::new(record),
            cancel: CancellationToken::new(),
            course: Mutex::new(Course::Open),
        })
    }

    /// The job's number.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn record(&self) -> JobRecord {
        self.record.borrow().clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut JobRecord)) -> JobRecord {
        self.record.send_modify(change);
        self.record()
    }

    pub(crate) fn cancel_token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Asks the job to stop; the first reason stays. Says whether it will, which it does not when its model is being stored.
    pub(crate) fn stop(&self, reason: SqlError) -> bool {
        self.stop_because(StopReason::Cancelled(reason))
    }

    /// Stops the job because the server is being stopped, unless it is being cancelled already.
    pub(crate) fn interrupt(&self) {
        self.stop_because(StopReason::Interrupted);
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_because(&self, reason: StopReason) -> bool {
        let mut course = self.course();
        match &*course {
            Course::Storing => return false,
            Course::Stopped(_) => {}
            Course::Open => *course = Course::Stopped(reason),
        }
        drop(course);
        self.cancel.cancel();
        true
    }

    /// Decides that the model is stored: from now on the job cannot be stopped.
    ///
    /// # Errors
    /// What the job answers if it is being stopped.
    pub(crate) fn start_storing(&self) -> Result<(), SqlError> {
        let mut course = self.course();
        if let Course::Open = &*course {
            *course = Course::Storing;
            return Ok(());
        }
        drop(course);
        Err(self.stop_error())
    }

    /// Whether the job is stopped because the server is.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(&*self.course(), Course::Stopped(StopReason::Interrupted))
    }

    /// What a stopped job answers.
    pub(crate) fn stop_error(&self) -> SqlError {
        match &*self.course() {
            Course::Stopped(StopReason::Cancelled(reason)) => reason.clone(),
            Course::Stopped(StopReason::Interrupted) => job_interrupted(self.id),
            Course::Open | Course::Storing => job_cancelled(),
        }
    }
}

/// 57P01: the training is not lost.
fn job_interrupted(id: u64) -> SqlError {
    SqlError::new(SqlState::ADMIN_SHUTDOWN, "terminating the job due to administrator command")
        .with_hint(format!(
            "The training goes on when the server starts again; WAIT JOB {id} waits for it, CANCEL JOB {id} ends it."
        ))
}

pub(crate) fn job_cancelled() -> SqlError {
    SqlError::new(SqlState::QUERY_CANCELED, "the job was cancelled")
}

fn statement_cancelled() -> SqlError {
    SqlError::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

/// A filed job. Dropping the handle leaves the job alone; dropping the future of [`JobHandle::wait`] stops it.
#[derive(Debug)]
pub struct JobHandle {
    pub(crate) job: Arc<LiveJob>,
}

impl JobHandle {
    /// The job's number.
    pub fn id(&self) -> u64 {
        self.job.id()
    }

    /// The record as it is now.
    pub fn record(&self) -> JobRecord {
        self.job.record()
    }

    /// Waits until the job has ended and sends its progress as notices: each epoch, and a step about every two seconds.
    ///
    /// When `cancel` fires, or this future is dropped, the job is stopped; the answer is 57014 then. A job that failed
    /// or was stopped by somebody else answers with its error.
    pub async fn wait(
        self,
        cancel: &CancellationToken,
        notices: &NoticeSender,
    ) -> Result<JobRecord, SqlError> {
        let guard = StopOnDrop { job: Some(&self.job) };
        let outcome = self.follow(cancel, notices, true).await;
        guard.disarm();
        outcome
    }

    /// Waits like [`JobHandle::wait`] for a job that belongs to somebody else: `cancel` ends the waiting, not the job.
    pub async fn watch(
        self,
        cancel: &CancellationToken,
        notices: &NoticeSender,
    ) -> Result<JobRecord, SqlError> {
        self.follow(cancel, notices, false).await
    }

    async fn follow(
        &self,
        cancel: &CancellationToken,
        notices: &NoticeSender,
        stops_job: bool,
    ) -> Result<JobRecord, SqlError> {
        let mut changes = self.job.record.subscribe();
        let mut reported_epochs = 0;
        let mut reported_step = (0, 0);
        let mut said_queued = false;
        let mut tick = tokio::time::interval(NOTICE_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tick.reset();
        loop {
            let record = changes.borrow_and_update().clone();
            for epoch in record.curve.iter().skip(reported_epochs) {
                notices.send(Notice::new(record.epoch_line(epoch)));
                tick.reset();
            }
            reported_epochs = record.curve.len();
            if record.interrupted {
                return Err(job_interrupted(self.id()));
            }
            match record.state {
                JobState::Succeeded => return Ok(record),
                JobState::Failed | JobState::Cancelled => {
                    return Err(record
                        .error
                        .as_ref()
                        .map_or_else(job_cancelled, JobError::to_sql_error));
                }
                JobState::Queued | JobState::Running => {}
            }
            tokio::select! {
                () = cancel.cancelled() => {
                    if stops_job {
                        let stops = self.job.stop(statement_cancelled());
                        let ended = changes.wait_for(JobRecord::is_over);
                        if !stops {
                            // Too late: what has become of it is the answer.
                            let _ = ended.await;
                            continue;
                        }
                        // Answer in time even if a long step still runs; the job is stopped after it in any case.
                        let _ = tokio::time::timeout(CANCEL_PATIENCE, ended).await;
                    }
                    return Err(match self.job.is_interrupted() {
                        true => job_interrupted(self.id()),
                        false => statement_cancelled(),
                    });
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(job_cancelled());
                    }
                }
                _ = tick.tick() => {
                    let record = self.job.record();
                    match record.state {
                        JobState::Queued if !said_queued => {
                            said_queued = true;
                            notices.send(Notice::new(format!("job {} waits for the device {}", record.id, record.device)));
                        }
                        JobState::Running if record.step > 0 && reported_step != (record.epoch, record.step) => {
                            reported_step = (record.epoch, record.step);
                            notices.send(Notice::new(record.progress_line()));
                        }
                        JobState::Queued | JobState::Running | JobState::Succeeded | JobState::Failed | JobState::Cancelled => {}
                    }
                }
            }
        }
    }
}

/// A vanished client drops the statement's future: its job goes with it.
struct StopOnDrop<'a> {
    job: Option<&'a Arc<LiveJob>>,
}

impl StopOnDrop<'_> {
    fn disarm(mut self) {
        self.job = None;
    }
}

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(job) = self.job {
            job.stop(statement_cancelled());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record() -> JobRecord {
        JobRecord {
            id: 3,
            kind: JobKind::Build,
            state: JobState::Running,
            model: "m".to_owned(),
            statement: "BUILD MODEL m".to_owned(),
            user: "u".to_owned(),
            device: "cpu".to_owned(),
            images: 40_000,
            epoch: 2,
            epochs: 5,
            step: 31,
            steps: 156,
            loss: Some(3.214),
            images_per_second: Some(412.4),
            remaining_seconds: Some(80.2),
            submitted_at: 1,
            started_at: Some(2),
            finished_at: None,
            error: None,
            curve: Vec::new(),
            resumable: false,
            interruptions: 0,
            fruitless: 0,
            note: None,
            fingerprint: None,
            decoding: 0,
            interrupted: false,
        }
    }

    #[test]
    fn progress_in_one_line() {
        assert_eq!(
            record().progress_line(),
            "epoch 2/5, step 31/156, loss 3.214, 412 images/s, 1 min 20 s left"
        );
        assert!((record().progress() - (156.0 + 31.0) / 780.0).abs() < 1e-12);
    }

    #[test]
    fn an_epoch_in_one_line() {
        let mut epoch = EpochRecord {
            epoch: 2,
            loss: Some(3.2141),
            chance_loss: Some(4.8442),
            alignment: Some(0.1234),
            uniformity: Some(-1.9876),
            effective_rank: Some(31.26),
            dead_dimensions: Some(0.0234),
            knn_accuracy: Some(0.8125),
            seconds: 61.0,
        };
        assert_eq!(
            record().epoch_line(&epoch),
            "epoch 2/5 done, loss 3.214 (by chance 4.844), kNN accuracy 81.2 %, alignment 0.123, uniformity -1.988, \
             effective rank 31.3, dead dimensions 2.3 %, 1 min 1 s"
        );
        // Without targets, and all vectors zeros.
        epoch.knn_accuracy = None;
        epoch.effective_rank = None;
        assert!(!record().epoch_line(&epoch).contains("kNN"));
        assert!(!record().epoch_line(&epoch).contains("rank"));
    }

    #[test]
    fn epochs_of_older_servers_are_read_and_lack_the_measures() {
        let older = r#"{"epoch":1,"loss":2.5,"knn_accuracy":null,"seconds":0.4}"#;
        let epoch: EpochRecord = serde_json::from_str(older).unwrap();
        assert_eq!((epoch.loss, epoch.chance_loss, epoch.alignment), (Some(2.5), None, None));
        assert_eq!(record().epoch_line(&epoch), "epoch 1/5 done, loss 2.500, 0 s");
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (0.4, "0 s"),
            (59.4, "59 s"),
            (60.0, "1 min 0 s"),
            (7_500.0, "2 h 5 min"),
            (-1.0, "0 s"),
        ] {
            assert_eq!(duration_text(seconds), text);
        }
    }

    #[test]
    fn a_record_survives_being_stored_even_with_a_loss_that_is_no_number() {
        let mut before = record();
        before.loss = Some(f64::NAN);
        let json = serde_json::to_vec(&before).unwrap();
        let after: JobRecord = serde_json::from_slice(&json).unwrap();
        assert_eq!(after.loss, None);
        before.loss = None;
        assert_eq!(after, before);
    }

    #[tokio::test]
    async fn cancelling_the_statement_stops_the_job() {
        let job = LiveJob::new(record());
        let handle = JobHandle { job: Arc::clone(&job) };
        let cancel = CancellationToken::new();
        cancel.cancel();
        let stopper = Arc::clone(&job);
        let worker = tokio::spawn(async move {
            stopper.cancel_token().cancelled().await;
            stopper.update(|record| record.state = JobState::Cancelled);
        });
        let error = handle.wait(&cancel, &NoticeSender::disconnected()).await.unwrap_err();
        assert_eq!(error.code, SqlState::QUERY_CANCELED);
        worker.await.unwrap();
        assert_eq!(job.record().state, JobState::Cancelled);
    }

    #[tokio::test]
    async fn a_job_whose_model_is_being_stored_cannot_be_stopped_and_says_what_became_of_it() {
        let job = LiveJob::new(record());
        job.start_storing().unwrap();
        let handle = JobHandle { job: Arc::clone(&job) };
        let cancel = CancellationToken::new();
        cancel.cancel();
        let quiet = NoticeSender::disconnected();
        let mut waiting = std::pin::pin!(handle.wait(&cancel, &quiet));
        // Longer than a cancelled statement has patience with a job that stops.
        let longer = CANCEL_PATIENCE + Duration::from_millis(100);
        assert!(tokio::time::timeout(longer, &mut waiting).await.is_err());
        assert!(!job.cancel_token().is_cancelled());
        job.update(|record| record.state = JobState::Succeeded);
        assert_eq!(waiting.await.unwrap().state, JobState::Succeeded);

        let stopped = LiveJob::new(record());
        assert!(stopped.stop(job_cancelled()));
        assert_eq!(stopped.start_storing().unwrap_err().code, SqlState::QUERY_CANCELED);
    }

    #[tokio::test]
    async fn a_dropped_wait_stops_the_job_and_a_dropped_watch_does_not() {
        let job = LiveJob::new(record());
        let quiet = NoticeSender::disconnected();
        let cancel = CancellationToken::new();
        let watch = JobHandle { job: Arc::clone(&job) };
        let short = Duration::from_millis(5);
        assert!(tokio::time::timeout(short, watch.watch(&cancel, &quiet)).await.is_err());
        assert!(!job.cancel_token().is_cancelled());
        let wait = JobHandle { job: Arc::clone(&job) };
        assert!(tokio::time::timeout(short, wait.wait(&cancel, &quiet)).await.is_err());
        assert!(job.cancel_token().is_cancelled());
    }
}
