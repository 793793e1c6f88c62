//! Whether a JPEG file is whole.
//!
//! The decoder is lenient: where the data ends early it leaves the rest of the picture grey and reports success. A training set
//! would then hold half pictures that nobody asked for, so the file's structure is walked here first: markers and their
//! lengths, then each scan up to the next marker, until the end marker. A file that is cut off anywhere has none.
//!
//! Left out: damage inside a scan. JPEG has no checksum to find it by.

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const TEMPORARY: u8 = 0x01;
const RESTART_FIRST: u8 = 0xd0;
const RESTART_LAST: u8 = 0xd7;
const STUFFED_ZERO: u8 = 0x00;
const FILL: u8 = 0xff;

/// Says why the file is not whole, or Ok.
pub(super) fn check_complete(bytes: &[u8]) -> Result<(), &'static str> {
    if !bytes.starts_with(&[0xff, START_OF_IMAGE]) {
        return Err("the start marker is missing");
    }
    let mut scans = 0_usize;
    let mut position = 2;
    loop {
        // Bytes between two segments belong to nothing; every reader skips them.
        let Some(marker_at) = next_marker(bytes, position) else {
            return Err(match scans {
                0 => "the file ends before its pixels",
                1.. => "the file ends before its end marker",
            });
        };
        let marker = bytes[marker_at];
        position = marker_at + 1;
        match marker {
            END_OF_IMAGE if scans == 0 => return Err("the file holds no pixels"),
            END_OF_IMAGE => return Ok(()),
            START_OF_IMAGE | TEMPORARY | RESTART_FIRST..=RESTART_LAST => {}
            _ => {
                let Some(&[high, low]) = bytes.get(position..position + 2) else {
                    return Err("the file ends inside a segment");
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < 2 {
                    return Err("a segment has an impossible length");
                }
                position += length;
                if position > bytes.len() {
                    return Err("the file ends inside a segment");
                }
                if marker == START_OF_SCAN {
                    scans += 1;
                }
            }
        }
    }
}

/// The place of the next marker's code at or after `from`: a byte after 0xff that is neither a stuffed zero nor a fill byte.
fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let mut position = from;
    loop {
        let prefix = position + bytes.get(position..)?.iter().position(|&byte| byte == 0xff)?;
        match *bytes.get(prefix + 1)? {
            STUFFED_ZERO => position = prefix + 2,
            FILL => position = prefix + 1,
            _ => return Some(prefix + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check_complete;

    /// Start, a segment of two payload bytes, a scan header, scan data with a stuffed zero and a restart, end.
    const WHOLE: [u8; 22] = [
        0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 1, 0xff, 0, 2, 0xff, 0xd0, 3,
        4, 0xff, 0xd9,
    ];

    #[test]
    fn a_whole_file_is_whole() {
        assert_eq!(check_complete(&WHOLE), Ok(()));
        let mut with_trailer = WHOLE.to_vec();
        with_trailer.extend_from_slice(b"a second picture");
        assert_eq!(check_complete(&with_trailer), Ok(()));
    }

    #[test]
    fn every_shorter_file_is_not() {
        for length in 0..WHOLE.len() {
            assert!(check_complete(&WHOLE[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_end_marker_inside_a_segment_does_not_count() {
        assert!(check_complete(&[0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xd9]).is_err());
        assert!(check_complete(&[0xff, 0xd8, 0xff, 0xd9]).is_err());
        assert!(check_complete(&[0xff, 0xd8, 0xff, 0xe0, 0, 1, 0xff, 0xd9]).is_err());
    }
}
