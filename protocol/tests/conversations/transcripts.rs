//! Golden transcripts: what is sent, and every message that comes back.

use crate::mock;
use crate::raw::{
    RawClient, bind, close, code_of, cstring, describe, execute, flush, message, parse, startup,
    sync,
};

async fn check(client: &mut RawClient, sent: &[Vec<u8>], expected: &[&str]) {
    client.send(&sent.concat()).await;
    assert_eq!(client.answer().await, expected);
}

#[tokio::test]
async fn the_greeting() {
    let server = mock::start().await;
    let mut client = RawClient::silent(server.address).await;
    // Encryption is declined twice, each with one byte; then the login goes on.
    client.send(&message(0, &80_877_104_u32.to_be_bytes())[1..]).await;
    assert_eq!(client.bytes().await, *b"N");
    client.send(&message(0, &80_877_103_u32.to_be_bytes())[1..]).await;
    assert_eq!(client.bytes().await, *b"N");
    client.send(&startup(3 << 16, &[("user", "anna"), ("database", "db")])).await;
    let mut answer = client.answer().await;
    let key = answer.remove(3);
    assert!(key.starts_with("K "), "{key}");
    assert_eq!(
        answer,
        ["R \\x00\\x00\\x00\\x00", "S server_version=16.0", "S client_encoding=UTF8", "Z I"]
    );
}

#[tokio::test]
async fn newer_protocols_are_negotiated() {
    let server = mock::start().await;
    let mut client = RawClient::silent(server.address).await;
    client.send(&startup((3 << 16) | 9999, &[("user", "anna"), ("_pq_.x", "1")])).await;
    let answer = client.answer().await;
    assert_eq!(answer[0], "v \\x00\\x03\\x00\\x02\\x00\\x00\\x00\\x01_pq_.x\\x00");
    assert_eq!(answer.last().unwrap(), "Z I");

    let mut client = RawClient::silent(server.address).await;
    client.send(&startup(2 << 16, &[("user", "anna")])).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "0A000");
    assert_eq!(answer[1], "closed");
}

#[tokio::test]
async fn simple_queries() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    assert_eq!(
        client.query("series 4").await,
        ["T [n:23:4:-1:0]", "D [0]", "D [1]", "D [2]", "D [3]", "C SELECT 4", "Z I"]
    );
    assert_eq!(client.query("").await, ["I", "Z I"]);
    assert_eq!(client.query(" ; ").await, ["I", "Z I"]);
    assert_eq!(client.query("series 0").await, ["T [n:23:4:-1:0]", "C SELECT 0", "Z I"]);
    assert_eq!(
        client.query("done CREATE TABLE; series 1; done INSERT 0 3").await,
        ["C CREATE TABLE", "T [n:23:4:-1:0]", "D [0]", "C SELECT 1", "C INSERT 0 3", "Z I"]
    );
    assert_eq!(
        client.query("values int4 1 text a_b bool t vector [1,2]").await,
        [
            "T [?column?:23:4:-1:0|?column?:25:-1:-1:0|?column?:16:1:-1:0|?column?:16385:-1:2:0]",
            "D [1|a b|t|[1,2]]",
            "C SELECT 1",
            "Z I",
        ]
    );
    assert_eq!(
        client.query("notice hello").await,
        ["N S=WARNING V=WARNING C=01000 M=hello H=Look here.", "C NOTICE", "Z I"]
    );
    assert_eq!(
        client.query("set TimeZone Asia/Seoul").await,
        ["C SET", "S TimeZone=Asia/Seoul", "Z I"]
    );
}

#[tokio::test]
async fn errors_end_a_script() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    let error =
        "E S=ERROR V=ERROR C=42703 M=column \"x\" does not exist D=There is no x. H=Take y. P=8";
    assert_eq!(client.query("done A; fail; done B").await, ["C A", error, "Z I"]);
    assert_eq!(
        client.query("fail after 2").await,
        ["T [n:23:4:-1:0]", "D [0]", "D [1]", error, "Z I"]
    );
    assert_eq!(code_of(&client.query("syntax error").await[0]), "42601");
    assert_eq!(client.query("begin").await, ["C BEGIN", "Z T"]);
    assert_eq!(client.query("fail").await, [error, "Z E"]);
    assert_eq!(code_of(&client.query("series 1").await[0]), "25P02");
    assert_eq!(client.query("rollback").await, ["C ROLLBACK", "Z I"]);
    let events = server.events.all();
    assert_eq!(
        events[1..5],
        ["execute done A", "execute fail", "finish false", "execute fail after 2"]
    );
}

#[tokio::test]
async fn the_last_statement_is_acknowledged_only_after_the_commit() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    let answer = client.query("done A; commit fails").await;
    assert_eq!(answer[0], "C A");
    assert_eq!(code_of(&answer[1]), "40001");
    assert_eq!(answer[2], "Z I");
    assert_eq!(answer.len(), 3);
    // At Sync in the extended protocol.
    let sent =
        [parse("", "commit fails", &[]), bind("", "", &[], &[], &[]), execute("", 0), sync()];
    client.send(&sent.concat()).await;
    let answer = client.answer().await;
    assert_eq!(answer[..3], ["1", "2", "C INSERT 0 1"]);
    assert_eq!(code_of(&answer[3]), "40001");
    assert_eq!(answer[4], "Z I");
}

