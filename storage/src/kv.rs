//! The engine: sled 0.34.7, and nothing of it outside this file.
//!
//! Why sled 0.34.7 and not the 1.0 alpha: with 64 KiB values the alpha writes three times more slowly and takes
//! 172 ms for a small insert that is flushed, where 0.34.7 takes half a millisecond.
//!
//! What the rest of the crate relies on:
//!
//! - *Prefix order.* sled is one log. After a crash it holds every write up to some point and none after it, and a
//!   batch wholly or not at all. So a record that names pieces need only be written after them.
//! - *Checksums.* Every value is framed as `crc32(key, payload)` and payload. A value that was changed, or that came
//!   to stand under another key, is [`StorageError::Corrupt`]; it is never handed out.
//! - *No panics.* sled asserts its own invariants. Each call is wrapped, and a panic inside becomes an error.
//! - *No silent loss.* sled takes a damaged record in its log for the torn end of a crash and forgets everything after
//!   it. Each flush therefore counts up a number in the log and then writes the same number to a file of its own
//!   ([`crate::witness`]); a log that has gone back behind the file is damaged, and the store does not open.
//! - *Write stop.* After a failed write this process's memory and the disk may differ, so every later write is
//!   refused until the store is opened anew.
//!
//! The background thread of sled stays on (it is what reclaims segments); it decides nothing about durability, since a
//! commit flushes by itself.
//!
//! What a flush means: sled writes the log and waits for the disk with `sync_file_range`; pages above 128 KiB are files
//! of their own which it does not sync. So a commit that returned survives the death of the process, by whatever signal, at
//! once, and the failure of the machine once the kernel has written its pages back (sled's thread syncs the log twice a
//! second).
//!
//! Left out: reading in bulk without copies, compression, giving space back to the file system (sled cannot).

use std::fs::{File, OpenOptions, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Result, StorageError};
use crate::keys::{Counter, Family, Key, Room};
use crate::witness::Witness;

/// The longest payload that makes a value of 64 KiB with its checksum.
pub(crate) const MAX_PIECE_BYTES: usize = 64 * 1024 - CHECKSUM_BYTES;

const CHECKSUM_BYTES: usize = 4;

/// How often sled's thread wakes up to write what is buffered and to reclaim segments.
const BACKGROUND_INTERVAL: Duration = Duration::from_millis(500);

/// How long opening waits for sled's threads of an earlier store in this process to let go of the file.
const REOPEN_PATIENCE: Duration = Duration::from_secs(3);

/// The open engine.
pub(crate) struct Kv {
    db: sled::Db,
    meta: sled::Tree,
    packs: sled::Tree,
    pieces: sled::Tree,
    path: PathBuf,
    /// Number of the last flush.
    flushes: Mutex<u64>,
    witness: Witness,
    stopped: AtomicBool,
    /// Held as long as the engine is open; declared last, so that it is let go last.
    _lock: File,
}

/// A value whose checksum was right.
pub(crate) struct Record(sled::IVec);

impl std::ops::Deref for Record {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[CHECKSUM_BYTES..]
    }
}

/// Changes to the `meta` room that are applied together or not at all.
#[derive(Default)]
pub(crate) struct Changes {
    batch: sled::Batch,
}

impl Changes {
    /// Sets a record.
    pub(crate) fn put(&mut self, key: &Key, payload: &[u8]) {
        debug_assert_eq!(key.room(), Room::Meta);
        let key = key.bytes();
        let value = frame(&key, payload);
        self.batch.insert(key, value);
    }

    /// Takes a record away.
    pub(crate) fn remove(&mut self, key: &Key) {
        debug_assert_eq!(key.room(), Room::Meta);
        self.batch.remove(key.bytes());
    }
}

