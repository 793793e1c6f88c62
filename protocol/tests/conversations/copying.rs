//! COPY in both directions and both protocols.

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};

use crate::driver::connect;
use crate::mock;
use crate::raw::{RawClient, bind, code_of, cstring, execute, message, parse, sync};

#[tokio::test]
async fn a_driver_copies_in() {
    let server = mock::start().await;
    let client = connect(&server).await;
    let sink = client.copy_in("copy in").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"1\ta\n2")).await.unwrap();
    sink.send(Bytes::from_static(b"\tb\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    server.events.wait_for("copied 1\ta\n2\tb\n").await;
    assert!(!server.events.all().contains(&"copy discarded".to_owned()));
    client.batch_execute("done A").await.unwrap();
}

#[tokio::test]
async fn a_driver_gives_a_copy_up() {
    let server = mock::start().await;
    let client = connect(&server).await;
    {
        let sink = client.copy_in("copy in").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(Bytes::from_static(b"1\ta\n")).await.unwrap();
    }
    client.batch_execute("done A").await.unwrap();
    server.events.wait_for("copy discarded").await;
}

#[tokio::test]
async fn a_copy_that_fails_is_skipped_to_its_end() {
    let server = mock::start().await;
    let client = connect(&server).await;
    let sink = client.copy_in("copy in fails").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let mut sent = Ok(());
    for _ in 0..100 {
        sent = sink.send(Bytes::from(vec![b'x'; 10_000])).await;
        if sent.is_err() {
            break;
        }
    }
    let error = match sent {
        Ok(()) => sink.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.code().unwrap().code(), "22P04");
    client.batch_execute("done A").await.unwrap();
    server.events.wait_for("copy discarded").await;
}

#[tokio::test]
async fn a_simple_query_copies_in() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'Q', &cstring("copy in; done A"))).await;
    assert_eq!(client.messages(1).await, ["G \\x00\\x00\\x02\\x00\\x00\\x00\\x00"]);
    client
        .send(
            &[message(b'd', b"1\ta\n"), message(b'H', b""), message(b'S', b""), message(b'c', b"")]
                .concat(),
        )
        .await;
    assert_eq!(client.answer().await, ["C COPY 1", "C A", "Z I"]);

    client.send(&message(b'Q', &cstring("copy in binary"))).await;
    assert_eq!(client.messages(1).await, ["G \\x01\\x00\\x02\\x00\\x01\\x00\\x01"]);
    client.send(&message(b'f', b"changed my mind\0")).await;
    assert_eq!(
        client.answer().await,
        ["E S=ERROR V=ERROR C=57014 M=COPY from stdin failed: changed my mind", "Z I"]
    );

    client.send(&message(b'Q', &cstring("copy in"))).await;
    client.messages(1).await;
    client.send(&message(b'Q', &cstring("done A"))).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "08P01");
    assert_eq!(client.query("done A").await, ["C A", "Z I"]);
}

#[tokio::test]
async fn an_extended_query_copies_in() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    // The first Sync comes before the client knows that it is in a COPY.
    let start =
        [parse("", "copy in", &[]), bind("", "", &[], &[], &[]), execute("", 0), sync()].concat();
    client.send(&start).await;
    assert_eq!(client.messages(3).await, ["1", "2", "G \\x00\\x00\\x02\\x00\\x00\\x00\\x00"]);
    client.send(&[message(b'd', b"1\ta\n"), message(b'c', b""), sync()].concat()).await;
    assert_eq!(client.answer().await, ["C COPY 1", "Z I"]);

    client.send(&start).await;
    client.messages(3).await;
    client.send(&[message(b'f', b"no\0"), message(b'd', b"late"), sync()].concat()).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "57014");
    assert_eq!(answer[1..], ["Z I"]);
}

#[tokio::test]
async fn rows_are_copied_out_as_postgresql_writes_them() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    assert_eq!(
        client.query("copy out text").await,
        [
            "H \\x00\\x00\\x03\\x00\\x00\\x00\\x00\\x00\\x00",
            r#"d 1\ta\\tb\\\\c\\nd\tx,\"y\"\n"#,
            r"d 2\t\t\\\\N\n",
            r"d \\N\t\\N\tz\n",
            "c",
            "C COPY 3",
            "Z I",
        ]
    );
    assert_eq!(
        client.query("copy out csv").await[1..5],
        [
            r"d id,name,note\n",
            r#"d 1,a\tb\\c\nd,\"x,\"\"y\"\"\"\n"#.replace("a\\tb\\\\c\\nd", "\\\"a\\tb\\\\c\\nd\\\"").as_str(),
            r#"d 2,\"\",\\N\n"#,
            r"d ,,z\n",
        ]
    );
    let answer = client.query("copy out fails").await;
    assert_eq!(code_of(&answer[4]), "42703");
    assert_eq!(answer[5], "Z I");
    assert_eq!(answer.len(), 6);
}

#[tokio::test]
async fn a_driver_copies_out_binary() {
    let server = mock::start().await;
    let client = connect(&server).await;
    let stream = client.copy_out("copy out binary").await.unwrap();
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    let bytes = chunks.concat();
    let expected = [
        &b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"[..],
        b"\0\x03\0\0\0\x04\0\0\0\x01\0\0\0\x07a\tb\\c\nd\0\0\0\x05x,\"y\"",
        b"\0\x03\0\0\0\x04\0\0\0\x02\0\0\0\0\0\0\0\x02\\N",
        b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x01z",
        b"\xff\xff",
    ]
    .concat();
    assert_eq!(bytes, expected);
}
