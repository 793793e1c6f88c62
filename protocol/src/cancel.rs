//! CancelRequest: a second connection names a first one by its number and secret, and the statement that runs there
//! is stopped.
//!
//! The registry knows every living connection. It holds no statement alive: a connection puts the running statement's
//! token in and takes it out again. A wrong number or secret is answered like a right one: not at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::tls::random_bytes;

/// All connections that can be cancelled.
#[derive(Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last_id: i32,
    connections: HashMap<i32, Arc<Entry>>,
}

struct Entry {
    /// Protocol 3.0 hands out the first four bytes, 3.2 all of them.
    secret: [u8; SECRET_BYTES],
    secret_length: usize,
    running: Mutex<Option<CancellationToken>>,
}

/// How long the secret of a protocol 3.2 connection is.
const SECRET_BYTES: usize = 32;

/// One connection's place in the registry, given back when it is dropped.
pub(crate) struct Registration {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    id: i32,
}

impl Registry {
    /// Gives a new connection its number and secret.
    pub(crate) fn register(self: &Arc<Registry>, long_secret: bool) -> Registration {
        let entry = Arc::new(Entry {
            secret: random_bytes(),
            secret_length: if long_secret { SECRET_BYTES } else { 4 },
            running: Mutex::new(None),
        });
        let mut state = lock(&self.state);
        let id = loop {
            state.last_id = state.last_id.checked_add(1).unwrap_or(1);
            if !state.connections.contains_key(&state.last_id) {
                break state.last_id;
            }
        };
        state.connections.insert(id, entry.clone());
        Registration { registry: self.clone(), entry, id }
    }

    /// Stops what runs on the connection of this number, if the secret is right.
    pub(crate) fn cancel(&self, id: i32, secret: &[u8]) -> bool {
        let Some(entry) = lock(&self.state).connections.get(&id).cloned() else {
            return false;
        };
        if !same(&entry.secret[..entry.secret_length], secret) {
            return false;
        }
        let running = lock(&entry.running);
        if let Some(token) = running.as_ref() {
            token.cancel();
        }
        running.is_some()
    }
}

impl Registration {
    pub(crate) fn id(&self) -> i32 {
        self.id
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.entry.secret[..self.entry.secret_length]
    }

    /// Says what a CancelRequest stops from now on.
    pub(crate) fn set_running(&self, token: Option<CancellationToken>) {
        *lock(&self.entry.running) = token;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.registry.state).connections.remove(&self.id);
    }
}

/// Compares without telling by its time how far the two agree.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Every state these locks protect is whole after every statement, so a panic elsewhere leaves nothing broken behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_cancels_only_what_runs() {
        let registry = Arc::new(Registry::default());
        let first = registry.register(false);
        let second = registry.register(true);
        assert_eq!(first.secret().len(), 4);
        assert_eq!(second.secret().len(), 32);
        assert_ne!(first.id(), second.id());

        assert!(!registry.cancel(first.id(), first.secret()), "nothing runs");
        let token = CancellationToken::new();
        first.set_running(Some(token.clone()));
        assert!(!registry.cancel(first.id(), second.secret()));
        assert!(!registry.cancel(first.id(), &[]));
        assert!(!registry.cancel(second.id(), second.secret()));
        assert!(!token.is_cancelled());
        assert!(registry.cancel(first.id(), first.secret()));
        assert!(token.is_cancelled());

        let id = first.id();
        let secret = first.secret().to_vec();
        drop(first);
        assert!(!registry.cancel(id, &secret));
    }
}