impl Kv {
    /// Opens the engine in a folder, which is created when it is absent.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Kv> {
        let lock = lock(path)?;
        let config = sled::Config::new()
            .path(path.join("data"))
            .cache_capacity(cache_bytes.max(1 << 20))
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(BACKGROUND_INTERVAL.as_millis() as u64));
        let started = Instant::now();
        let db = loop {
            match guarded("open", || config.open()) {
                Ok(db) => break db,
                Err(error) if is_lock_refusal(&error) && started.elapsed() < REOPEN_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) if is_lock_refusal(&error) => {
                    return Err(StorageError::Locked { path: path.to_owned() });
                }
                Err(error) => return Err(error),
            }
        };
        let meta = guarded("open", || db.open_tree("meta"))?;
        let packs = guarded("open", || db.open_tree("packs"))?;
        let pieces = guarded("open", || db.open_tree("pieces"))?;
        let witness = Witness::open(path)?;
        let mut kv = Kv {
            db,
            meta,
            packs,
            pieces,
            path: path.to_owned(),
            flushes: Mutex::new(0),
            witness,
            stopped: AtomicBool::new(false),
            _lock: lock,
        };
        let flushes = kv.counter(Counter::Flush)?;
        kv.witness.check(flushes)?;
        kv.flushes = Mutex::new(flushes);
        Ok(kv)
    }

    /// The record under a key.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Record>> {
        let bytes = key.bytes();
        let tree = self.tree(key.room());
        match guarded("read", || tree.get(&bytes))? {
            None => Ok(None),
            Some(value) => Ok(Some(checked(&bytes, value, || format!("{key:?}"))?)),
        }
    }

    /// Sets one record.
    pub(crate) fn put(&self, key: &Key, payload: &[u8]) -> Result<()> {
        let bytes = key.bytes();
        let value = frame(&bytes, payload);
        let tree = self.tree(key.room());
        self.writing(|| guarded("write to", || tree.insert(bytes, value)).map(drop))
    }

    /// Takes one record away; it may be absent.
    pub(crate) fn remove(&self, key: &Key) -> Result<()> {
        let bytes = key.bytes();
        let tree = self.tree(key.room());
        self.writing(|| guarded("write to", || tree.remove(bytes)).map(drop))
    }

    /// Applies changes together: after a crash all of them are there or none.
    pub(crate) fn apply(&self, changes: Changes) -> Result<()> {
        self.writing(|| guarded("write to", || self.meta.apply_batch(changes.batch)))
    }

    /// All records of a family, in key order.
    pub(crate) fn scan(&self, family: Family) -> Result<Vec<(Key, Record)>> {
        let mut found = Vec::new();
        for (bytes, value) in self.raw_scan(family)? {
            let key = family.parse(&bytes).ok_or_else(|| {
                StorageError::corrupt(format!("a key of the family {family:?} does not parse"))
            })?;
            let record = checked(&bytes, value, || format!("{key:?}"))?;
            found.push((key, record));
        }
        Ok(found)
    }

    /// Deletes all records of a family, whatever their checksums say; returns how many there were.
    pub(crate) fn clear(&self, family: Family) -> Result<usize> {
        let tree = self.tree(family.room());
        let mut removed = 0;
        let keys: Vec<sled::IVec> =
            guarded("read", || tree.scan_prefix(family.prefix()).keys().collect())?;
        for key in keys {
            self.writing(|| guarded("write to", || tree.remove(key)).map(drop))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Returns once everything written before the call is on disk.
    pub(crate) fn flush(&self) -> Result<()> {
        let mut flushes = self.flushes.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *flushes + 1;
        self.put(&Key::Counter(Counter::Flush), &number.to_le_bytes())?;
        self.writing(|| {
            guarded("flush", || self.db.flush()).map(drop)?;
            self.witness.write(number)
        })?;
        *flushes = number;
        Ok(())
    }

    /// The value of a counter, 0 when it was never set.
    pub(crate) fn counter(&self, counter: Counter) -> Result<u64> {
        match self.get(&Key::Counter(counter))? {
            None => Ok(0),
            Some(record) => <[u8; 8]>::try_from(&*record).map(u64::from_le_bytes).map_err(|_| {
                StorageError::corrupt(format!("the counter {counter:?} is not a number"))
            }),
        }
    }

    /// Bytes that the engine's files take.
    pub(crate) fn size_on_disk(&self) -> Result<u64> {
        guarded("measure", || self.db.size_on_disk())
    }

    /// Number of values in the two rooms that hold data.
    #[cfg(test)]
    pub(crate) fn data_values(&self) -> usize {
        self.packs.len() + self.pieces.len()
    }

    /// Changes one byte of a stored value behind the checksum's back.
    #[cfg(test)]
    pub(crate) fn flip_byte(&self, key: &Key, at: usize) {
        let tree = self.tree(key.room());
        let mut value = tree.get(key.bytes()).unwrap().unwrap().to_vec();
        value[at] ^= 0x20;
        tree.insert(key.bytes(), value).unwrap();
    }

    /// Copies a value with its checksum to another key of the same room.
    #[cfg(test)]
    pub(crate) fn copy_raw(&self, from: &Key, to: &Key) {
        let tree = self.tree(from.room());
        let value = tree.get(from.bytes()).unwrap().unwrap();
        tree.insert(to.bytes(), value).unwrap();
    }

    /// The folder of the store.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn tree(&self, room: Room) -> &sled::Tree {
        match room {
            Room::Meta => &self.meta,
            Room::Packs => &self.packs,
            Room::Pieces => &self.pieces,
        }
    }

    fn raw_scan(&self, family: Family) -> Result<Vec<(sled::IVec, sled::IVec)>> {
        let tree = self.tree(family.room());
        guarded("read", || tree.scan_prefix(family.prefix()).collect())
    }

    /// Runs a write unless writing has stopped; stops it when this one fails.
    fn writing<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(StorageError::Stopped);
        }
        write().inspect_err(|error| {
            tracing::error!(%error, "a write failed; the store takes no more writes");
            self.stopped.store(true, Ordering::Release);
        })
    }
}

