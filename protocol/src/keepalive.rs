//! Asking the system to notice peers whose machine or network has gone without a word.
//!
//! A closed connection is noticed at once (see `socket`); one whose other end has lost its power says nothing. With
//! keepalive the system probes a silent peer after a minute and gives it up after another half.
//!
//! tokio's `TcpStream` does not offer these options, so this calls `setsockopt`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

/// Seconds of silence before the first probe.
const IDLE_SECONDS: libc::c_int = 60;
/// Seconds between two probes.
const INTERVAL_SECONDS: libc::c_int = 10;
/// Probes without an answer before the peer is given up.
const PROBES: libc::c_int = 3;

/// Turns keepalive on.
pub(crate) fn enable(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, IDLE_SECONDS)?;
        set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, INTERVAL_SECONDS)?;
        set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, PROBES)?;
    }
    Ok(())
}

fn set(
    stream: &TcpStream,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open while `stream` is borrowed, and the system only reads the `c_int` that the pointer
    // names, whose size is given with it.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_takes_the_options_and_a_listener_that_is_closed_does_not_matter() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream =
            TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        enable(&stream).expect("keepalive is known here");
        assert!(set(&stream, libc::SOL_SOCKET, -1, 1).is_err());
    }
}
