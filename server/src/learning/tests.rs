//! The learning side from end to end, on drawn digits: trainings, their records, and embedding beside them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thanosql_ml::digits::{DigitsDataset, write_dataset};
use thanosql_ml::{DeviceChoice, ImageSet};
use thanosql_protocol::NoticeSender;
use thanosql_storage::StoreOptions;

use super::*;

struct Place {
    folder: tempfile::TempDir,
    digits: DigitsDataset,
}

impl Place {
    fn with_digits(count: usize) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let digits = write_dataset(&folder.path().join("digits"), count, 4, 1).unwrap();
        Place { folder, digits }
    }

    fn store(&self) -> Store {
        let options = StoreOptions { sled_cache_bytes: 16 << 20, column_cache_bytes: 16 << 20 };
        Store::open(&self.folder.path().join("store"), options).unwrap()
    }

    fn request(&self, name: &str, epochs: u32) -> BuildRequest {
        let rows = self.digits.train.iter().map(|file| TrainingRow {
            image: ImageSource::Path(file.path.clone()),
            path: Some(file.path.to_string_lossy().into_owned()),
            filename: None,
            target: Some(file.label.to_string()),
        });
        BuildRequest {
            name: name.to_owned(),
            statement: format!("BUILD MODEL {name}"),
            user: "tester".to_owned(),
            overwrite: false,
            options: TrainOptions {
                max_epochs: epochs,
                batch_size: Some(16),
                seed: 3,
                ..TrainOptions::default()
            },
            options_given: serde_json::json!({ "max_epochs": epochs }),
            image_size: None,
            color: None,
            on_error: OnError::Fail,
            rows: rows.collect(),
            image_col: "img_path".to_owned(),
            fname_col: None,
            target: Some(TargetColumn::of(&arrow::datatypes::Field::new(
                "label",
                arrow::datatypes::DataType::Int64,
                true,
            ))),
            device: None,
            pretrained: false,
            start: None,
        }
    }
}

fn learning(store: &Store) -> Arc<Learning> {
    let options = LearningOptions {
        device: DeviceChoice::Cpu,
        embed_batch: 8,
        // Trainings that go on ask again whether they may read their files.
        files: FileAccess::new(&[std::env::temp_dir()]).unwrap(),
        ..LearningOptions::default()
    };
    Learning::start(store.clone(), options).unwrap()
}

async fn finish(handle: JobHandle) -> Result<JobRecord, SqlError> {
    handle.wait(&CancellationToken::new(), &NoticeSender::disconnected()).await
}

