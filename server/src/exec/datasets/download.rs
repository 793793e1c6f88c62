//! Fetching files over HTTP: bounded, resumable, and never taken on trust.
//!
//! A file that is being fetched has the ending `.part`. When the connection breaks, or the statement is stopped, the part
//! stays, and the next attempt asks for the rest of it (a Range request). A file gets its name only when its hash is the
//! known one; a file with another hash is deleted. A part that turns out to belong to another file is fetched anew
//! once, from its start.
//!
//! The hash is that of the unpacked bytes where a file is packed: the same data may be packed in many ways.
//!
//! Everything here blocks: it runs on a thread of its own, which looks at the statement's token between two reads. A
//! server that sends nothing is given up after a while, so no thread waits for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use thanosql_protocol::{SqlError, SqlState};
use tokio_util::sync::CancellationToken;
use ureq::http::StatusCode;

use crate::error::{check_stop, io_error};
use crate::hexadecimal::hexadecimal;

/// How often a broken connection is taken up again, if each attempt got further than the one before.
const ATTEMPTS: usize = 4;
/// Addresses that one leads to another.
const MAX_REDIRECTS: u32 = 5;
/// Bytes between two looks at whether to stop.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long to wait for a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a connection.
    pub(crate) connect: Duration,
    /// For its next bytes.
    pub(crate) read: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { connect: Duration::from_secs(10), read: Duration::from_secs(30) }
    }
}

/// Fetches files.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    agent: ureq::Agent,
}

/// What a file must be.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    /// SHA-256 of its bytes, unpacked if it is packed, in hexadecimal.
    pub(crate) sha256: String,
    /// The most bytes that are fetched.
    pub(crate) max_bytes: u64,
    /// For a file in gzip's form, how many bytes it unpacks to.
    pub(crate) unpacked_bytes: Option<u64>,
}

/// Hears how many bytes of a file are there, and how many it has if that is known.
pub(crate) type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

