//! Real clients: psql, psycopg, asyncpg, SQLAlchemy and PostgreSQL's JDBC driver, against a real server.

use std::path::Path;
use std::process::Command;

use thanosql_tests::TestServer;

fn psql(server: &TestServer, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new("psql")
        .args([
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &server.port.to_string(),
            "-U",
            "tester",
            "-d",
            "test",
        ])
        .args(arguments)
        .env("PGCONNECT_TIMEOUT", "10")
        .output()
        .expect("psql is installed: tests/run.sh does that");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Runs a program of `tests/clients` against the server. It ends with the word that all is well.
fn python_session(server: &TestServer, program: &str, arguments: &[&Path]) {
    let python = std::env::var("THANOSQL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients");
    let output = Command::new(python)
        .arg(folder.join(program))
        .arg(server.port.to_string())
        .args(arguments)
        .output()
        .expect("Python is installed");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all checks passed"), "{out}\n{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_browses_and_prints() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let digits = thanosql_ml::digits::write_dataset(&server.data.join("digits"), 40, 2, 7).unwrap();
    let copy = format!("COPY mnist_dataset FROM '{}'", digits.table.display());
    let (ok, out, err) = psql(&server, &["-c", &copy]);
    assert!(ok && out.contains("COPY 40"), "{out}{err}");

    let (ok, out, err) = psql(&server, &["-c", "\\dt"]);
    assert!(ok && out.contains("mnist_dataset") && out.contains("table"), "{out}{err}");
    let (ok, out, err) = psql(&server, &["-c", "\\d mnist_dataset"]);
    assert!(ok, "{err}");
    for line in ["img_path", "filename", "label", "text", "bigint"] {
        assert!(out.contains(line), "{line} is missing in {out}");
    }
    for command in [
        "\\d",
        "\\d+ mnist_dataset",
        "\\l",
        "\\dn",
        "\\du",
        "\\df",
        "\\dv",
        "\\dT",
        "\\di",
        "\\conninfo",
    ] {
        let (ok, out, err) = psql(&server, &["-c", command]);
        assert!(ok, "{command}: {out}{err}");
    }

    let print = "PRINT IMAGE OPTIONS (limit=1) AS SELECT img_path FROM mnist_dataset";
    let (ok, out, err) = psql(&server, &["-c", print]);
    assert!(ok && out.contains("preview") && out.contains('█'), "{out}{err}");

    // An error names its SQLSTATE and points at its place.
    let wrong = "BUILD MODEL m USING SimCLR OPTIONS (max_epoch=1) AS SELECT * FROM mnist_dataset";
    let (ok, _, err) = psql(&server, &["-v", "VERBOSITY=verbose", "-c", wrong]);
    assert!(
        !ok && err.contains("22023") && err.contains("max_epochs") && err.contains('^'),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_with_parameters_copy_and_cancel() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    thanosql_ml::digits::write_dataset(&server.data.join("digits"), 400, 2, 7).unwrap();
    python_session(&server, "psycopg_session.py", &[&server.data.join("digits")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_with_parameters_of_all_types() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    python_session(&server, "asyncpg_session.py", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_learns_searches_and_browses() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    thanosql_ml::digits::write_dataset(&server.data.join("digits"), 60, 2, 7).unwrap();
    let driver = std::env::var("THANOSQL_TEST_JDBC")
        .unwrap_or_else(|_| "/usr/share/java/postgresql.jar".to_owned());
    let output = Command::new("java")
        .args(["-cp", &driver])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/clients/JdbcSession.java"))
        .arg(server.port.to_string())
        .arg(server.data.join("digits"))
        .output()
        .expect("Java is installed: tests/run.sh does that");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all checks passed"), "{out}\n{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_with_tables_of_their_own() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    python_session(&server, "orm_session.py", &[]);

    // psql shows keys and checks.
    let table = "CREATE TABLE shown (id int PRIMARY KEY, code text UNIQUE, n int CHECK (n > 0))";
    let (ok, out, err) = psql(&server, &["-c", table, "-c", "\\d shown"]);
    assert!(ok, "{out}{err}");
    for line in [
        "\"shown_pkey\" PRIMARY KEY, btree (id)",
        "\"shown_code_key\" UNIQUE CONSTRAINT, btree (code)",
        "\"shown_n_check\" CHECK (n > 0)",
        "not null",
    ] {
        assert!(out.contains(line), "{line} is missing in {out}");
    }
    let (ok, out, err) = psql(&server, &["-c", "\\di", "-c", "\\d shown_pkey"]);
    assert!(ok && out.contains("shown_code_key"), "{out}{err}");
    let (ok, out, err) =
        psql(&server, &["-At", "-c", "SELECT count(*), 1 FROM shown", "-P", "tuples_only=off"]);
    assert!(ok && out.contains("count|?column?"), "{out}{err}");
}
