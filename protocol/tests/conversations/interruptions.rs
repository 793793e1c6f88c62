//! What stops a statement: CancelRequest, a client that has gone, the server's shutdown, a panic.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use crate::mock;
use crate::raw::{RawClient, bind, code_of, cstring, execute, message, parse, sync};

async fn cancel(server: &mock::Server, id: i32, secret: &[u8]) {
    let body = [&80_877_102_u32.to_be_bytes()[..], &id.to_be_bytes(), secret].concat();
    let mut client = RawClient::silent(server.address).await;
    client.send(&message(0, &body)[1..]).await;
    assert!(client.message().await.is_none(), "a cancel request has no answer");
}

/// The answer but for notices.
fn without_notices(answer: Vec<String>) -> Vec<String> {
    answer.into_iter().filter(|line| !line.starts_with("N ")).collect()
}

#[tokio::test]
async fn a_cancel_request_stops_what_runs() {
    let server = mock::start().await;
    for (sql, reads_token) in [("wait", true), ("stubborn", false), ("endless", false)] {
        let mut client = RawClient::connect(server.address).await;
        client.send(&message(b'Q', &cstring(sql))).await;
        server.events.wait_for(&format!("execute {sql}")).await;
        // A wrong secret does nothing.
        cancel(&server, client.id, &[1, 2, 3]).await;
        let started = Instant::now();
        cancel(&server, client.id, &client.secret.clone()).await;
        let answer = without_notices(client.answer().await);
        assert!(started.elapsed() < Duration::from_secs(2), "{sql}: {:?}", started.elapsed());
        let error = &answer[answer.len() - 2];
        assert_eq!(code_of(error), "57014", "{error}");
        assert_eq!(error.contains("the wait was cancelled"), reads_token);
        // The connection lives, and nothing is left of the cancel.
        assert_eq!(client.query("series 1").await.last().unwrap(), "Z I");
    }
    server.events.wait_for("rows dropped").await;
}

#[tokio::test]
async fn a_cancel_request_stops_a_copy_that_waits_for_its_client() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'Q', &cstring("copy in"))).await;
    client.messages(1).await;
    cancel(&server, client.id, &client.secret.clone()).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "57014");
    server.events.wait_for("copy discarded").await;
}

#[tokio::test]
async fn a_cancel_request_stops_rows_that_nobody_reads() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'Q', &cstring("endless"))).await;
    server.events.wait_for("execute endless").await;
    // Until the socket's buffers are full.
    tokio::time::sleep(Duration::from_millis(300)).await;
    cancel(&server, client.id, &client.secret.clone()).await;
    server.events.wait_for("rows dropped").await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[answer.len() - 2]), "57014");
}

#[tokio::test]
async fn rows_do_not_wait_for_those_that_are_not_made_yet() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'Q', &cstring("hesitant"))).await;
    let messages = client.messages(4).await;
    assert_eq!(messages[1..], ["D [0]", "D [1]", "D [2]"]);
    cancel(&server, client.id, &client.secret.clone()).await;
    assert_eq!(code_of(&client.answer().await[0]), "57014");
}

#[tokio::test]
async fn a_client_that_has_gone_stops_what_runs() {
    let server = mock::start().await;
    // It closes while nothing more is to be read, or with messages sent ahead.
    for ahead in [Vec::new(), [message(b'Q', &cstring("done A")), sync()].concat()] {
        let before = server.events.all().iter().filter(|event| *event == "wait cancelled").count();
        let mut client = RawClient::connect(server.address).await;
        client.send(&message(b'Q', &cstring("wait"))).await;
        client.messages(1).await;
        client.send(&ahead).await;
        let started = Instant::now();
        drop(client);
        loop {
            let cancelled =
                server.events.all().iter().filter(|event| *event == "wait cancelled").count();
            if cancelled > before {
                break;
            }
            assert!(started.elapsed() < Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.events.wait_for("session dropped").await;
    }
    assert!(!server.events.all().contains(&"execute done A".to_owned()));
}

#[tokio::test]
async fn a_client_that_resets_its_connection_stops_a_stubborn_statement() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'Q', &cstring("stubborn"))).await;
    server.events.wait_for("execute stubborn").await;
    let mut stream = client.into_stream();
    stream.set_zero_linger().unwrap();
    stream.flush().await.unwrap();
    drop(stream);
    server.events.wait_for("session dropped").await;
}

#[tokio::test]
async fn a_suspended_portal_is_stopped_with_its_connection() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.query("begin").await;
    let sent =
        [parse("", "endless", &[]), bind("", "", &[], &[], &[]), execute("", 5), sync()].concat();
    client.send(&sent).await;
    client.answer().await;
    assert!(!server.events.all().contains(&"rows dropped".to_owned()));
    drop(client);
    server.events.wait_for("rows dropped").await;
}

#[tokio::test]
async fn shutdown_ends_everything_in_time() {
    let mut server = mock::start().await;
    let mut idle = RawClient::connect(server.address).await;
    let mut waiting = RawClient::connect(server.address).await;
    let mut stubborn = RawClient::connect(server.address).await;
    let _silent = RawClient::silent(server.address).await;
    waiting.send(&message(b'Q', &cstring("wait"))).await;
    stubborn.send(&message(b'Q', &cstring("stubborn"))).await;
    server.events.wait_for("execute wait").await;
    server.events.wait_for("execute stubborn").await;
    let started = Instant::now();
    server.shutdown.cancel();
    for client in [&mut idle, &mut waiting, &mut stubborn] {
        let answer = without_notices(client.answer().await);
        assert_eq!(
            answer,
            [
                "E S=FATAL V=FATAL C=57P01 M=terminating connection due to administrator command",
                "closed"
            ]
        );
    }
    drop((idle, waiting, stubborn));
    server.ended.take().unwrap().await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_panic_is_an_error_of_its_statement() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    for sql in ["panic", "panic later", "parse panic"] {
        let answer = client.query(sql).await;
        let error = &answer[answer.len() - 2];
        assert_eq!(code_of(error), "XX000");
        assert!(error.contains("M=internal error "), "{error}");
        assert!(!error.contains("in "), "the text stays in the log: {error}");
        assert_eq!(answer.last().unwrap(), "Z I");
    }
    client.send(&[parse("", "describe panics", &[]), sync()].concat()).await;
    assert_eq!(code_of(&client.answer().await[0]), "XX000");
    assert_eq!(client.query("done A").await, ["C A", "Z I"]);
}
