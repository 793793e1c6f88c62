//! Job records, requests and checkpoints: durable at once, outside transactions.
//!
//! A job's record says how far the job is, also when the transaction that started it is long gone or the server has crashed;
//! so each put is flushed before it returns. What a record says is its owner's business. A job's
//! request (what it was asked for, with its rows) and its newest checkpoint may be many megabytes ([`crate::kept`]).

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::Store;
use crate::error::{Result, StorageError};
use crate::keys::{Counter, Family, Key};

impl Store {
    /// A job id that was never given before.
    pub fn next_job_id(&self) -> Result<u64> {
        let id = self.inner.next_job.fetch_add(1, Ordering::Relaxed);
        // The log keeps order, so the counter is on disk before any record of the job.
        let _order = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.inner.next_job.load(Ordering::Relaxed);
        self.inner.core.kv.put(&Key::Counter(Counter::Job), &next.to_le_bytes())?;
        Ok(id)
    }

    /// Sets a job's record; durable on return.
    pub fn put_job(&self, id: u64, record: &[u8]) -> Result<()> {
        self.inner.core.kv.put(&Key::Job(id), record)?;
        self.inner.flush()
    }

    /// A job's record.
    pub fn job(&self, id: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.inner.core.kv.get(&Key::Job(id))?.map(|record| record.to_vec()))
    }

    /// All jobs' records, by id.
    pub fn jobs(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        let records = self.inner.core.kv.scan(Family::Jobs)?;
        let mut jobs = Vec::with_capacity(records.len());
        for (key, record) in records {
            if let Key::Job(id) = key {
                jobs.push((id, record.to_vec()));
            }
        }
        Ok(jobs)
    }

    /// Removes a job's record; durable with the next flush. Its number is not given again.
    pub fn remove_job(&self, id: u64) -> Result<()> {
        self.inner.core.kv.remove(&Key::Job(id))
    }

    /// Sets a job's checkpoint in place of the earlier one; durable on return.
    pub fn put_checkpoint(&self, job: u64, bytes: &[u8]) -> Result<()> {
        self.inner.put_kept(&Key::Checkpoint(job), bytes)
    }

    /// A job's checkpoint.
    pub fn checkpoint(&self, job: u64) -> Result<Option<Vec<u8>>> {
        self.inner.kept(&Key::Checkpoint(job))
    }

    /// Sets what a job was asked for; durable on return.
    pub fn put_request(&self, job: u64, bytes: &[u8]) -> Result<()> {
        self.inner.put_kept(&Key::Request(job), bytes)
    }

    /// What a job was asked for.
    pub fn request(&self, job: u64) -> Result<Option<Vec<u8>>> {
        self.inner.kept(&Key::Request(job))
    }

    /// Whether what a job was asked for is kept.
    pub fn has_request(&self, job: u64) -> Result<bool> {
        Ok(self.inner.kept_record(&Key::Request(job))?.is_some())
    }

    /// Removes what is kept of a job besides its record: the request first, so that a job without one is known to be at its end.
    /// Durable on return.
    pub fn remove_kept(&self, job: u64) -> Result<()> {
        self.inner.swap_kept(&Key::Request(job), None)?;
        self.inner.swap_kept(&Key::Checkpoint(job), None)
    }

    /// The jobs of which a request or a checkpoint is kept, in order.
    pub fn jobs_with_kept(&self) -> Result<Vec<u64>> {
        let mut jobs = BTreeSet::new();
        for family in [Family::Requests, Family::Checkpoints] {
            for (key, _) in self.inner.core.kv.scan(family)? {
                if let Key::Request(job) | Key::Checkpoint(job) = key {
                    jobs.insert(job);
                }
            }
        }
        Ok(jobs.into_iter().collect())
    }
}

/// The id after the last job's, from what a store holds.
pub(crate) fn next_job_id(counter: u64, last_job: Option<u64>) -> Result<u64> {
    match last_job {
        None => Ok(counter),
        Some(last) => {
            let next = last.checked_add(1).ok_or(StorageError::Exhausted { what: "job ids" })?;
            Ok(counter.max(next))
        }
    }
}