impl Fetcher {
    pub(crate) fn new(patience: Patience) -> Fetcher {
        let config = ureq::Agent::config_builder()
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.read))
            .timeout_per_read(Some(patience.read))
            .timeout_per_write(Some(patience.read))
            .max_redirects(MAX_REDIRECTS)
            .http_status_as_error(false)
            .user_agent(concat!("thanosql/", env!("CARGO_PKG_VERSION")))
            .build();
        Fetcher { agent: config.new_agent() }
    }

    /// A small file, into memory.
    ///
    /// # Errors
    /// 58P01 if the server has none, 54000 if it is longer than `max_bytes`, 58030 for whatever else the network does.
    pub(crate) fn read(&self, url: &str, max_bytes: u64) -> Result<Vec<u8>, SqlError> {
        let mut response =
            self.agent.get(url).call().map_err(|error| network_error(url, &error.to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(status_error(url, response.status()));
        }
        let mut bytes = Vec::new();
        let mut body = response.body_mut().as_reader().take(max_bytes + 1);
        body.read_to_end(&mut bytes).map_err(|error| network_error(url, &error.to_string()))?;
        if bytes.len() as u64 > max_bytes {
            return Err(too_long(url, max_bytes));
        }
        Ok(bytes)
    }

    /// A file, to a place. What is there already and has the right hash is not fetched.
    ///
    /// # Errors
    /// XX001 for a file with another hash, which is deleted; 58P01 if the server has none; 54000 for one that is too long;
    /// 57014 when stopped; 58030 for whatever else the network does. The part stays for the next time.
    pub(crate) fn fetch(
        &self,
        url: &str,
        place: &Path,
        expected: &Expected,
        stop: &CancellationToken,
        progress: Progress<'_>,
    ) -> Result<(), SqlError> {
        if place.is_file() {
            if verify(place, expected, stop)? {
                return Ok(());
            }
            remove(place)?;
        }
        let part = part_of(place);
        let mut resumed = length(&part)? > 0;
        loop {
            self.fetch_part(url, &part, expected, stop, progress)?;
            if verify(&part, expected, stop)? {
                return std::fs::rename(&part, place).map_err(|error| io_error(&error));
            }
            remove(&part)?;
            if !resumed {
                return Err(SqlError::new(
                    SqlState::DATA_CORRUPTED,
                    format!("the file fetched from {} is not the one expected", shown(url)),
                )
                .with_detail(format!("Its SHA-256 is not {}; it was deleted.", expected.sha256)));
            }
            // The part may have been of another file.
            resumed = false;
        }
    }

    /// Fetches the rest of a file, through broken connections as long as it gets on.
    fn fetch_part(
        &self,
        url: &str,
        part: &Path,
        expected: &Expected,
        stop: &CancellationToken,
        progress: Progress<'_>,
    ) -> Result<(), SqlError> {
        let mut attempt = 1;
        loop {
            let before = length(part)?;
            match self.attempt(url, part, expected, stop, progress) {
                Err(error)
                    if error.code == SqlState::IO_ERROR
                        && attempt < ATTEMPTS
                        && length(part)? > before =>
                {
                    tracing::info!(url = shown(url), attempt, %error, "a download goes on");
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    fn attempt(
        &self,
        url: &str,
        part: &Path,
        expected: &Expected,
        stop: &CancellationToken,
        progress: Progress<'_>,
    ) -> Result<(), SqlError> {
        let broken = |error: &dyn std::fmt::Display| network_error(url, &error.to_string());
        check_stop(stop)?;
        let mut have = length(part)?;
        let mut request = self.agent.get(url);
        if have > 0 {
            request = request.header("range", format!("bytes={have}-"));
        }
        let mut response = request.call().map_err(|error| broken(&error))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if have > 0 => {
                let range = response.headers().get("content-range");
                let range = range.and_then(|range| range.to_str().ok()).unwrap_or_default();
                if !range.starts_with(&format!("bytes {have}-")) {
                    return Err(broken(&format!("an answer with the range \"{range}\"")));
                }
            }
            // The whole file, whatever was asked for.
            StatusCode::OK => have = 0,
            // There is no more of it: the part is whole, or of another file.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
            status => return Err(status_error(url, status)),
        }
        let total = response.body().content_length().map(|rest| have + rest);
        if total.is_some_and(|total| total > expected.max_bytes) {
            return Err(too_long(url, expected.max_bytes));
        }
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(have == 0)
            .open(part)
            .map_err(|error| io_error(&error))?;
        file.seek(SeekFrom::Start(have)).map_err(|error| io_error(&error))?;
        let mut body = response.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        progress(have, total);
        loop {
            check_stop(stop)?;
            let read = body.read(&mut chunk).map_err(|error| broken(&error))?;
            if read == 0 {
                break;
            }
            have += read as u64;
            if have > expected.max_bytes {
                return Err(too_long(url, expected.max_bytes));
            }
            file.write_all(&chunk[..read]).map_err(|error| io_error(&error))?;
            progress(have, total);
        }
        file.sync_all().map_err(|error| io_error(&error))?;
        if total.is_some_and(|total| total != have) {
            return Err(broken(&"the connection ended before the file did"));
        }
        Ok(())
    }
}

/// Whether a file is what it must be. A packed one that does not unpack is not.
fn verify(path: &Path, expected: &Expected, stop: &CancellationToken) -> Result<bool, SqlError> {
    let file = BufReader::new(File::open(path).map_err(|error| io_error(&error))?);
    let (mut input, limit): (Box<dyn Read>, u64) = match expected.unpacked_bytes {
        Some(bytes) => (Box::new(GzDecoder::new(file)), bytes),
        None => (Box::new(file), expected.max_bytes),
    };
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        check_stop(stop)?;
        let read = match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            // Of what is no gzip, or cut short.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(io_error(&error)),
        };
        length += read as u64;
        if length > limit {
            return Ok(false);
        }
        hash.update(&chunk[..read]);
    }
    Ok(hexadecimal(&hash.finalize()).eq_ignore_ascii_case(&expected.sha256))
}

/// Where a file stands while it is fetched.
fn part_of(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    place.with_file_name(name)
}

/// How many bytes of a file are there; 0 if it is not.
fn length(path: &Path) -> Result<u64, SqlError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(io_error(&error)),
    }
}

fn remove(path: &Path) -> Result<(), SqlError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn network_error(url: &str, reason: &str) -> SqlError {
    SqlError::new(SqlState::IO_ERROR, format!("cannot fetch {}", shown(url)))
        .with_detail(reason.to_string())
        .with_hint("Run the statement again: what was fetched is kept, and the rest is asked for.")
}

fn status_error(url: &str, status: StatusCode) -> SqlError {
    let code = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => SqlState::UNDEFINED_FILE,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SqlState::INSUFFICIENT_PRIVILEGE,
        _ => SqlState::IO_ERROR,
    };
    SqlError::new(code, format!("cannot fetch {}: the server answers {status}", shown(url)))
}

fn too_long(url: &str, max_bytes: u64) -> SqlError {
    SqlError::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("the file at {} is longer than {max_bytes} bytes", shown(url)),
    )
}

