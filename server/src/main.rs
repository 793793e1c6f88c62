//! The `thanosql` program: runs the server, the demo or a health check, and chooses the exit code.
//!
//! Exit codes: 0 all is well, 1 it failed, 2 the command line is wrong.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use thanosql_config::{Invocation, LogFormat, LogSettings, Settings};
use thanosql_server::{demo, server, telemetry};
use tokio_util::sync::CancellationToken;

/// Threads of the runtime: a statement that computes for long must not keep others from being cancelled.
const MIN_THREADS: usize = 4;
/// The stack of each: planning recurses with the depth of a statement.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// How long blocking work may take to end after the server has stopped.
const LAST_WORK: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)] // the log may not be set up yet
fn report(error: &anyhow::Error) {
    eprintln!("thanosql: {error:#}");
}

fn start() -> anyhow::Result<()> {
    let invocation = thanosql_config::load()?;
    let threads = std::thread::available_parallelism()
        .map_or(MIN_THREADS, |cores| cores.get().max(MIN_THREADS));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .context("cannot start the threads")?;
    let outcome = runtime.block_on(async {
        match invocation {
            Invocation::Serve(settings) => serve(&settings).await,
            Invocation::Demo(settings) => {
                init_log(&settings.log)?;
                Ok(demo::run(&settings).await?)
            }
            Invocation::Healthcheck(settings) => {
                server::healthcheck(&settings.address, settings.timeout)
                    .await
                    .context("the server does not answer")
            }
        }
    });
    runtime.shutdown_timeout(LAST_WORK);
    outcome
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    init_log(&settings.log)?;
    let listener = server::listen(settings).await?;
    let shutdown = CancellationToken::new();
    tokio::spawn(wait_for_signal(shutdown.clone()));
    server::run(settings, listener, shutdown).await?;
    Ok(())
}

fn init_log(log: &LogSettings) -> anyhow::Result<()> {
    let format = match log.format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    Ok(telemetry::init(&log.filter, format)?)
}

/// SIGTERM and SIGINT stop the server cleanly; a second one ends it at once.
async fn wait_for_signal(shutdown: CancellationToken) {
    let mut first = true;
    loop {
        if let Err(error) = signal().await {
            tracing::error!("cannot wait for signals: {error}");
            return;
        }
        if !first {
            std::process::exit(130);
        }
        first = false;
        tracing::info!("stopping");
        shutdown.cancel();
    }
}

#[cfg(unix)]
async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}

#[cfg(not(unix))]
async fn signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
