//! Accepting connections: how many, how long a login may take, and how everything ends.
//!
//! Two bounds keep strangers from exhausting the server: at most [`MAX_PENDING_LOGINS`] connections may be in the middle
//! of logging in (further ones wait in the system's queue), and at most `max_connections` may be logged in (one more is
//! told 53300). A CancelRequest needs only the first kind of place, so a full server can still be told to cancel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::backend::Backend;
use crate::cancel::Registry;
use crate::error::ProtocolError;
use crate::keepalive;
use crate::login::Login;
use crate::options::ProtocolOptions;
use crate::startup;
use crate::tls::{self, Tls};

/// How many connections may be logging in at the same time.
const MAX_PENDING_LOGINS: usize = 256;
/// The first pause after accepting has failed; it doubles up to [`MAX_BACK_OFF`].
const MIN_BACK_OFF: Duration = Duration::from_millis(5);
/// The longest pause after accepting has failed.
const MAX_BACK_OFF: Duration = Duration::from_secs(1);
/// How long running sessions get to say goodbye at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) options: ProtocolOptions,
    pub(crate) login: Login,
    pub(crate) tls: Option<Tls>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
}

/// Serves clients until `shutdown` is pulled; then running sessions are ended with 57P01 and it returns.
///
/// # Errors
///
/// Before the first client is accepted: a certificate, key or verifier that cannot be used, or an address whose clients
/// need a password while no user is configured. Later: a listening socket that is broken for good.
pub async fn serve(
    listener: TcpListener,
    backend: Arc<dyn Backend>,
    options: ProtocolOptions,
    shutdown: CancellationToken,
) -> Result<(), ProtocolError> {
    let address = listener.local_addr().map_err(ProtocolError::Listen)?;
    let tls = options.tls.as_ref().map(tls::load).transpose()?;
    let login = Login::new(&options, tls.as_ref())?;
    if !login.has_users() && !login.trusts(address.ip()) {
        return Err(ProtocolError::NoUsers { address });
    }
    let max_connections = options.max_connections.min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        backend,
        options,
        login,
        tls,
        registry: Arc::new(Registry::default()),
        sessions: Arc::new(Semaphore::new(max_connections)),
        shutdown: shutdown.clone(),
    });

    tracing::info!(%address, tls = shared.tls.is_some(), "listening");
    let mut connections = JoinSet::new();
    let result = tokio::select! {
        result = accept_all(&listener, &shared, &mut connections) => result,
        () = shutdown.cancelled() => Ok(()),
    };
    drop(listener);

    // The token is pulled also when accepting has failed: nobody is left behind.
    shared.shutdown.cancel();
    let ended = tokio::time::timeout(SHUTDOWN_GRACE, async {
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections did not end in time and are cut"
        );
        connections.shutdown().await;
    }
    tracing::info!(%address, "no longer listening");
    result
}

async fn accept_all(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
) -> Result<(), ProtocolError> {
    let pending = Arc::new(Semaphore::new(MAX_PENDING_LOGINS));
    loop {
        let place = pending.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = accept(listener, connections).await?;
        connections.spawn(connection(shared.clone(), stream, peer, place));
    }
}

/// Accepts one connection. Meanwhile those that have ended are cleared away.
async fn accept(
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
) -> Result<(TcpStream, SocketAddr), ProtocolError> {
    let mut pause = MIN_BACK_OFF;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection ended in a panic");
                }
                continue;
            }
        };
        match accepted {
            Ok(accepted) => return Ok(accepted),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                return Err(ProtocolError::Listen(error));
            }
            Err(error) => {
                // No descriptors or no memory: it may pass. A connection that broke before it was accepted: it has.
                tracing::warn!(%error, ?pause, "cannot accept connections");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_BACK_OFF);
            }
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    let span = tracing::info_span!(
        "connection",
        %peer,
        id = tracing::field::Empty,
        user = tracing::field::Empty,
        database = tracing::field::Empty,
        tls = tracing::field::Empty,
    );
    async {
        if let Err(error) = stream.set_nodelay(true).and_then(|()| keepalive::enable(&stream)) {
            tracing::debug!(%error, "cannot set socket options");
        }
        let Some(connection) = startup::log_in(shared, stream, peer).await else {
            return;
        };
        drop(place);
        connection.serve().await;
    }
    .instrument(span)
    .await;
}
