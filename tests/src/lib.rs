#![allow(missing_docs, clippy::print_stderr, clippy::print_stdout)] // helpers of tests, named for what they do
//! A real server process for tests: started on a free port over temporary folders, spoken to over the wire, killed at the
//! end. Every test has its own, so that none depends on another's tables.

#![allow(clippy::wildcard_enum_match_arm)] // the enums are other libraries', with far more variants than matter here

pub mod random;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use cargo_metadata;
pub use sqllogictest;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
pub struct TestServer {
    child: Child,
    pub port: u16,
    pub store: PathBuf,
    pub data: PathBuf,
    /// Removed with the server, unless the folders are someone else's.
    _folder: Option<tempfile::TempDir>,
}

impl TestServer {
    /// A server over fresh folders. `program` is the server's executable.
    pub fn start(program: &str) -> TestServer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (store, data) = (folder.path().join("store"), folder.path().join("data"));
        std::fs::create_dir_all(&data).expect("a data folder");
        let mut server = TestServer::start_on(program, &store, &data, &[]);
        server._folder = Some(folder);
        server
    }

    /// A server over given folders, with more flags.
    pub fn start_on(program: &str, store: &Path, data: &Path, flags: &[&str]) -> TestServer {
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu"])
            .arg("--store")
            .arg(store)
            .arg("--data-root")
            .arg(data)
            .args(flags)
            .env_remove("RUST_LOG")
            // Tests ask nobody outside of this machine.
            .env("THANOSQL_DATASET_URL", "off")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        let stderr = child.stderr.take().expect("its log");
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut port = None;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if port.is_none() && line.contains("ready for connections") {
                    port = port_of(&line);
                    let _ = send.send(port);
                }
                if std::env::var_os("THANOSQL_TEST_LOG").is_some() {
                    eprintln!("server: {line}");
                }
            }
        });
        let port = receive
            .recv_timeout(PATIENCE)
            .expect("the server says that it is ready")
            .expect("the line of the log names the port");
        TestServer { child, port, store: store.to_owned(), data: data.to_owned(), _folder: None }
    }

    /// The process, for looking at it from outside.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub async fn connect(&self) -> Client {
        self.try_connect().await.expect("a connection")
    }

    /// A new connection, or why there is none.
    pub async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        let address = format!("host=127.0.0.1 port={} user=tester dbname=test", self.port);
        let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server is gone");
    }

    /// SIGTERM; the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not stop on SIGTERM");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn port_of(line: &str) -> Option<u16> {
    let start = line.find("127.0.0.1:")? + "127.0.0.1:".len();
    let digits: String = line[start..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Runs statements that must succeed.
pub async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)));
}

/// The rows of a simple query as texts.
pub async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {}", describe(&error)));
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

/// The one value of a simple query.
pub async fn value(client: &Client, sql: &str) -> Option<String> {
    rows(client, sql).await.into_iter().next().and_then(|row| row.into_iter().next().flatten())
}

/// The SQLSTATE of a statement that must fail.
pub async fn failure(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(_) => panic!("{sql}: it did not fail"),
        Err(error) => state_of(&error),
    }
}

/// The SQLSTATE of an error.
pub fn state_of(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("no SQLSTATE: {error}"), |code| code.code().to_owned())
}

/// An error with everything that the server said.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!(
            "{} {} (detail {:?}, hint {:?}, position {:?})",
            db.code().code(),
            db.message(),
            db.detail(),
            db.hint(),
            db.position()
        ),
        None => error.to_string(),
    }
}