/// Waits until the job trains, so that what follows happens between its steps.
async fn wait_for_a_step(handle: &JobHandle) {
    let start = Instant::now();
    while handle.record().step == 0 {
        assert!(start.elapsed() < Duration::from_secs(120), "no step: {:?}", handle.record());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn paths(paths: &[PathBuf]) -> Vec<ImageSource> {
    paths.iter().cloned().map(ImageSource::Path).collect()
}

fn broken(folder: &Path) -> PathBuf {
    let path = folder.join("글.jpg");
    std::fs::write(&path, "no image").unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_trained_stored_and_used() {
    let place = Place::with_digits(40);
    let store = place.store();
    let learning = learning(&store);
    let handle = learning.submit(place.request("m", 2)).unwrap();
    assert!(
        store.snapshot().model("m").is_none(),
        "a model appears when it is finished, not before"
    );
    let record = finish(handle).await.unwrap();
    assert_eq!(record.state, JobState::Succeeded);
    assert_eq!(record.curve.len(), 2);
    assert!((record.progress() - 1.0).abs() < f64::EPSILON);
    assert_eq!(
        learning.jobs(),
        std::slice::from_ref(&record),
        "the stored record is the one that was waited for"
    );

    let entry = store.snapshot().model("m").unwrap();
    let metadata = ModelMetadata::read(&entry).unwrap();
    assert_eq!((metadata.images, metadata.skipped, metadata.job), (40, 0, Some(record.id)));
    assert_eq!(metadata.curve.len(), 2);
    assert_eq!(metadata.fingerprint.len(), 64);
    assert_eq!(metadata.input, model::InputMetadata { size: 28, color: "gray".to_owned() });
    let rows = learning.training_rows(&entry).unwrap();
    let row = rows.find(place.digits.train[7].path.to_str().unwrap()).unwrap();
    assert_eq!(rows.targets().value(row), place.digits.train[7].label.to_string());

    // More images than a batch, one of them broken in the middle.
    let cancel = CancellationToken::new();
    let mut files: Vec<PathBuf> =
        place.digits.train.iter().take(19).map(|file| file.path.clone()).collect();
    let all = learning.embed(&entry, paths(&files), OnError::Fail, None, &cancel).await.unwrap();
    assert_eq!(all.dim, metadata.embedding_dim);
    assert_eq!(all.vectors.len(), 19 * all.dim);
    assert!(all.ok.iter().all(|ok| *ok));
    files.insert(9, broken(place.folder.path()));
    let error =
        learning.embed(&entry, paths(&files), OnError::Fail, None, &cancel).await.unwrap_err();
    assert_eq!(error.code, SqlState::INVALID_BINARY_REPRESENTATION);
    let skipping =
        learning.embed(&entry, paths(&files), OnError::Skip, Some(4), &cancel).await.unwrap();
    let bad: Vec<usize> = (0..20).filter(|row| !skipping.ok[*row]).collect();
    assert_eq!(bad, [9]);
    for (row, file) in (0..20).filter(|row| *row != 9).enumerate() {
        let expected = &all.vectors[row * all.dim..(row + 1) * all.dim];
        let found = &skipping.vectors[file * all.dim..(file + 1) * all.dim];
        let difference = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4, "row {row}: {difference}");
    }
    cancel.cancel();
    let error =
        learning.embed(&entry, paths(&files), OnError::Skip, None, &cancel).await.unwrap_err();
    assert_eq!(error.code, SqlState::QUERY_CANCELED);

    let taken = learning.submit(place.request("m", 1)).unwrap_err();
    assert_eq!(taken.code, SqlState::DUPLICATE_OBJECT);
    let again =
        BuildRequest { overwrite: true, start: Some(entry.clone()), ..place.request("m", 1) };
    let record = finish(learning.submit(again).unwrap()).await.unwrap();
    assert_eq!(record.kind, JobKind::Fit);
    let newer = store.snapshot().model("m").unwrap();
    assert!(newer.version() > entry.version());
    let mark = |entry| Mark::of(&vector_field("v", entry, 1));
    assert!(mark(&entry).is_some());
    assert_ne!(mark(&entry), mark(&newer));
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedding_goes_between_the_steps_of_a_training_that_is_then_cancelled() {
    let place = Place::with_digits(64);
    let store = place.store();
    let learning = learning(&store);
    finish(learning.submit(place.request("small", 0)).unwrap()).await.unwrap();
    let entry = store.snapshot().model("small").unwrap();

    let long = learning.submit(place.request("long", 10_000)).unwrap();
    let queued = learning.submit(place.request("queued", 1)).unwrap();
    wait_for_a_step(&long).await;
    let cancel = CancellationToken::new();
    let images = paths(&[place.digits.test[0].path.clone()]);
    let embedded = learning.embed(&entry, images, OnError::Fail, None, &cancel);
    let embedded = tokio::time::timeout(Duration::from_secs(30), embedded)
        .await
        .expect("the training lets it through");
    assert_eq!(embedded.unwrap().ok, [true]);
    assert_eq!(long.record().state, JobState::Running);

    // A queued job that is cancelled ends although the device is busy.
    learning.cancel(queued.id()).unwrap();
    let error =
        tokio::time::timeout(Duration::from_secs(30), finish(queued)).await.unwrap().unwrap_err();
    assert_eq!(error.code, SqlState::QUERY_CANCELED);
    assert_eq!(long.record().state, JobState::Running);

    let id = long.id();
    learning.cancel(id).unwrap();
    let error =
        tokio::time::timeout(Duration::from_secs(30), finish(long)).await.unwrap().unwrap_err();
    assert_eq!(error.code, SqlState::QUERY_CANCELED);
    assert!(store.snapshot().model("long").is_none());
    assert_eq!(learning.cancel(id).unwrap_err().code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(learning.cancel(999).unwrap_err().code, SqlState::UNDEFINED_OBJECT);
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_several_statements_go_through_the_encoder_together() {
    let place = Place::with_digits(24);
    let store = place.store();
    let learning = learning(&store);
    finish(learning.submit(place.request("m", 1)).unwrap()).await.unwrap();
    let entry = store.snapshot().model("m").unwrap();
    let files: Vec<PathBuf> = place.digits.train.iter().map(|file| file.path.clone()).collect();
    let cancel = CancellationToken::new();
    let all = learning.embed(&entry, paths(&files), OnError::Fail, None, &cancel).await.unwrap();
    let singly = files.iter().map(|file| {
        learning.embed(&entry, paths(std::slice::from_ref(file)), OnError::Fail, None, &cancel)
    });
    for (row, one) in futures::future::try_join_all(singly).await.unwrap().iter().enumerate() {
        let expected = &all.vectors[row * all.dim..(row + 1) * all.dim];
        for (one, expected) in one.vectors.iter().zip(expected) {
            assert!((one - expected).abs() < 1e-4, "image {row}: {one} and {expected}");
        }
        assert_eq!((one.vectors.len(), one.ok.as_slice()), (all.dim, [true].as_slice()));
    }

    // What fits into a batch goes together; the rest keeps its turn.
    let worker = learning.worker(learning.shared.options.device).unwrap();
    let model = learning.load_encoder(&entry, &worker).unwrap();
    let (batch, len) = (model.batch(), model.input().image_len());
    let permits = Arc::new(tokio::sync::Semaphore::new(8));
    let mut answers = Vec::new();
    let views = Purpose::ViewDistances(ViewRecipe::of(&serde_json::Value::Null));
    let mut waiting: VecDeque<EmbedTask> = [
        (Purpose::Vectors, 1),
        (Purpose::Vectors, batch - 2),
        (views, 1),
        (Purpose::Vectors, 2),
        (Purpose::Vectors, 1),
    ]
    .into_iter()
    .map(|(purpose, count)| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        answers.push(answer);
        EmbedTask {
            purpose,
            model: Arc::clone(&model),
            images: ImageSet::new(model.input(), vec![0; count * len]).unwrap(),
            cancel: CancellationToken::new(),
            reply,
            permit: Arc::clone(&permits).try_acquire_owned().unwrap(),
        }
    })
    .collect();
    let mut groups = Vec::new();
    while !waiting.is_empty() {
        let together = worker::take_together(&mut waiting);
        groups.push(together.iter().map(|task| task.images.len()).collect::<Vec<_>>());
    }
    assert_eq!(groups, [vec![1, batch - 2, 1], vec![1], vec![2]]);
    learning.shutdown().await;
}

/// The weights of a model without its history, to be compared.
fn weights(store: &Store, name: &str) -> Vec<u8> {
    store.snapshot().model(name).unwrap().part(model::WEIGHTS_PART).unwrap()
}

/// Waits until the job has an epoch behind it.
async fn wait_for_an_epoch(handle: &JobHandle) {
    let start = Instant::now();
    while handle.record().curve.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(120), "no epoch: {:?}", handle.record());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_interrupts_a_training_that_the_next_server_ends_bit_by_bit() {
    let place = Place::with_digits(64);
    let store = place.store();
    let first = learning(&store);
    finish(first.submit(place.request("whole", 40)).unwrap()).await.unwrap();
    let handle = first.submit(place.request("m", 40)).unwrap();
    let queued = first.submit(place.request("q", 1)).unwrap();
    let (id, queued_id) = (handle.id(), queued.id());
    wait_for_an_epoch(&handle).await;
    tokio::time::timeout(Duration::from_secs(30), first.shutdown()).await.unwrap();
    for handle in [handle, queued] {
        let error = finish(handle).await.unwrap_err();
        assert_eq!(error.code, SqlState::ADMIN_SHUTDOWN);
        assert!(error.hint.unwrap().contains("goes on"));
    }
    assert_eq!(first.submit(place.request("m", 1)).unwrap_err().code, SqlState::ADMIN_SHUTDOWN);
    assert!(store.snapshot().model("m").is_none());
    let record = first.stored_job(id).unwrap();
    assert_eq!((record.state, record.interruptions), (JobState::Queued, 1));
    assert_eq!(record.note.as_deref(), Some("interrupted when the server was stopped"));
    assert!(record.error.is_none() && record.finished_at.is_none());
    let record = first.stored_job(queued_id).unwrap();
    assert_eq!((record.state, record.interruptions, record.note), (JobState::Queued, 0, None));
    drop(first);

    let second = learning(&store);
    let record = finish(second.handle(id).unwrap()).await.unwrap();
    assert_eq!((record.state, record.curve.len()), (JobState::Succeeded, 40));
    let note = record.note.unwrap();
    assert!(
        note.starts_with("interrupted when the server was stopped; went on after epoch"),
        "{note}"
    );
    assert_eq!(weights(&store, "m"), weights(&store, "whole"));
    finish(second.handle(queued_id).unwrap()).await.unwrap();
    assert!(store.snapshot().model("q").is_some());
    assert!(store.jobs_with_kept().unwrap().is_empty(), "what was kept is removed");
    second.shutdown().await;
}

/// As a crash leaves a job behind: its record says that it runs, and what it was asked for is kept.
async fn crashed(place: &Place, store: &Store, request: BuildRequest) -> u64 {
    let before = learning(store);
    let handle = before.submit(request).unwrap();
    let id = handle.id();
    wait_for_an_epoch(&handle).await;
    before.shutdown().await;
    let mut record = before.stored_job(id).unwrap();
    record.state = JobState::Running;
    record.interruptions = 0;
    record.note = None;
    before.shared.store_job(&record).unwrap();
    assert!(place.folder.path().exists());
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_training_with_a_checkpoint_or_without() {
    let place = Place::with_digits(64);
    let store = place.store();
    let id = crashed(&place, &store, place.request("m", 30)).await;
    let second = learning(&store);
    let record = finish(second.handle(id).unwrap()).await.unwrap();
    assert_eq!(record.interruptions, 1);
    assert!(record.note.unwrap().contains("without being told to stop; went on after epoch"));
    finish(second.submit(place.request("whole", 30)).unwrap()).await.unwrap();
    assert_eq!(weights(&store, "m"), weights(&store, "whole"));
    second.shutdown().await;
    drop(second);

    // The same with a checkpoint that says nothing: from the beginning is as good.
    let id = crashed(&place, &store, place.request("n", 30)).await;
    store.put_checkpoint(id, b"nonsense").unwrap();
    let third = learning(&store);
    let record = finish(third.handle(id).unwrap()).await.unwrap();
    assert!(record.note.unwrap().ends_with("began again"));
    assert_eq!(record.curve.len(), 30);
    assert_eq!(weights(&store, "n"), weights(&store, "whole"));
    third.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_fails_and_says_why() {
    let place = Place::with_digits(40);
    let store = place.store();
    let first = learning(&store);
    finish(first.submit(place.request("base", 0)).unwrap()).await.unwrap();
    first.shutdown().await;
    drop(first);
    let base = || store.snapshot().model("base");
    let file = &place.digits.train[3].path;
    let bytes = std::fs::read(file).unwrap();
    type Change<'a> = &'a dyn Fn(u64);
    let drop_base = |_: u64| {
        let mut transaction = store.begin();
        transaction.drop_model("base").unwrap();
        transaction.commit().unwrap();
    };
    let other = std::fs::read(&place.digits.train[4].path).unwrap();
    let cases: [(Change<'_>, SqlState, &str); 4] = [
        (
            &|_| std::fs::write(file, &other).unwrap(),
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "changed",
        ),
        (&|_| std::fs::remove_file(file).unwrap(), SqlState::UNDEFINED_FILE, "does not exist"),
        (
            &|job| store.put_request(job, b"nonsense").unwrap(),
            SqlState::DATA_CORRUPTED,
            "was asked for",
        ),
        (
            &drop_base,
            SqlState::UNDEFINED_OBJECT,
            "\"base\", from which the training starts, is gone",
        ),
    ];
    for (change, code, words) in cases {
        let request = BuildRequest { start: base(), ..place.request("m", 1000) };
        let id = crashed(&place, &store, request).await;
        change(id);
        let next = learning(&store);
        let error = finish(next.handle(id).unwrap()).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(words), "{error}");
        next.shutdown().await;
        drop(next);
        // A failed job keeps its error across a restart, and nothing of it is tried again.
        let later = learning(&store);
        let record = later.handle(id).unwrap().record();
        assert_eq!(record.state, JobState::Failed);
        assert_eq!(record.error.unwrap().to_sql_error().message, error.message);
        assert!(store.jobs_with_kept().unwrap().is_empty());
        later.shutdown().await;
        std::fs::write(file, &bytes).unwrap();
    }
    assert!(store.snapshot().model("m").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_the_server_ends_with_again_and_again_fails() {
    let place = Place::with_digits(40);
    let store = place.store();
    let id = crashed(&place, &store, place.request("m", 1000)).await;
    let edit = |change: &dyn Fn(&mut JobRecord)| {
        let mut record: JobRecord =
            serde_json::from_slice(&store.job(id).unwrap().unwrap()).unwrap();
        change(&mut record);
        store.put_job(id, &serde_json::to_vec(&record).unwrap()).unwrap();
    };
    // An epoch was finished since the last time, so this is the first one in vain.
    edit(&|record| record.fruitless = 0);
    let second = learning(&store);
    let handle = second.handle(id).unwrap();
    assert_eq!(handle.record().fruitless, 1);
    wait_for_a_step(&handle).await;
    second.shutdown().await;
    drop(second);
    edit(&|record| {
        record.state = JobState::Running;
        record.fruitless = 2;
    });
    let third = learning(&store);
    let record = third.handle(id).unwrap().record();
    assert_eq!(record.state, JobState::Failed);
    assert!(record.error.unwrap().message.contains("3 times"));
    assert!(store.jobs_with_kept().unwrap().is_empty());
    third.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_does_not_come_back() {
    let place = Place::with_digits(40);
    let store = place.store();
    let id = crashed(&place, &store, place.request("m", 1000)).await;
    // It was cancelled, and the crash came before the job had noticed.
    store.remove_kept(id).unwrap();
    let second = learning(&store);
    let record = second.handle(id).unwrap().record();
    assert_eq!(record.state, JobState::Cancelled);
    // A running one that is cancelled keeps nothing.
    let handle = second.submit(place.request("m", 1000)).unwrap();
    wait_for_an_epoch(&handle).await;
    second.cancel(handle.id()).unwrap();
    assert_eq!(finish(handle).await.unwrap_err().code, SqlState::QUERY_CANCELED);
    assert!(store.jobs_with_kept().unwrap().is_empty());
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_jobs_are_forgotten_and_their_models_stay() {
    let place = Place::with_digits(8);
    let store = place.store();
    let options = LearningOptions {
        device: DeviceChoice::Cpu,
        finished_jobs: 2,
        ..LearningOptions::default()
    };
    let learning = Learning::start(store.clone(), options).unwrap();
    for name in ["a", "b", "c", "d"] {
        finish(learning.submit(place.request(name, 0)).unwrap()).await.unwrap();
    }
    let names: Vec<String> = learning.jobs().into_iter().map(|job| job.model).collect();
    assert_eq!(names, ["c", "d"]);
    assert_eq!(store.snapshot().models().len(), 4);
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_set_over_the_limit_is_refused_before_it_is_decoded() {
    let place = Place::with_digits(40);
    let store = place.store();
    let options = LearningOptions {
        device: DeviceChoice::Cpu,
        max_training_bytes: 40 * 28 * 28 - 1,
        ..LearningOptions::default()
    };
    let learning = Learning::start(store.clone(), options).unwrap();
    let error = finish(learning.submit(place.request("m", 0)).unwrap()).await.unwrap_err();
    assert_eq!(error.code, SqlState::PROGRAM_LIMIT_EXCEEDED);
    let mut smaller = place.request("m", 0);
    smaller.rows.truncate(39);
    finish(learning.submit(smaller).unwrap()).await.unwrap();
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_memory_does_not_hold_teach_the_same() {
    let place = Place::with_digits(40);
    let store = place.store();
    let options = |training_memory_bytes| LearningOptions {
        device: DeviceChoice::Cpu,
        training_memory_bytes,
        scratch: place.folder.path().to_owned(),
        ..LearningOptions::default()
    };
    for (name, memory) in [("in_memory", 40 * 28 * 28), ("in_a_file", 40 * 28 * 28 - 1)] {
        let learning = Learning::start(store.clone(), options(memory)).unwrap();
        finish(learning.submit(place.request(name, 2)).unwrap()).await.unwrap();
        learning.shutdown().await;
    }
    assert_eq!(weights(&store, "in_memory"), weights(&store, "in_a_file"));
    let fingerprint = |name: &str| {
        let entry = store.snapshot().model(name).unwrap();
        ModelMetadata::read(&entry).unwrap().fingerprint
    };
    assert_eq!(fingerprint("in_memory"), fingerprint("in_a_file"));

    // A folder that cannot hold the file fails the job with the system's word for it.
    let options = LearningOptions { scratch: place.folder.path().join("nowhere"), ..options(1) };
    let learning = Learning::start(store.clone(), options).unwrap();
    let error = finish(learning.submit(place.request("m", 0)).unwrap()).await.unwrap_err();
    assert_eq!(error.code, SqlState::UNDEFINED_FILE, "{error}");
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_model_embeds_the_same_under_another_name() {
    let place = Place::with_digits(24);
    let store = place.store();
    let learning = learning(&store);
    finish(learning.submit(place.request("m", 1)).unwrap()).await.unwrap();
    let entry = store.snapshot().model("m").unwrap();
    let file = learning.export(&entry).unwrap();
    assert_eq!(file, learning.export(&entry).unwrap(), "two exports differ");
    let uploaded = learning.uploaded(&file, "n", "somebody", "UPLOAD".to_owned()).unwrap();
    let mut transaction = store.begin();
    transaction.put_model("n", &uploaded.metadata, &uploaded.parts()).unwrap();
    transaction.commit().unwrap();
    let copy = store.snapshot().model("n").unwrap();
    assert_eq!(weights(&store, "n"), weights(&store, "m"));
    let images = || paths(&[place.digits.test[0].path.clone(), place.digits.test[1].path.clone()]);
    let cancel = CancellationToken::new();
    let one = learning.embed(&entry, images(), OnError::Fail, None, &cancel).await.unwrap();
    assert_eq!(one, learning.embed(&copy, images(), OnError::Fail, None, &cancel).await.unwrap());
    let rows = learning.training_rows(&copy).unwrap();
    let row = rows.find(place.digits.train[7].path.to_str().unwrap()).unwrap();
    assert_eq!(rows.targets().value(row), place.digits.train[7].label.to_string());
    // And a training goes on from it.
    let fit = BuildRequest { start: Some(copy), ..place.request("o", 1) };
    assert_eq!(finish(learning.submit(fit).unwrap()).await.unwrap().kind, JobKind::Fit);
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_fails_the_job_and_leaves_nothing() {
    let place = Place::with_digits(8);
    let store = place.store();
    let learning = learning(&store);
    let bad = broken(place.folder.path());
    let mut with_broken = place.request("m", 1);
    with_broken.rows[3].image = ImageSource::Path(bad);
    let mut one = place.request("m", 1);
    one.rows.truncate(1);
    let mut none = place.request("m", 1);
    none.rows.clear();
    let oversized = BuildRequest { image_size: Some(1_000_000), ..place.request("m", 1) };
    for (request, code) in [
        (with_broken.clone(), SqlState::INVALID_BINARY_REPRESENTATION),
        (one, SqlState::INVALID_PARAMETER_VALUE),
        (none, SqlState::INVALID_PARAMETER_VALUE),
        (oversized, SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let handle = learning.submit(request).unwrap();
        let id = handle.id();
        let error = finish(handle).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert_eq!(learning.handle(id).unwrap().record().state, JobState::Failed);
    }
    assert!(store.snapshot().models().is_empty());
    let skipping = BuildRequest { on_error: OnError::Skip, ..with_broken };
    finish(learning.submit(skipping).unwrap()).await.unwrap();
    let metadata = ModelMetadata::read(&store.snapshot().model("m").unwrap()).unwrap();
    assert_eq!((metadata.images, metadata.skipped), (7, 1));
    learning.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_job_of_a_server_that_kept_no_requests_has_failed() {
    let place = Place::with_digits(8);
    let store = place.store();
    let mut record = job::tests::record();
    record.id = store.next_job_id().unwrap();
    store.put_job(record.id, &serde_json::to_vec(&record).unwrap()).unwrap();
    let learning = learning(&store);
    let after = learning.jobs().pop().unwrap();
    assert_eq!(after.state, JobState::Failed);
    assert_eq!(after.error.unwrap().message, "the server stopped while the job ran");
    assert!(after.finished_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_model_was_stored_before_the_crash_has_succeeded() {
    let place = Place::with_digits(8);
    let store = place.store();
    let first = learning(&store);
    let mut record = finish(first.submit(place.request("m", 0)).unwrap()).await.unwrap();
    first.shutdown().await;
    // As it stood in the store between the model's commit and the job's last state.
    record.state = JobState::Running;
    record.finished_at = None;
    store.put_job(record.id, &serde_json::to_vec(&record).unwrap()).unwrap();
    let second = learning(&store);
    assert_eq!(second.handle(record.id).unwrap().record().state, JobState::Succeeded);
}
