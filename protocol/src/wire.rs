//! Messages on the stream: cutting what a client sends into frames, gathering what it is sent.
//!
//! Frames are cut here and not by pgwire, because a length field is a claim: nothing is reserved for it, and it is held
//! against a limit that depends on the kind of message and on whether the client has logged in. Outgoing messages are
//! pgwire's, encoded into one buffer that is written when it has grown large or the client is waiting.

use bytes::{Buf, Bytes, BytesMut};
use pgwire::messages::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::error::{SqlError, SqlState};
use crate::socket::{SharedStream, Stream};

/// A client that has not logged in may send no more than this in one message. PostgreSQL's limit.
pub(crate) const MAX_LOGIN_MESSAGE_BYTES: usize = 10_000;
/// Messages that carry only a name or nothing are never larger. PostgreSQL's limit.
const MAX_SMALL_MESSAGE_BYTES: usize = 10_000;
/// Output is written once it has grown to this.
pub(crate) const FLUSH_BYTES: usize = 64 * 1024;
/// Room that is made for each read.
const READ_BYTES: usize = 16 * 1024;
/// An output buffer that a large row has blown up beyond this is given back once it is empty.
const KEEP_OUTPUT_BYTES: usize = 1024 * 1024;

/// One message as it came: its kind and its body, without the length.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) body: Bytes,
}

/// Why no message could be read.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The client has closed the connection, or it broke.
    Gone,
    /// What came is no message. Nothing after it can be understood.
    Malformed(SqlError),
}

impl From<std::io::Error> for ReadFailure {
    fn from(_: std::io::Error) -> ReadFailure {
        ReadFailure::Gone
    }
}

fn malformed(message: impl Into<String>) -> ReadFailure {
    ReadFailure::Malformed(SqlError::fatal(SqlState::PROTOCOL_VIOLATION, message))
}

/// One connection's stream and its two buffers.
pub(crate) struct Wire {
    stream: Stream,
    socket: SharedStream,
    input: BytesMut,
    output: BytesMut,
    /// Written, but perhaps still in the buffers of TLS.
    unflushed: bool,
    max_message_bytes: usize,
}

impl Wire {
    pub(crate) fn new(stream: Stream, socket: SharedStream) -> Wire {
        Wire {
            stream,
            socket,
            input: BytesMut::new(),
            output: BytesMut::new(),
            unflushed: false,
            max_message_bytes: MAX_LOGIN_MESSAGE_BYTES,
        }
    }

    /// From now on messages may be this large.
    pub(crate) fn set_max_message_bytes(&mut self, limit: usize) {
        self.max_message_bytes = limit;
    }

    /// The socket, to be watched while this wire is in use.
    pub(crate) fn socket(&self) -> &SharedStream {
        &self.socket
    }

    /// Whether the client has sent more than was asked for.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Goes on encrypted. Nothing may be buffered.
    pub(crate) async fn start_tls(&mut self, acceptor: &TlsAcceptor) -> Result<(), ReadFailure> {
        let stream = acceptor.accept(self.socket.clone()).await.map_err(|error| {
            tracing::info!(%error, "TLS handshake failed");
            ReadFailure::Gone
        })?;
        self.stream = Stream::Tls(Box::new(stream));
        Ok(())
    }

    /// The protocol that was agreed on in the TLS handshake.
    pub(crate) fn alpn_protocol(&self) -> Option<&[u8]> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// Reads a message without a kind (startup, SSLRequest, CancelRequest): its body without the length.
    pub(crate) async fn read_startup_packet(&mut self) -> Result<Bytes, ReadFailure> {
        loop {
            if let Some(&[a, b, c, d]) = self.input.first_chunk::<4>() {
                let length = i64::from(i32::from_be_bytes([a, b, c, d]));
                if !(8..=MAX_LOGIN_MESSAGE_BYTES as i64).contains(&length) {
                    return Err(malformed("invalid length of startup packet"));
                }
                let length = length as usize;
                if self.input.len() >= length {
                    let mut packet = self.input.split_to(length);
                    packet.advance(4);
                    return Ok(packet.freeze());
                }
            }
            self.fill().await?;
        }
    }

