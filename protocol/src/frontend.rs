//! The messages that a client sends, decoded.
//!
//! pgwire has a decoder too; it is not used, because it panics on bodies that end early, replaces what is not UTF-8 in
//! silence (a statement would run that nobody wrote), and does not know FunctionCall. Every read here is checked, and a
//! body that is malformed is an error of that one message: its frame is intact, so the connection goes on, as in
//! PostgreSQL.

use bytes::{Buf, Bytes};

use crate::error::{SqlError, SqlState};
use crate::wire::Frame;

/// A message of a client that has logged in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Query {
        sql: String,
    },
    Parse {
        statement: String,
        sql: String,
        parameter_oids: Vec<u32>,
    },
    Bind {
        portal: String,
        statement: String,
        parameter_formats: Vec<i16>,
        parameters: Vec<Option<Bytes>>,
        result_formats: Vec<i16>,
    },
    Describe(Target),
    Execute {
        portal: String,
        max_rows: i32,
    },
    Close(Target),
    Flush,
    Sync,
    FunctionCall,
    CopyData(Bytes),
    CopyDone,
    CopyFail {
        reason: String,
    },
    Password,
    Terminate,
}

/// What Describe and Close speak of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Statement(String),
    Portal(String),
}

/// Whether an error in this kind of message makes the server skip messages until Sync.
pub(crate) fn is_extended(kind: u8) -> bool {
    matches!(kind, b'B' | b'C' | b'D' | b'E' | b'H' | b'P')
}

/// Decodes a frame.
///
/// # Errors
///
/// 08P01 for a malformed body, 22021 for text that is not UTF-8.
pub(crate) fn decode(frame: Frame) -> Result<Message, SqlError> {
    let mut body = Body(frame.body);
    let message = match frame.kind {
        b'Q' => Message::Query { sql: body.string()? },
        b'P' => {
            let statement = body.string()?;
            let sql = body.string()?;
            let count = body.count()?;
            let parameter_oids = (0..count).map(|_| body.u32()).collect::<Result<Vec<_>, _>>()?;
            Message::Parse { statement, sql, parameter_oids }
        }
        b'B' => {
            let portal = body.string()?;
            let statement = body.string()?;
            let parameter_formats = body.formats()?;
            let count = body.count()?;
            let parameters = (0..count).map(|_| body.value()).collect::<Result<Vec<_>, _>>()?;
            let result_formats = body.formats()?;
            Message::Bind { portal, statement, parameter_formats, parameters, result_formats }
        }
        b'D' => Message::Describe(body.target("DESCRIBE")?),
        b'C' => Message::Close(body.target("CLOSE")?),
        b'E' => Message::Execute { portal: body.string()?, max_rows: body.u32()? as i32 },
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => return Ok(Message::Terminate),
        b'F' => return Ok(Message::FunctionCall),
        b'p' => return Ok(Message::Password),
        b'd' => return Ok(Message::CopyData(body.0)),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail { reason: body.string()? },
        other => return Err(malformed(format!("invalid frontend message type {other}"))),
    };
    if body.0.is_empty() { Ok(message) } else { Err(malformed("invalid message format")) }
}

/// An 08P01 after which the connection goes on.
pub(crate) fn malformed(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, message)
}

/// Reads a body from its front.
pub(crate) struct Body(pub(crate) Bytes);

impl Body {
    /// A text that ends with a zero byte.
    pub(crate) fn string(&mut self) -> Result<String, SqlError> {
        let Some(end) = self.0.iter().position(|byte| *byte == 0) else {
            return Err(malformed("invalid string in message"));
        };
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        text(&bytes).map(str::to_owned)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, SqlError> {
        self.0.try_get_u32().map_err(|_| malformed("insufficient data left in message"))
    }

    fn u16(&mut self) -> Result<u16, SqlError> {
        self.0.try_get_u16().map_err(|_| malformed("insufficient data left in message"))
    }

    fn count(&mut self) -> Result<usize, SqlError> {
        self.u16().map(usize::from)
    }

    /// Bytes after their length; -1 stands for NULL.
    pub(crate) fn value(&mut self) -> Result<Option<Bytes>, SqlError> {
        match self.u32()? as i32 {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) if length <= self.0.len() => Ok(Some(self.0.split_to(length))),
                _ => Err(malformed("insufficient data left in message")),
            },
        }
    }

    fn formats(&mut self) -> Result<Vec<i16>, SqlError> {
        let count = self.count()?;
        (0..count).map(|_| self.u16().map(|code| code as i16)).collect()
    }

    fn target(&mut self, message: &str) -> Result<Target, SqlError> {
        let kind =
            self.0.try_get_u8().map_err(|_| malformed("insufficient data left in message"))?;
        let name = self.string()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            other => Err(malformed(format!("invalid {message} message subtype {other}"))),
        }
    }
}

/// Bytes as text, or PostgreSQL's error for those that are not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, SqlError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let start = error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| start + length);
        let sequence: Vec<String> =
            bytes[start..end].iter().map(|byte| format!("0x{byte:02x}")).collect();
        SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": {}", sequence.join(" ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &'static [u8]) -> Frame {
        Frame { kind, body: Bytes::from_static(body) }
    }

    #[test]
    fn a_bind_message_is_read_whole() {
        let message = decode(frame(
            b'B',
            b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01",
        ))
        .expect("well formed");
        assert_eq!(
            message,
            Message::Bind {
                portal: "p".to_owned(),
                statement: "s".to_owned(),
                parameter_formats: vec![1],
                parameters: vec![Some(Bytes::from_static(b"ab")), None],
                result_formats: vec![1],
            }
        );
    }

    #[test]
    fn bodies_that_end_early_or_late_are_violations() {
        for (kind, body) in [
            (b'Q', &b"select 1"[..]),
            (b'Q', b""),
            (b'Q', b"select 1\0more"),
            (b'P', b"s\0select 1\0\0\x02\0\0\0\x17"),
            (b'P', b"s\0select 1\0"),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\x05ab\0\0"),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'B', b"\0\0\xff\xff"),
            (b'D', b"X\0"),
            (b'D', b""),
            (b'E', b"\0\0\0"),
            (b'S', b"x"),
            (b'f', b"no end"),
        ] {
            let error = decode(frame(kind, body)).expect_err("malformed");
            assert_eq!(error.code, SqlState::PROTOCOL_VIOLATION, "{body:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_never_repaired() {
        let error = decode(frame(b'Q', b"select '\xc3\x28'\0")).expect_err("not UTF-8");
        assert_eq!(error.code, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
        assert_eq!(error.message, "invalid byte sequence for encoding \"UTF8\": 0xc3");
    }
}