/// An address without the secrets that may stand in it.
pub(crate) fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let host_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(host_end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

/// The address of a file in a folder.
pub(crate) fn in_folder(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// One request as a server saw it: its path, and where the range that it asks for starts.
    type Seen = (String, Option<usize>);

    /// An HTTP server whose every answer a test makes.
    struct Server {
        url: String,
        seen: Arc<Mutex<Vec<Seen>>>,
    }

    impl Server {
        /// `answer` gets the request and writes the answer.
        fn start(answer: impl Fn(&Seen, &mut TcpStream) + Send + 'static) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let seen = Arc::new(Mutex::new(Vec::new()));
            let log = seen.clone();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().map_while(Result::ok) {
                    let request = read_request(&stream);
                    log.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                }
            });
            Server { url, seen }
        }

        fn seen(&self) -> Vec<Seen> {
            self.seen.lock().unwrap().clone()
        }
    }

    fn read_request(stream: &TcpStream) -> Seen {
        let mut lines = io::BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        let path = first.split(' ').nth(1).unwrap_or_default().to_string();
        let mut range = None;
        for line in lines.take_while(|line| !line.is_empty()) {
            if let Some(value) = line.to_lowercase().strip_prefix("range: bytes=") {
                range = value.trim_end_matches('-').parse().ok();
            }
        }
        (path, range)
    }

    fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(body);
    }

    /// A whole file, or the part of it that is asked for.
    fn serve(file: &[u8], (_, range): &Seen, stream: &mut TcpStream) {
        match range {
            Some(start) if *start < file.len() => {
                let header =
                    format!("content-range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len());
                respond(stream, "206 Partial Content", &header, &file[*start..]);
            }
            Some(_) => respond(stream, "416 Range Not Satisfiable", "", b""),
            None => respond(stream, "200 OK", "", file),
        }
    }

    fn data() -> Vec<u8> {
        (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn expected(file: &[u8]) -> Expected {
        Expected {
            sha256: hexadecimal(&Sha256::digest(file)),
            max_bytes: 1 << 20,
            unpacked_bytes: None,
        }
    }

    fn fetcher() -> Fetcher {
        Fetcher::new(Patience { connect: Duration::from_secs(5), read: Duration::from_millis(400) })
    }

    fn fetch(server: &Server, place: &Path, expected: &Expected) -> Result<(), SqlError> {
        let stop = CancellationToken::new();
        fetcher().fetch(&in_folder(&server.url, "f"), place, expected, &stop, &mut |_, _| {})
    }

    #[test]
    fn a_file_is_fetched_once() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|request, stream| serve(&data(), request, stream));
        let mut heard = Vec::new();
        let stop = CancellationToken::new();
        fetcher()
            .fetch(
                &in_folder(&server.url, "f"),
                &place,
                &expected(&data()),
                &stop,
                &mut |have, total| heard.push((have, total)),
            )
            .unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), data());
        assert_eq!(heard.first(), Some(&(0, Some(300_000))));
        assert_eq!(heard.last(), Some(&(300_000, Some(300_000))));
        fetch(&server, &place, &expected(&data())).unwrap();
        assert_eq!(server.seen(), [("/f".to_string(), None)]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_part_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        std::fs::write(part_of(&place), &data()[..100_000]).unwrap();
        let server = Server::start(|request, stream| serve(&data(), request, stream));
        fetch(&server, &place, &expected(&data())).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), data());
        assert_eq!(server.seen(), [("/f".to_string(), Some(100_000))]);
    }

    #[test]
    fn a_whole_part_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        std::fs::write(part_of(&place), data()).unwrap();
        let server = Server::start(|request, stream| serve(&data(), request, stream));
        fetch(&server, &place, &expected(&data())).unwrap();
        assert_eq!(server.seen(), [("/f".to_string(), Some(300_000))]);
    }

    #[test]
    fn a_part_of_another_file_is_fetched_anew() {
        for length in [100_000, 300_000, 400_000] {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("f");
            std::fs::write(part_of(&place), vec![b'x'; length]).unwrap();
            let server = Server::start(|request, stream| serve(&data(), request, stream));
            fetch(&server, &place, &expected(&data())).unwrap();
            assert_eq!(std::fs::read(&place).unwrap(), data());
            assert_eq!(server.seen().last(), Some(&("/f".to_string(), None)), "{length}");
        }
    }

    #[test]
    fn a_server_without_ranges_sends_all_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        std::fs::write(part_of(&place), &data()[..100_000]).unwrap();
        let server = Server::start(|_, stream| respond(stream, "200 OK", "", &data()));
        fetch(&server, &place, &expected(&data())).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), data());
    }

    #[test]
    fn a_broken_connection_is_taken_up_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|(_, range), stream| {
            let (file, start) = (data(), range.unwrap_or(0));
            let end = (start + 120_000).min(file.len());
            let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {start}-{}/{}\r\n\r\n",
                file.len() - start,
                file.len() - 1,
                file.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&file[start..end]);
        });
        fetch(&server, &place, &expected(&data())).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), data());
        let starts: Vec<_> = server.seen().into_iter().map(|(_, start)| start).collect();
        assert_eq!(starts, [None, Some(120_000), Some(240_000)]);
    }

    #[test]
    fn a_server_that_falls_silent_is_given_up_and_the_part_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|(_, range), stream| {
            if range.is_none() {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&data()[..50_000]);
            }
            std::thread::sleep(Duration::from_millis(1_500));
        });
        let error = fetch(&server, &place, &expected(&data())).unwrap_err();
        assert_eq!(error.code, SqlState::IO_ERROR);
        assert_eq!(length(&part_of(&place)).unwrap(), 50_000);
        assert!(!place.exists());
    }

    #[test]
    fn another_hash_is_an_error_and_the_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|request, stream| serve(b"something else", request, stream));
        let error = fetch(&server, &place, &expected(&data())).unwrap_err();
        assert_eq!(error.code, SqlState::DATA_CORRUPTED);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // So is what stood in the place before.
        std::fs::write(&place, b"something else").unwrap();
        assert_eq!(
            fetch(&server, &place, &expected(&data())).unwrap_err().code,
            SqlState::DATA_CORRUPTED
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn answers_that_are_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let check = |status: &'static str, headers: &'static str, code: SqlState| {
            let server = Server::start(move |_, stream| respond(stream, status, headers, b"no"));
            let error = fetch(&server, &place, &expected(&data())).unwrap_err();
            assert_eq!(error.code, code, "{status}: {error:?}");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        };
        check("404 Not Found", "", SqlState::UNDEFINED_FILE);
        check("403 Forbidden", "", SqlState::INSUFFICIENT_PRIVILEGE);
        check("500 Internal Server Error", "", SqlState::IO_ERROR);
        check("302 Found", "location: /again\r\n", SqlState::IO_ERROR);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = fetcher().read(&format!("http://{nobody}/f"), 10).unwrap_err();
        assert_eq!(error.code, SqlState::IO_ERROR);
    }

    #[test]
    fn a_redirect_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|request, stream| match request.0.as_str() {
            "/f" => respond(stream, "302 Found", "location: /moved/f\r\n", b""),
            _ => serve(&data(), request, stream),
        });
        fetch(&server, &place, &expected(&data())).unwrap();
        assert_eq!(server.seen().last().unwrap().0, "/moved/f");
    }

    #[test]
    fn a_file_without_an_end_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|_, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            while stream.write_all(&[0; 65_536]).is_ok() {}
        });
        let error = fetch(&server, &place, &expected(&data())).unwrap_err();
        assert_eq!(error.code, SqlState::PROGRAM_LIMIT_EXCEEDED);
        assert!(length(&part_of(&place)).unwrap() <= 1 << 20);
        assert_eq!(
            fetcher().read(&server.url, 1_000).unwrap_err().code,
            SqlState::PROGRAM_LIMIT_EXCEEDED
        );
    }

    #[test]
    fn a_stopped_statement_keeps_its_part() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("f");
        let server = Server::start(|request, stream| serve(&data(), request, stream));
        let stop = CancellationToken::new();
        let pull = stop.clone();
        let url = in_folder(&server.url, "f");
        let outcome = fetcher().fetch(&url, &place, &expected(&data()), &stop, &mut |have, _| {
            if have > 0 {
                pull.cancel();
            }
        });
        assert_eq!(outcome.unwrap_err().code, SqlState::QUERY_CANCELED);
        let kept = length(&part_of(&place)).unwrap();
        assert!(kept > 0 && kept < 300_000, "{kept}");
        fetch(&server, &place, &expected(&data())).unwrap();
    }

    #[test]
    fn the_hash_of_a_packed_file_is_that_of_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let packed = |level, data: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        };
        let expected = Expected { unpacked_bytes: Some(300_000), ..expected(&data()) };
        let check = |name: &str, bytes: Vec<u8>, expect: bool| {
            let place = folder.path().join(name);
            let server = Server::start(move |request, stream| serve(&bytes, request, stream));
            assert_eq!(fetch(&server, &place, &expected).is_ok(), expect, "{name}");
        };
        check("best", packed(Compression::best(), &data()), true);
        check("fast", packed(Compression::fast(), &data()), true);
        check("plain", data(), false);
        let mut cut = packed(Compression::best(), &data());
        cut.truncate(cut.len() - 20);
        check("cut", cut, false);
        // A small file that unpacks to more than there is room for.
        check("bomb", packed(Compression::best(), &vec![0; 30 << 20]), false);
    }

    #[test]
    fn addresses_are_shown_without_their_secrets() {
        assert_eq!(shown("https://a:b@host:1/x/y?token=z"), "https://host:1/x/y");
        assert_eq!(shown("http://host"), "http://host");
        assert_eq!(in_folder("http://host/x/", "f"), "http://host/x/f");
    }
}
