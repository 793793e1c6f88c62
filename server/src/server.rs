//! The server as a whole: settings become parts, parts are wired to each other, and the listener runs until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use thanosql_config::{Settings, UserSecret};
use thanosql_ml::images::ImageLimits;
use thanosql_ml::{DeviceChoice, PrecisionChoice};
use thanosql_protocol::{
    Backend, ClientIdentity, ProtocolError, ProtocolOptions, Secret, Session, SqlError, TlsFiles,
    User,
};
use thanosql_storage::{StorageError, Store, StoreOptions};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::catalog::system::CorrelatedSubqueries;
use crate::exec::checks::Checks;
use crate::exec::datasets::Datasets;
use crate::files::{DataRootError, FileAccess};
use crate::functions::{
    VectorOperators, postgres_functions, round_function, vector_aggregates, vector_functions,
};
use crate::learning::{Learning, LearningError, LearningOptions};
use crate::plan::operators::{CheckedIntegers, PostgresOperators};
use crate::plan::types::PostgresTypes;
use crate::search::VectorIndexes;
use crate::session::ClientSession;
use crate::session::transaction::TableLocks;

/// What keeps the server from starting or going on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The folder of the store cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("cannot open the store {}", path.display())]
    Store {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: StorageError,
    },
    /// A data root cannot be used.
    #[error(transparent)]
    DataRoot(#[from] DataRootError),
    /// The configured device is no device.
    #[error("the setting device cannot be \"{value}\": {reason}")]
    Device {
        /// The value.
        value: String,
        /// Why not.
        reason: String,
    },
    /// Jobs cannot be read.
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// DataFusion refuses its configuration.
    #[error("cannot set up queries")]
    Queries(#[source] datafusion::error::DataFusionError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The listener failed.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Everything that sessions share.
pub struct Server {
    pub(crate) store: Store,
    pub(crate) learning: Arc<Learning>,
    pub(crate) files: FileAccess,
    pub(crate) locks: Arc<TableLocks>,
    pub(crate) checks: Arc<Checks>,
    pub(crate) vector_indexes: Arc<VectorIndexes>,
    /// Functions, optimizer and memory of queries; each session starts with a copy.
    pub(crate) state: SessionState,
    pub(crate) datasets: Arc<Datasets>,
    pub(crate) statement_timeout: Option<Duration>,
}

/// In the store's folder: what GPUs have found out about kernels.
const TUNING_FOLDER: &str = "gpu";

impl Server {
    /// Opens the store and starts the learning side.
    ///
    /// # Errors
    /// Any of [`ServerError`] but those of listening.
    pub fn open(settings: &Settings) -> Result<Arc<Server>, ServerError> {
        for path in [&settings.store, &settings.dataset_dir] {
            std::fs::create_dir_all(path)
                .map_err(|source| ServerError::Folder { path: path.clone(), source })?;
        }
        let options = StoreOptions {
            sled_cache_bytes: settings.sled_cache_bytes,
            column_cache_bytes: settings.column_cache_bytes,
        };
        let store = Store::open(&settings.store, options)
            .map_err(|source| ServerError::Store { path: settings.store.clone(), source })?;
        let mut roots = settings.data_roots.clone();
        if !roots.contains(&settings.dataset_dir) {
            roots.push(settings.dataset_dir.clone());
        }
        let device = settings.device.parse::<DeviceChoice>().map_err(|error| {
            ServerError::Device { value: settings.device.clone(), reason: error.to_string() }
        })?;
        let precision = match settings.precision {
            "full" => PrecisionChoice::Full,
            _ => PrecisionChoice::Auto,
        };
        let files = FileAccess::new(&roots)?;
        thanosql_ml::keep_tuning_in(&settings.store.join(TUNING_FOLDER));
        let learning = Learning::start(
            store.clone(),
            LearningOptions {
                device,
                precision,
                limits: ImageLimits {
                    max_bytes: settings.max_image_bytes,
                    max_pixels: settings.max_image_pixels,
                    max_side: settings.max_image_side,
                },
                model_cache_bytes: settings.model_cache_bytes,
                finished_jobs: settings.finished_jobs,
                training_memory_bytes: settings.training_memory_bytes,
                max_training_bytes: settings.max_training_bytes,
                scratch: settings.store.clone(),
                max_model_file_bytes: settings.max_model_file_bytes,
                pretrained_resnet18: settings.pretrained_resnet18.clone(),
                files: files.clone(),
                ..LearningOptions::default()
            },
        )?;
        let state = query_state(settings).map_err(ServerError::Queries)?;
        let vector_indexes = VectorIndexes::new(store.clone(), settings.index_memory_bytes);
        Ok(Arc::new(Server {
            files,
            learning,
            store,
            vector_indexes: Arc::new(vector_indexes),
            locks: Arc::default(),
            checks: Arc::new(Checks::new(state.clone())),
            state,
            datasets: Arc::new(Datasets::new(
                settings.dataset_dir.clone(),
                settings.dataset_url.clone(),
                settings.model_url.clone(),
            )),
            statement_timeout: settings.statement_timeout,
        }))
    }
}

/// What all queries start from.
fn query_state(settings: &Settings) -> datafusion::common::Result<SessionState> {
    let mut config = SessionConfig::new().with_information_schema(false).with_batch_size(8192);
    let options = config.options_mut();
    // Rows come back in the order in which they are stored unless a query needs otherwise.
    options.optimizer.enable_round_robin_repartition = false;
    options.catalog.create_default_catalog_and_schema = false;
    options.explain.logical_plan_only = false;
    // now() is a timestamp with time zone.
    options.execution.time_zone = Some("UTC".to_string());
    // 1.10 is a numeric, as in PostgreSQL, and keeps its digits.
    options.sql_parser.parse_float_as_decimal = true;
    let memory = usize::try_from(settings.query_memory_bytes).unwrap_or(usize::MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
        .build_arc()?;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_type_planner(Arc::new(PostgresTypes))
        .with_analyzer_rule(Arc::new(CorrelatedSubqueries))
        .with_analyzer_rule(Arc::new(CheckedIntegers))
        .build();
    use datafusion::execution::FunctionRegistry as _;
    for function in vector_functions().into_iter().chain(postgres_functions()) {
        state.register_udf(Arc::new(function))?;
    }
    if let Some(round) = state.scalar_functions().get("round").cloned() {
        state.register_udf(Arc::new(round_function(round)))?;
    }
    let aggregates = vector_aggregates(|name| state.aggregate_functions().get(name).cloned());
    for function in aggregates {
        state.register_udaf(Arc::new(function))?;
    }
    state.register_expr_planner(Arc::new(VectorOperators))?;
    state.register_expr_planner(Arc::new(PostgresOperators))?;
    Ok(state)
}

/// Makes sessions for the protocol.
struct Sessions(Arc<Server>);

#[async_trait]
impl Backend for Sessions {
    async fn connect(&self, client: ClientIdentity) -> Result<Box<dyn Session>, SqlError> {
        Ok(Box::new(ClientSession::new(self.0.clone(), client)?))
    }
}

fn protocol_options(settings: &Settings) -> ProtocolOptions {
    ProtocolOptions {
        max_connections: settings.max_connections,
        max_message_bytes: settings.max_message_bytes,
        login_timeout: settings.login_timeout,
        tls: settings.tls.as_ref().map(|tls| TlsFiles {
            certificate: tls.certificate.clone(),
            private_key: tls.private_key.clone(),
        }),
        users: settings
            .users
            .iter()
            .map(|user| User {
                name: user.name.clone(),
                secret: match &user.secret {
                    UserSecret::Password(password) => Secret::Password(password.clone()),
                    UserSecret::ScramVerifier(verifier) => Secret::ScramVerifier(verifier.clone()),
                },
            })
            .collect(),
        trust_loopback: settings.trust_loopback,
    }
}

/// Listens where the settings say.
///
/// # Errors
/// [`ServerError::Listen`].
pub async fn listen(settings: &Settings) -> Result<TcpListener, ServerError> {
    TcpListener::bind(&settings.listen)
        .await
        .map_err(|source| ServerError::Listen { address: settings.listen.clone(), source })
}

/// Runs the server on a listener until `shutdown` is cancelled; everything is on disk when this returns.
///
/// # Errors
/// Any of [`ServerError`].
pub async fn run(
    settings: &Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let server = tokio::task::block_in_place(|| Server::open(settings))?;
    let backend = Arc::new(Sessions(server.clone()));
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, store = %settings.store.display(), "ready for connections");
    }
    // Trainings are interrupted before the statements that wait for them are cancelled: a cancelled statement cancels its training.
    let ending = CancellationToken::new();
    let interrupter = {
        let (learning, ending) = (server.learning.clone(), ending.clone());
        tokio::spawn(async move {
            shutdown.cancelled().await;
            learning.interrupt();
            ending.cancel();
        })
    };
    let outcome =
        thanosql_protocol::serve(listener, backend, protocol_options(settings), ending).await;
    interrupter.abort();
    server.vector_indexes.shutdown();
    server.learning.shutdown().await;
    tokio::task::block_in_place(|| server.store.flush())
        .map_err(|source| ServerError::Store { path: settings.store.clone(), source })?;
    tracing::info!("stopped");
    outcome.map_err(ServerError::from)
}

/// Asks a server whether it answers: an SSLRequest, which needs no login, must get its one byte.
///
/// # Errors
/// What the connection gives, or `TimedOut`.
pub async fn healthcheck(address: &str, timeout: Duration) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// Length 8, code 80877103.
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let ask = async {
        let mut socket = tokio::net::TcpStream::connect(address).await?;
        socket.write_all(&SSL_REQUEST).await?;
        match socket.read_u8().await? {
            b'S' | b'N' => Ok(()),
            other => Err(std::io::Error::other(format!("the answer starts with byte {other}"))),
        }
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(outcome) => outcome,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}