#[tokio::test]
async fn extended_queries() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    check(
        &mut client,
        &[
            parse("s", "echo int4 text", &[23, 0]),
            describe(b'S', "s"),
            bind("p", "s", &[Some(&7_i32.to_be_bytes()), None], &[1, 0], &[1, 0]),
            describe(b'P', "p"),
            execute("p", 0),
            close(b'P', "p"),
            sync(),
        ],
        &[
            "1",
            "t [23 25]",
            "T [?column?:23:4:-1:0|?column?:25:-1:-1:0]",
            "2",
            "T [?column?:23:4:-1:1|?column?:25:-1:-1:0]",
            "D [\\x00\\x00\\x00\\x07|-]",
            "C SELECT 1",
            "3",
            "Z I",
        ],
    )
    .await;
    // The statement lives on, the portal does not.
    check(
        &mut client,
        &[bind("", "s", &[Some(b"8"), Some(b"x")], &[], &[]), execute("", 0), sync()],
        &["2", "D [8|x]", "C SELECT 1", "Z I"],
    )
    .await;
    check(
        &mut client,
        &[
            parse("", "done SET", &[]),
            describe(b'S', ""),
            bind("", "", &[], &[], &[]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ],
        &["1", "t []", "n", "2", "n", "C SET", "Z I"],
    )
    .await;
    check(
        &mut client,
        &[
            parse("", " ", &[]),
            bind("", "", &[], &[], &[]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ],
        &["1", "2", "n", "I", "Z I"],
    )
    .await;
    // Declared types are told back as they were declared.
    check(
        &mut client,
        &[parse("", "echo varchar", &[1043]), describe(b'S', ""), sync()],
        &["1", "t [1043]", "T [?column?:1043:-1:-1:0]", "Z I"],
    )
    .await;
    // Flush sends what there is without ending anything.
    client.send(&[parse("", "done A", &[]), flush()].concat()).await;
    assert_eq!(client.messages(1).await, ["1"]);
    client.send(&sync()).await;
    assert_eq!(client.answer().await, ["Z I"]);
}

#[tokio::test]
async fn portals_are_read_in_parts() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.query("begin").await;
    check(
        &mut client,
        &[parse("", "series 7", &[]), bind("p", "", &[], &[], &[]), execute("p", 2), sync()],
        &["1", "2", "D [0]", "D [1]", "s", "Z T"],
    )
    .await;
    // Two portals side by side.
    check(
        &mut client,
        &[bind("q", "", &[], &[], &[]), execute("q", 1), execute("p", 3), sync()],
        &["2", "D [0]", "s", "D [2]", "D [3]", "D [4]", "s", "Z T"],
    )
    .await;
    check(&mut client, &[execute("p", 2), sync()], &["D [5]", "D [6]", "s", "Z T"]).await;
    check(&mut client, &[execute("p", 2), sync()], &["C SELECT 0", "Z T"]).await;
    check(&mut client, &[execute("p", 2), sync()], &["C SELECT 0", "Z T"]).await;
    assert_eq!(client.query("commit").await, ["C COMMIT", "Z I"]);
    // The end of the transaction ends the portals, also one in the middle.
    server.events.wait_for("rows dropped").await;
    client.send(&[execute("q", 0), sync()].concat()).await;
    assert_eq!(code_of(&client.answer().await[0]), "34000");
}

#[tokio::test]
async fn sql_closes_prepared_statements() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    for closing in ["close s", "close all"] {
        check(&mut client, &[parse("s", "done A", &[]), sync()], &["1", "Z I"]).await;
        client.query(closing).await;
    }
    // Also in the middle of a pipeline.
    let closing = [parse("", "close s", &[]), bind("", "", &[], &[], &[]), execute("", 0)].concat();
    check(
        &mut client,
        &[parse("s", "done A", &[]), closing, parse("s", "done B", &[]), sync()],
        &["1", "1", "2", "C DEALLOCATE", "1", "Z I"],
    )
    .await;
}

#[tokio::test]
async fn limits_that_mean_all_rows() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    for limit in [0, -1, i32::MIN, i32::MAX] {
        check(
            &mut client,
            &[parse("", "series 2", &[]), bind("", "", &[], &[], &[]), execute("", limit), sync()],
            &["1", "2", "D [0]", "D [1]", "C SELECT 2", "Z I"],
        )
        .await;
    }
}

