//! A client that writes bytes by hand and reads messages back as text, one a line: `Z I` for ReadyForQuery while idle,
//! `D [1|-]` for a row of a value and a NULL.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct RawClient {
    stream: TcpStream,
    pub(crate) id: i32,
    pub(crate) secret: Vec<u8>,
}

/// One message: its kind and its body.
pub(crate) type RawMessage = (u8, Vec<u8>);

impl RawClient {
    /// Connects without saying anything.
    pub(crate) async fn silent(address: SocketAddr) -> RawClient {
        RawClient { stream: TcpStream::connect(address).await.unwrap(), id: 0, secret: Vec::new() }
    }

    /// Connects and logs in.
    pub(crate) async fn connect(address: SocketAddr) -> RawClient {
        let mut client = RawClient::silent(address).await;
        client.send(&startup(3 << 16, &[("user", "anna")])).await;
        loop {
            let (kind, body) = client.message().await.expect("still connected");
            match kind {
                b'K' => {
                    client.id = i32::from_be_bytes(body[..4].try_into().unwrap());
                    client.secret = body[4..].to_vec();
                }
                b'Z' => return client,
                b'E' => panic!("{}", shown(kind, &body)),
                _ => {}
            }
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends, if the server still listens.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next message; `None` at the end.
    pub(crate) async fn message(&mut self) -> Option<RawMessage> {
        let read = async {
            let kind = self.stream.read_u8().await.ok()?;
            let length = self.stream.read_u32().await.ok()?;
            let mut body = vec![0; length as usize - 4];
            self.stream.read_exact(&mut body).await.ok()?;
            Some((kind, body))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the server answers")
    }

    /// Bytes that are no message.
    pub(crate) async fn bytes<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let read = self.stream.read_exact(&mut bytes);
        tokio::time::timeout(PATIENCE, read).await.expect("the server answers").unwrap();
        bytes
    }

    /// Messages up to ReadyForQuery, or to the end (`closed`).
    pub(crate) async fn answer(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Some((kind, body)) = self.message().await else {
                lines.push("closed".to_owned());
                return lines;
            };
            lines.push(shown(kind, &body));
            if kind == b'Z' {
                return lines;
            }
        }
    }

    /// So many messages.
    pub(crate) async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let (kind, body) = self.message().await.expect("still connected");
            lines.push(shown(kind, &body));
        }
        lines
    }

    pub(crate) async fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(&message(b'Q', &cstring(sql))).await;
        self.answer().await
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// A message of this kind.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

pub(crate) fn cstring(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

pub(crate) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(cstring(name));
        body.extend(cstring(value));
    }
    body.push(0);
    message(0, &body)[1..].to_vec()
}

pub(crate) fn parse(name: &str, sql: &str, oids: &[u32]) -> Vec<u8> {
    let mut body = [cstring(name), cstring(sql)].concat();
    body.extend((oids.len() as u16).to_be_bytes());
    oids.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    message(b'P', &body)
}

pub(crate) fn bind(
    portal: &str,
    statement: &str,
    values: &[Option<&[u8]>],
    formats: &[u16],
    results: &[u16],
) -> Vec<u8> {
    let mut body = [cstring(portal), cstring(statement)].concat();
    let list = |codes: &[u16]| {
        let mut bytes = (codes.len() as u16).to_be_bytes().to_vec();
        codes.iter().for_each(|code| bytes.extend(code.to_be_bytes()));
        bytes
    };
    body.extend(list(formats));
    body.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend((value.len() as i32).to_be_bytes());
                body.extend(*value);
            }
        }
    }
    body.extend(list(results));
    message(b'B', &body)
}

pub(crate) fn describe(target: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![target], cstring(name)].concat())
}

pub(crate) fn close(target: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![target], cstring(name)].concat())
}

pub(crate) fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    let mut body = cstring(portal);
    body.extend(max_rows.to_be_bytes());
    message(b'E', &body)
}

pub(crate) fn sync() -> Vec<u8> {
    message(b'S', &[])
}

pub(crate) fn flush() -> Vec<u8> {
    message(b'H', &[])
}

/// A message of the server as a line of text.
pub(crate) fn shown(kind: u8, body: &[u8]) -> String {
    let mut body = body;
    match kind {
        b'T' => {
            let mut columns = Vec::new();
            for _ in 0..u16_of(&mut body) {
                let name = cstring_of(&mut body);
                let fixed: [u8; 18] = body[..18].try_into().unwrap();
                body = &body[18..];
                let oid = u32::from_be_bytes(fixed[6..10].try_into().unwrap());
                let length = i16::from_be_bytes(fixed[10..12].try_into().unwrap());
                let modifier = i32::from_be_bytes(fixed[12..16].try_into().unwrap());
                let format = fixed[17];
                columns.push(format!("{name}:{oid}:{length}:{modifier}:{format}"));
            }
            format!("T [{}]", columns.join("|"))
        }
        b't' => {
            let oids: Vec<String> = (0..u16_of(&mut body))
                .map(|_| {
                    let oid = u32::from_be_bytes(body[..4].try_into().unwrap());
                    body = &body[4..];
                    oid.to_string()
                })
                .collect();
            format!("t [{}]", oids.join(" "))
        }
        b'D' => {
            let values: Vec<String> = (0..u16_of(&mut body))
                .map(|_| {
                    let length = i32::from_be_bytes(body[..4].try_into().unwrap());
                    body = &body[4..];
                    if length < 0 {
                        return "-".to_owned();
                    }
                    let (value, rest) = body.split_at(length as usize);
                    body = rest;
                    value.escape_ascii().to_string()
                })
                .collect();
            assert!(body.is_empty());
            format!("D [{}]", values.join("|"))
        }
        b'E' | b'N' => {
            let mut fields = Vec::new();
            while body[0] != 0 {
                let field = body[0] as char;
                body = &body[1..];
                fields.push(format!("{field}={}", cstring_of(&mut body)));
            }
            format!("{} {}", kind as char, fields.join(" "))
        }
        b'C' => format!("C {}", cstring_of(&mut body)),
        b'S' => format!("S {}={}", cstring_of(&mut body), cstring_of(&mut body)),
        b'Z' => format!("Z {}", body[0] as char),
        _ if body.is_empty() => (kind as char).to_string(),
        _ => format!("{} {}", kind as char, body.escape_ascii()),
    }
}

fn u16_of(body: &mut &[u8]) -> u16 {
    let value = u16::from_be_bytes(body[..2].try_into().unwrap());
    *body = &body[2..];
    value
}

fn cstring_of(body: &mut &[u8]) -> String {
    let end = body.iter().position(|byte| *byte == 0).unwrap();
    let text = String::from_utf8(body[..end].to_vec()).unwrap();
    *body = &body[end + 1..];
    text
}

/// The message and code of an error line.
pub(crate) fn code_of(line: &str) -> &str {
    line.split_once(" C=").map_or("", |(_, rest)| &rest[..5])
}
