//! One thread a device. It runs trainings one after another, and embeds between their steps.
//!
//! ```text
//!  statements --embed--> [ bounded by permits ] --\
//!                                                  worker: embeddings first, then the next job;
//!  statements --submit-> [ jobs, first come     ] --/          between two steps: embeddings, cancelled jobs
//! ```
//!
//! A device computes one thing at a time in any case; one thread makes the order ours and keeps the device's memory
//! bounded. Decoding of images is not done here: embeddings arrive decoded, and a training's images are decoded by the
//! other cores while this thread goes on embedding.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thanosql_ml::{ComputeDevice, ImageSet, Model, ViewRecipe};
use thanosql_protocol::{SqlError, SqlState};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::failure::ml_error;
use super::training::{self, Shared, TrainingTask};

/// How many decoded pieces of embedding work may be in memory at once, waiting ones included.
const EMBED_PIECES: usize = 4;

/// Permits that a full piece takes; a part of one takes its part.
pub(crate) const PIECE_PERMITS: usize = 256;

/// How often the worker looks around while other threads decode a training's images.
const DECODE_POLL: Duration = Duration::from_millis(10);

/// How long an idle worker keeps the memory that the next task could use.
const IDLE_BEFORE_RELEASE: Duration = Duration::from_secs(10);

/// What images go through the encoder for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Their vectors, `[count, embedding_dim]`.
    Vectors,
    /// How far apart two views of each lie, `[count]`.
    ViewDistances(ViewRecipe),
}

impl Purpose {
    /// How many numbers come back an image.
    pub(crate) fn width(&self, model: &Model) -> usize {
        match self {
            Purpose::Vectors => model.embedding_dim(),
            Purpose::ViewDistances(_) => 1,
        }
    }
}

/// Decoded images on their way through the encoder.
pub(crate) struct EmbedTask {
    pub(crate) purpose: Purpose,
    pub(crate) model: Arc<Model>,
    pub(crate) images: ImageSet,
    pub(crate) cancel: CancellationToken,
    pub(crate) reply: oneshot::Sender<Result<Vec<f32>, SqlError>>,
    /// Given back when the task is done.
    pub(crate) permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<TrainingTask>,
    embeds: VecDeque<EmbedTask>,
    stopping: bool,
}

enum Task {
    Embed(Vec<EmbedTask>),
    Train(TrainingTask),
}

/// The device and its queue; the thread holds one reference, whoever hands in work another.
pub(crate) struct Worker {
    device: ComputeDevice,
    queue: Mutex<Queue>,
    wake: Condvar,
    permits: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(crate) fn start(
        device: ComputeDevice,
        shared: Arc<Shared>,
    ) -> std::io::Result<Arc<Worker>> {
        let worker = Arc::new(Worker {
            device,
            queue: Mutex::default(),
            wake: Condvar::new(),
            permits: Arc::new(Semaphore::new(EMBED_PIECES * PIECE_PERMITS)),
            thread: Mutex::new(None),
        });
        let own = Arc::clone(&worker);
        let thread = std::thread::Builder::new()
            .name("device".to_owned())
            .spawn(move || own.run(&shared))?;
        *worker.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(worker)
    }

    pub(crate) fn device(&self) -> &ComputeDevice {
        &self.device
    }

    /// What bounds the decoded images in memory: take permits before decoding, [`PIECE_PERMITS`] for a full piece.
    pub(crate) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// Whether the task was taken: not after [`Worker::stop`].
    pub(crate) fn embed(&self, task: EmbedTask) -> bool {
        let mut queue = self.lock();
        if queue.stopping {
            return false;
        }
        queue.embeds.push_back(task);
        drop(queue);
        self.wake.notify_all();
        true
    }

    /// Puts the task into the queue, in the order in which jobs were filed. Whether it was taken: not after [`Worker::stop`].
    pub(crate) fn train(&self, task: TrainingTask) -> Result<(), Box<TrainingTask>> {
        let mut queue = self.lock();
        if queue.stopping {
            return Err(Box::new(task));
        }
        // One that goes on after the server's end was filed before those of now.
        let id = task.job.id();
        let place = queue.jobs.partition_point(|other| other.job.id() < id);
        queue.jobs.insert(place, task);
        drop(queue);
        self.wake.notify_all();
        Ok(())
    }