/// Takes the store's own lock. sled has one too, but answers a second opener with an error that cannot be told from
/// others, and lets go of it late.
fn lock(path: &Path) -> Result<File> {
    std::fs::create_dir_all(path).map_err(|source| StorageError::Io {
        action: "create",
        path: path.to_owned(),
        source,
    })?;
    let file_path = path.join("lock");
    let io_error = |action| {
        let path = file_path.clone();
        move |source| StorageError::Io { action, path, source }
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file_path)
        .map_err(io_error("open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock")(source)),
    }
}

/// sled names a held lock only in the text of an I/O error.
fn is_lock_refusal(error: &StorageError) -> bool {
    matches!(error, StorageError::Engine { source, .. } if source.to_string().contains("could not acquire lock"))
}

/// Runs an engine call; its errors and its panics become ours.
fn guarded<T>(action: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Corruption { at, .. })) => Err(StorageError::Corrupt {
            what: match at {
                Some(at) => format!("the engine found a wrong checksum at {at:?}"),
                None => "the engine found a wrong checksum".to_owned(),
            },
        }),
        Ok(Err(sled::Error::ReportableBug(what))) => Err(StorageError::Corrupt { what }),
        Ok(Err(error)) => Err(StorageError::Engine { action, source: Box::new(error) }),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "no message".to_owned());
            Err(StorageError::Corrupt { what: format!("the engine gave up: {what}") })
        }
    }
}

/// Checksum and payload in one value.
fn frame(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CHECKSUM_BYTES + payload.len());
    value.extend_from_slice(&checksum(key, payload).to_le_bytes());
    value.extend_from_slice(payload);
    value
}

/// The record, when its checksum is right.
fn checked(key: &[u8], value: sled::IVec, name: impl FnOnce() -> String) -> Result<Record> {
    let Some((stored, payload)) = value.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(StorageError::corrupt(format!("{} is cut off", name())));
    };
    if u32::from_le_bytes(*stored) != checksum(key, payload) {
        return Err(StorageError::corrupt(format!("{} has a wrong checksum", name())));
    }
    Ok(Record(value))
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}
