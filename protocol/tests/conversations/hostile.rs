//! Clients that send nonsense: each gets a violation or is cut, and everyone else is served.

use thanosql_protocol::ProtocolOptions;

use crate::mock;
use crate::raw::{RawClient, bind, code_of, cstring, execute, message, parse, startup, sync};

#[tokio::test]
async fn startup_packets_that_are_none() {
    let server = mock::start().await;
    for packet in [
        &b"\0\0\0\0\0\x03\0\0"[..],
        b"\0\0\0\x07\0\x03\0",
        b"\xff\xff\xff\xff\0\x03\0\0",
        b"\x7f\xff\xff\xff\0\x03\0\0user\0",
        b"\0\0\x27\x11\0\x03\0\0",
        b"\0\0\0\x0e\0\x03\0\0user\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = RawClient::silent(server.address).await;
        client.send(packet).await;
        let answer = client.answer().await;
        assert!(["08P01", "28000"].contains(&code_of(&answer[0])), "{packet:?}: {answer:?}");
        assert_eq!(answer[1], "closed");
    }
    // A cancel request that is cut short, and a TLS handshake where there is no TLS.
    for packet in [&b"\0\0\0\x08\x04\xd2\x16\x2e"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc"] {
        let mut client = RawClient::silent(server.address).await;
        client.send(packet).await;
        assert_eq!(client.answer().await, ["closed"]);
    }
}

#[tokio::test]
async fn messages_that_are_none_close_the_connection() {
    let options = ProtocolOptions { max_message_bytes: 100_000, ..ProtocolOptions::default() };
    let server = mock::start_with(options).await;
    for bytes in [
        &b"!\0\0\0\x04"[..],
        b"Q\0\0\0\x03",
        b"Q\0\0\0\0",
        b"Q\xff\xff\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"Q\0\x01\x86\xa1",
        b"S\0\0\xff\xff",
        b"E\0\0\xff\xff",
        b"p\0\0\0\x05x",
    ] {
        let mut client = RawClient::connect(server.address).await;
        client.send(bytes).await;
        let answer = client.answer().await;
        // A statement over its limit has a code of its own.
        let too_long = [&b"Q\x7f\xff\xff\xff"[..], b"Q\0\x01\x86\xa1"].contains(&bytes);
        let code = if too_long { "54000" } else { "08P01" };
        assert_eq!(code_of(&answer[0]), code, "{bytes:?}");
        assert!(answer[0].starts_with("E S=FATAL V=FATAL"), "{answer:?}");
        assert_eq!(answer[1], "closed");
    }
    // The largest message that is allowed.
    let mut client = RawClient::connect(server.address).await;
    let largest = format!("done {}", "x".repeat(100_000 - 4 - 1 - 5));
    client.send(&message(b'Q', &cstring(&largest))).await;
    assert_eq!(client.answer().await.last().unwrap(), "Z I");
}

#[tokio::test]
async fn a_client_that_sends_far_too_much_still_sees_why_it_was_refused() {
    let options = ProtocolOptions { max_message_bytes: 10_000, ..ProtocolOptions::default() };
    let server = mock::start_with(options).await;
    let mut client = RawClient::connect(server.address).await;
    client.try_send(&message(b'Q', &vec![b'x'; 1_000_000])).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "54000", "{answer:?}");
}

#[tokio::test]
async fn malformed_bodies_are_errors_of_their_message_alone() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    client.send(&message(b'Q', b"no end")).await;
    let answer = client.answer().await;
    assert_eq!(code_of(&answer[0]), "08P01");
    assert!(answer[0].starts_with("E S=ERROR"));
    assert_eq!(answer[1], "Z I");
    client.send(&message(b'Q', b"done '\xff'\0")).await;
    assert_eq!(code_of(&client.answer().await[0]), "22021");
    assert_eq!(client.query("done A").await, ["C A", "Z I"]);
}