    /// Lets the thread end when its queue is empty; the caller has cancelled the jobs. Blocking.
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the device's thread panicked");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, shared: &Shared) {
        while let Some(task) = self.next() {
            match task {
                Task::Embed(tasks) => compute_together(tasks),
                Task::Train(task) => training::run(task, self, shared),
            }
        }
    }

    fn next(&self) -> Option<Task> {
        let mut queue = self.lock();
        let mut keeps_buffers = true;
        loop {
            let together = take_together(&mut queue.embeds);
            if !together.is_empty() {
                return Some(Task::Embed(together));
            }
            if let Some(task) = queue.jobs.pop_front() {
                return Some(Task::Train(task));
            }
            if queue.stopping {
                return None;
            }
            if !keeps_buffers {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.wake.wait_timeout(queue, IDLE_BEFORE_RELEASE);
            let (after, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = after;
            if timeout.timed_out() {
                thanosql_ml::kernels::release_buffers();
                keeps_buffers = false;
            }
        }
    }

    /// Between two steps of a training: the embeddings that wait now, and queued jobs that were cancelled meanwhile.
    /// Embeddings that arrive while these run wait for the next step, so that a training is never starved.
    pub(crate) fn between_steps(&self, shared: &Shared) {
        let (mut embeds, cancelled) = {
            let mut queue = self.lock();
            if queue.embeds.is_empty() && queue.jobs.is_empty() {
                return;
            }
            let embeds = std::mem::take(&mut queue.embeds);
            let (cancelled, jobs) = std::mem::take(&mut queue.jobs)
                .into_iter()
                .partition::<VecDeque<_>, _>(|task| task.job.cancel_token().is_cancelled());
            queue.jobs = jobs;
            (embeds, cancelled)
        };
        while !embeds.is_empty() {
            compute_together(take_together(&mut embeds));
        }
        for task in cancelled {
            training::finish_unstarted(&task, shared);
        }
    }

    /// Runs `work` on a thread of its own and goes on embedding here until it is done.
    pub(crate) fn embed_while<T: Send>(
        &self,
        shared: &Shared,
        work: impl FnOnce() -> T + Send,
    ) -> std::thread::Result<T> {
        std::thread::scope(|scope| {
            let helper = scope.spawn(work);
            while !helper.is_finished() {
                self.between_steps(shared);
                std::thread::park_timeout(DECODE_POLL);
            }
            helper.join()
        })
    }
}

/// The first of those that wait, and the others that can go through the encoder with it: images of other statements for the same model, as many
/// as make a batch. Empty if none waits.
pub(super) fn take_together(waiting: &mut VecDeque<EmbedTask>) -> Vec<EmbedTask> {
    let Some(first) = waiting.pop_front() else { return Vec::new() };
    let mut room = first.model.batch().saturating_sub(first.images.len());
    let (model, wants_vectors) = (Arc::clone(&first.model), first.wants_vectors());
    let mut together = vec![first];
    for task in std::mem::take(waiting) {
        let joins = wants_vectors
            && task.wants_vectors()
            && Arc::ptr_eq(&task.model, &model)
            && task.images.len() <= room;
        if joins {
            room -= task.images.len();
            together.push(task);
        } else {
            waiting.push_back(task);
        }
    }
    together
}

/// Computes what [`take_together`] chose, and answers each. Those that nobody waits for any more are dropped.
fn compute_together(mut tasks: Vec<EmbedTask>) {
    tasks.retain(|task| !task.is_over());
    let mut outcome = catch_unwind(AssertUnwindSafe(|| numbers(&tasks)))
        .unwrap_or_else(|panic| Err(panicked("embedding", &*panic)));
    for task in tasks {
        let count = task.images.len() * task.purpose.width(&task.model);
        let own = outcome.as_mut().map(|numbers| {
            let others = numbers.split_off(count);
            std::mem::replace(numbers, others)
        });
        let EmbedTask { reply, permit, .. } = task;
        drop(permit);
        // Nobody waits any more if the statement has ended.
        let _ = reply.send(own.map_err(|error| error.clone()));
    }
}

/// What comes out of the encoder for all images of tasks that go together, one task after the other.
fn numbers(tasks: &[EmbedTask]) -> Result<Vec<f32>, SqlError> {
    let Some(first) = tasks.first() else { return Ok(Vec::new()) };
    let stop = || tasks.iter().all(EmbedTask::is_over);
    let joined;
    let images = match tasks {
        [only] => &only.images,
        _ => {
            let pixels = tasks.iter().flat_map(|task| task.images.pixels()).copied().collect();
            joined = ImageSet::new(first.images.spec(), pixels)
                .ok_or_else(|| crate::error::internal("images in parts"))?;
            &joined
        }
    };
    match &first.purpose {
        Purpose::Vectors => first.model.embed(images, &stop),
        Purpose::ViewDistances(recipe) => first.model.view_distances(images, recipe, &stop),
    }
    .map_err(ml_error)
}

impl EmbedTask {
    fn wants_vectors(&self) -> bool {
        matches!(self.purpose, Purpose::Vectors)
    }

    /// Whether nobody waits for it any more.
    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.reply.is_closed()
    }
}

/// A panic of a library, as an internal error.
pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> SqlError {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    crate::error::internal(format!("{what} panicked: {text}"))
}

pub(crate) fn shutting_down() -> SqlError {
    SqlError::new(SqlState::ADMIN_SHUTDOWN, "terminating the job due to administrator command")
}