#[tokio::test]
async fn errors_of_the_extended_protocol_skip_to_sync() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    for (sent, code) in [
        (execute("nope", 0), "34000"),
        (describe(b'P', "nope"), "34000"),
        (describe(b'S', "nope"), "26000"),
        (bind("", "nope", &[], &[], &[]), "26000"),
        (parse("", "done A; done B", &[]), "42601"),
        (parse("", "syntax error", &[]), "42601"),
        (parse("", "describe fails", &[]), "42703"),
        (parse("", "echo int4", &[4_000_000]), "42704"),
        ([parse("two", "done A", &[]), parse("two", "done B", &[])].concat(), "42P05"),
        (
            [parse("", "done A", &[]), bind("p", "", &[], &[], &[]), bind("p", "", &[], &[], &[])]
                .concat(),
            "42P03",
        ),
        ([parse("", "echo int4", &[]), bind("", "", &[], &[], &[])].concat(), "08P01"),
        (
            [parse("", "echo int4", &[]), bind("", "", &[Some(b"1")], &[0, 0], &[])].concat(),
            "08P01",
        ),
        (
            [parse("", "echo int4", &[]), bind("", "", &[Some(b"1")], &[], &[0, 0])].concat(),
            "08P01",
        ),
        ([parse("", "echo int4", &[]), bind("", "", &[Some(b"1")], &[2], &[])].concat(), "22023"),
        ([parse("", "echo int4", &[]), bind("", "", &[Some(b"x")], &[], &[])].concat(), "22P02"),
        ([parse("", "echo int4", &[]), bind("", "", &[Some(b"1")], &[1], &[])].concat(), "22P03"),
        ([parse("", "echo text", &[]), bind("", "", &[Some(b"\xff")], &[], &[])].concat(), "22021"),
        ([parse("", "fail", &[]), bind("", "", &[], &[], &[]), execute("", 0)].concat(), "42703"),
        (
            [parse("", "done A", &[]), bind("", "", &[], &[], &[]), execute("", 0), execute("", 0)]
                .concat(),
            "55000",
        ),
        (
            [parse("", "changed columns", &[]), bind("", "", &[], &[], &[]), execute("", 0)]
                .concat(),
            "0A000",
        ),
        (message(b'B', b"\0"), "08P01"),
        (message(b'D', b"X\0"), "08P01"),
    ] {
        // What follows is skipped, also a simple query.
        let skipped =
            [parse("", "done SKIPPED", &[]), message(b'Q', &cstring("done SKIPPED"))].concat();
        client.send(&[sent, skipped, sync()].concat()).await;
        let answer = client.answer().await;
        let errors: Vec<&str> =
            answer.iter().map(|line| code_of(line)).filter(|code| !code.is_empty()).collect();
        assert_eq!(errors, [code], "{answer:?}");
        assert_eq!(
            answer[answer.len() - 2..].iter().map(|line| line.as_bytes()[0]).collect::<Vec<_>>(),
            *b"EZ"
        );
        client.send(&[close(b'S', "two"), sync()].concat()).await;
        client.answer().await;
    }
    assert!(!server.events.all().iter().any(|event| event.contains("SKIPPED")));
}

#[tokio::test]
async fn a_result_of_another_type_than_described_is_converted() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    check(
        &mut client,
        &[
            parse("", "changed", &[]),
            bind("", "", &[], &[], &[1]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ],
        &[
            "1",
            "2",
            "T [?column?:20:8:-1:1]",
            "D [\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x07]",
            "C SELECT 1",
            "Z I",
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_not_spoken_here() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0])).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "0A000");
    assert_eq!(answer[1], "Z I");
    // COPY messages without a COPY are left over from one that failed.
    client.send(&[message(b'd', b"x"), message(b'c', b""), message(b'f', b"no\0")].concat()).await;
    assert_eq!(client.query("done A").await, ["C A", "Z I"]);
    client.send(&message(b'X', &[])).await;
    assert_eq!(client.answer().await, ["closed"]);
    server.events.wait_for("session dropped").await;
}

#[tokio::test]
async fn large_results_are_streamed_whole() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    let answer = client.query("series 100000 8192").await;
    assert_eq!(answer.len(), 100_003);
    assert_eq!(answer[100_000], "D [99999]");
    let answer = client.query("wide 3000000").await;
    assert_eq!(answer[1].len(), 3_000_000 + "D []".len());
}

#[tokio::test]
async fn columns_may_be_open_until_the_parameters_are_known() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    let three = 3_i32.to_be_bytes();
    check(
        &mut client,
        &[
            parse("", "open", &[]),
            bind("", "", &[Some(&three)], &[1], &[]),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ],
        &["1", "2", "T [c0:23:4:-1:0|c1:23:4:-1:0|c2:23:4:-1:0]", "D [0|1|2]", "C SELECT 1", "Z I"],
    )
    .await;
    // Formats of results are counted against what is known at Bind.
    client.send(&[bind("", "", &[Some(&three)], &[1], &[1, 1]), sync()].concat()).await;
    assert_eq!(code_of(&client.answer().await[0]), "08P01");
    client.send(&[describe(b'S', ""), sync()].concat()).await;
    assert_eq!(code_of(&client.answer().await[0]), "0A000");
}