/// Bind says how many values it has and how long they are; every claim that is not kept is an error of that message, and
/// everything up to Sync is passed over.
#[tokio::test]
async fn a_bind_that_is_cut_short_harms_nobody() {
    let server = mock::start().await;
    let mut client = RawClient::connect(server.address).await;
    let sound = bind("", "", &[Some(b"ab"), None], &[0], &[0]);
    let sound = &sound[5..];
    let mut bodies: Vec<Vec<u8>> = (0..sound.len()).map(|end| sound[..end].to_vec()).collect();
    bodies.push([sound, b"x"].concat());
    // Longer than the message, negative, and more values than there are.
    bodies.push(b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0".to_vec());
    bodies.push(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0".to_vec());
    bodies.push(b"\0\0\0\0\xff\xff".to_vec());
    bodies.push(b"\0\0\xff\xff".to_vec());
    for body in bodies {
        let messages =
            [parse("", "done A", &[]), message(b'B', &body), execute("", 0), sync()].concat();
        client.send(&messages).await;
        let answer = client.answer().await;
        assert_eq!(answer.len(), 3, "{body:?}: {answer:?}");
        assert_eq!(code_of(&answer[1]), "08P01", "{body:?}: {answer:?}");
        assert!(answer[1].starts_with("E S=ERROR"), "{answer:?}");
        assert_eq!(answer[2], "Z I");
    }
    assert_eq!(client.query("done A").await, ["C A", "Z I"]);
}

/// Before a client has said who it is, its messages are short.
#[tokio::test]
async fn a_password_of_any_length_is_not_waited_for() {
    let options = ProtocolOptions {
        trust_loopback: false,
        users: vec![thanosql_protocol::User {
            name: "anna".to_owned(),
            secret: thanosql_protocol::Secret::Password("secret".to_owned()),
        }],
        ..ProtocolOptions::default()
    };
    let server = mock::start_with(options).await;
    for bytes in [
        &b"p\x7f\xff\xff\xff"[..],
        b"p\xff\xff\xff\xff",
        b"p\0\0\0\x03",
        b"p\0\x01\0\0",
        b"Q\0\0\0\x0edone A\0\0\0\0",
        b"!\0\0\0\x04",
    ] {
        let mut client = RawClient::silent(server.address).await;
        client.send(&startup(3 << 16, &[("user", "anna")])).await;
        assert!(client.message().await.is_some_and(|(kind, _)| kind == b'R'));
        client.send(bytes).await;
        let answer = client.answer().await;
        assert_eq!(code_of(&answer[0]), "08P01", "{bytes:?}: {answer:?}");
        assert_eq!(answer[1], "closed");
    }
    assert!(!server.events.all().iter().any(|event| event.starts_with("connect")));
}

/// A generator of numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_random_clients_do_no_harm() {
    const CLIENTS: u64 = 1_000;
    let server = mock::start().await;
    let mut witness = RawClient::connect(server.address).await;
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for round in 0..CLIENTS {
        let length = (random.next() % 200) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        let logged_in = round % 2 == 0;
        let mut client = if logged_in {
            // Frames that are whole and bodies that are not.
            if round % 4 == 0 {
                let kinds = b"QPBDEHSCdcfFpX";
                let kind = kinds[(random.next() % kinds.len() as u64) as usize];
                bytes = message(kind, &bytes);
            }
            RawClient::connect(server.address).await
        } else {
            if round % 4 == 1 {
                bytes = [startup(3 << 16, &[("user", "anna")]), bytes].concat();
            }
            RawClient::silent(server.address).await
        };
        client.try_send(&bytes).await;
        if round % 3 == 0 {
            client.try_send(&message(b'S', b"")).await;
        }
        drop(client);
        if round % 100 == 0 {
            assert_eq!(witness.query("done A").await, ["C A", "Z I"], "after {round} clients");
        }
    }
    assert_eq!(witness.query("series 1").await.last().unwrap(), "Z I");
    RawClient::connect(server.address).await;
}
