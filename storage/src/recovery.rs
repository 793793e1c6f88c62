//! Deleting pieces that nothing refers to, and finding them after a crash.
//!
//! The rule is one mark a unit, [`Key::Garbage`], in the engine's single log:
//!
//! ```text
//! transaction            mark(u)  pieces of u  | commit: record names u, mark(u) taken away |
//! a later transaction                          | commit: record lets u go, mark(u) set      | pieces deleted, mark(u) taken away
//! ```
//!
//! The bars are atomic batches. Since a crash keeps a prefix of the log, at every point each unit with pieces is named by
//! a record or has a mark, and never both. Opening a store therefore reads the marks, which are few, instead of
//! looking through all pieces for orphans, which would read the whole store; and the deleting itself is done by a thread
//! after the store is open, so that a start is not slowed by it.
//!
//! Left out: retrying. A unit whose deletion failed keeps its mark and is tried again when the store is next opened.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::error::{Result, StorageError};
use crate::keys::{Family, Key, UnitId};
use crate::kv::Kv;

/// A handle to the thread that deletes units.
#[derive(Clone)]
pub(crate) struct Sweeper {
    orders: Sender<Order>,
}

enum Order {
    Sweep(UnitId),
    /// Answers once everything that was ordered before is done.
    Report(Sender<()>),
    Stop,
}

impl Sweeper {
    /// Starts the thread. It ends when [`Sweeper::stop`] is called.
    pub(crate) fn start(kv: Arc<Kv>) -> Result<(Sweeper, JoinHandle<()>)> {
        let (orders, inbox) = channel();
        let path = kv.path().to_owned();
        let thread = std::thread::Builder::new()
            .name("storage-sweeper".to_owned())
            .spawn(move || run(&kv, &inbox))
            .map_err(|source| StorageError::Io { action: "start a thread for", path, source })?;
        Ok((Sweeper { orders }, thread))
    }

    /// Orders the deletion of a unit that has a mark. After `stop` the unit is left to the next opening.
    pub(crate) fn sweep(&self, unit: UnitId) {
        // A closed channel means that the store is closing; the mark stays.
        let _ = self.orders.send(Order::Sweep(unit));
    }

    /// Orders the deletion of every unit that has a mark in a store that was just opened; returns their number.
    pub(crate) fn sweep_marked(&self, kv: &Kv) -> Result<usize> {
        let marked = kv.scan(Family::Garbage)?;
        for (key, _) in &marked {
            if let Key::Garbage(unit) = key {
                self.sweep(*unit);
            }
        }
        Ok(marked.len())
    }

    /// Waits until everything that was ordered so far is done.
    pub(crate) fn wait(&self) {
        let (done, answer) = channel();
        if self.orders.send(Order::Report(done)).is_ok() {
            // An error means that the thread has stopped, and there is nothing to wait for.
            let _ = answer.recv();
        }
    }

    /// Ends the thread after the unit that it is at.
    pub(crate) fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
    }
}

fn run(kv: &Kv, inbox: &Receiver<Order>) {
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Sweep(unit) => {
                if let Err(error) = delete(kv, unit) {
                    tracing::warn!(unit, %error, "could not delete an unused unit");
                }
            }
            Order::Report(done) => {
                // Nobody listens any more: nothing to do.
                let _ = done.send(());
            }
            Order::Stop => break,
        }
    }
}

fn delete(kv: &Kv, unit: UnitId) -> Result<()> {
    kv.remove(&Key::Pack(unit))?;
    kv.clear(Family::Pieces(unit))?;
    kv.remove(&Key::Garbage(unit))
}
