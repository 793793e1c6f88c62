//! The container files, as far as they can be checked without an engine: the stages and what they need, the compose files as
//! YAML, and that the program which the build stage makes is one that this workspace builds and that answers its health check.

#![allow(clippy::unwrap_used)] // helpers of tests, too, may end a test

use std::path::{Path, PathBuf};
use std::process::Command;

use thanosql_tests::{TestServer, cargo_metadata};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker")
}

/// The instructions of the Dockerfile: lines with their continuations, without comments.
fn instructions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("Dockerfile")).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

#[test]
fn the_stages_stand_in_order() {
    let instructions = instructions();
    let known = [
        "ARG",
        "FROM",
        "ENV",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    ];
    for (word, _) in &instructions {
        assert!(known.contains(&word.as_str()), "{word} is no instruction that is meant here");
    }
    let stages: Vec<&str> = instructions
        .iter()
        .filter(|(word, _)| word == "FROM")
        .map(|(_, rest)| rest.as_str())
        .collect();
    assert_eq!(stages.len(), 2, "a stage that builds and one that runs");
    assert!(stages[0].ends_with("AS build") && stages[1].contains("slim"));
    let runtime: Vec<&(String, String)> =
        instructions.iter().skip_while(|(_, rest)| rest != stages[1]).collect();
    let has = |word: &str, part: &str| {
        runtime.iter().any(|(found, rest)| found == word && rest.contains(part))
    };
    assert!(has("USER", "thanosql") && !has("USER", "root"));
    assert!(has("HEALTHCHECK", "thanosql\", \"healthcheck"));
    assert!(has("VOLUME", "/data") && has("VOLUME", "/var/lib/thanosql"));
    assert!(has("ENV", "THANOSQL_DATA_ROOT=/data"));
    assert!(has("RUN", "libvulkan1"));
    assert!(has("COPY", "--from=build"));
}

#[test]
fn the_build_stage_builds_what_there_is() {
    let build = instructions()
        .into_iter()
        .find(|(_, rest)| rest.contains("cargo build"))
        .expect("a cargo build")
        .1;
    for flag in ["--release", "--locked", "--package thanosql-server", "--bin thanosql"] {
        assert!(build.contains(flag), "{flag} is missing in {build}");
    }
    let manifest = folder().join("../Cargo.toml");
    let metadata =
        cargo_metadata::MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let server = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "thanosql-server")
        .unwrap();
    assert!(server.targets.iter().any(|target| target.is_bin() && target.name == "thanosql"));
}

#[test]
fn the_health_check_knows_a_server_from_none() {
    let server = TestServer::start(env!("CARGO_BIN_EXE_thanosql"));
    let check = |port: u16| {
        Command::new(env!("CARGO_BIN_EXE_thanosql"))
            .arg("healthcheck")
            .env("THANOSQL_LISTEN", format!("127.0.0.1:{port}"))
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(check(server.port));
    let port = server.port;
    drop(server);
    assert!(!check(port));
}

#[test]
fn the_compose_files_are_yaml_and_say_what_they_must() {
    let python = std::env::var("THANOSQL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(python)
        .arg(folder().join("../tests/clients/compose_files.py"))
        .arg(folder())
        .output()
        .expect("Python is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("all checks passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