    /// Reads the next message. May be dropped and called again: nothing is lost.
    pub(crate) async fn read_frame(&mut self) -> Result<Frame, ReadFailure> {
        loop {
            if let Some(frame) = self.cut_frame()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    fn cut_frame(&mut self) -> Result<Option<Frame>, ReadFailure> {
        let Some(&kind) = self.input.first() else {
            return Ok(None);
        };
        let limit = match kind {
            b'Q' | b'P' | b'B' | b'd' | b'F' => self.max_message_bytes,
            b'p' => MAX_LOGIN_MESSAGE_BYTES.min(self.max_message_bytes),
            b'C' | b'D' | b'E' | b'H' | b'S' | b'X' | b'c' | b'f' => {
                MAX_SMALL_MESSAGE_BYTES.min(self.max_message_bytes)
            }
            other => {
                return Err(malformed(format!("invalid frontend message type {other}")));
            }
        };
        let Some(&[_, a, b, c, d]) = self.input.first_chunk::<5>() else {
            return Ok(None);
        };
        let claimed = i32::from_be_bytes([a, b, c, d]);
        let Some(length) = usize::try_from(claimed).ok().filter(|length| *length >= 4) else {
            return Err(malformed(format!("invalid message length {claimed}")));
        };
        if length > limit {
            // A statement or its values may well be meant so; no other message has a reason to be long.
            let code = match kind {
                b'Q' | b'P' | b'B' | b'd' => SqlState::PROGRAM_LIMIT_EXCEEDED,
                _ => SqlState::PROTOCOL_VIOLATION,
            };
            return Err(ReadFailure::Malformed(
                SqlError::fatal(
                    code,
                    format!("message of {length} bytes is over the limit of {limit} bytes"),
                )
                .with_hint("The server's setting max_message_bytes limits messages."),
            ));
        }
        if self.input.len() < 1 + length {
            return Ok(None);
        }
        let mut frame = self.input.split_to(1 + length);
        frame.advance(5);
        Ok(Some(Frame { kind, body: frame.freeze() }))
    }

    /// Reads what there is into the input buffer. Cancel-safe.
    async fn fill(&mut self) -> Result<(), ReadFailure> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(ReadFailure::Gone),
            _ => Ok(()),
        }
    }

    /// Adds a message to the output. Messages that cannot be encoded do not exist here: pgwire refuses only some that are
    /// larger than 30,000 bytes, which are cut or bounded before they get here.
    pub(crate) fn put(&mut self, message: &impl Message) {
        let start = self.output.len();
        if let Err(error) = message.encode(&mut self.output) {
            self.output.truncate(start);
            tracing::error!(%error, "a message could not be encoded");
        }
    }

    /// The output, for messages that are written in place.
    pub(crate) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Whether output is waiting.
    pub(crate) fn has_output(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }

    /// Whether so much output is waiting that it should be written.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= FLUSH_BYTES
    }

    /// Writes what the socket takes at once. May be dropped and called again: nothing is lost or written twice.
    pub(crate) async fn write_some(&mut self) -> std::io::Result<()> {
        if !self.output.is_empty() {
            self.unflushed = true;
            if self.stream.write_buf(&mut self.output).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            if self.output.is_empty() && self.output.capacity() > KEEP_OUTPUT_BYTES {
                self.output = BytesMut::new();
            }
        }
        if self.output.is_empty() && self.unflushed {
            self.stream.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Writes everything.
    pub(crate) async fn flush(&mut self) -> std::io::Result<()> {
        while self.has_output() {
            self.write_some().await?;
        }
        Ok(())
    }

    /// Reads and throws away until the peer closes: closing first, with unread bytes waiting, would make the system
    /// reset the connection, and the peer might never see the last message.
    pub(crate) async fn drain(&mut self) {
        loop {
            self.input.clear();
            if self.fill().await.is_err() {
                return;
            }
        }
    }

    /// Says goodbye to the peer (TLS's close_notify).
    pub(crate) async fn close(&mut self) {
        // The peer may be gone already; then there is nobody to say goodbye to.
        let _ = self.stream.shutdown().await;
    }
}
