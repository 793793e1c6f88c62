//! What is particular to JPEG: whether a file is whole, and decoding it at a reduced size.
//!
//! The decoder is lenient: where the data ends early it leaves the rest of the picture grey and reports success. A training set
//! would then hold half pictures that nobody asked for, so the file's structure is walked here first: markers and their
//! lengths, then each scan up to the next marker, until the end marker. A file that is cut off anywhere has none.
//!
//! A photograph of twelve million pixels becomes a square of 224: most of what decoding it whole costs is wasted. The format stores blocks of 8 x 8
//! pixels as frequencies, so an eighth, a quarter or half of the size needs but the lowest of them. The library that `image` decodes with does
//! not offer that, another does ([`jpeg_decoder`]); it is used for nothing else, and whatever it does not take is decoded whole.
//!
//! Left out: damage inside a scan. JPEG has no checksum to find it by.

use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const BASELINE_FRAME: u8 = 0xc0;
const PROGRESSIVE_FRAME: u8 = 0xc2;
const EXIF: u8 = 0xe1;
const ADOBE: u8 = 0xee;
const TEMPORARY: u8 = 0x01;
const RESTART_FIRST: u8 = 0xd0;
const RESTART_LAST: u8 = 0xd7;
const STUFFED_ZERO: u8 = 0x00;
const FILL: u8 = 0xff;

/// One for each of at most four channels.
const MOST_BASELINE_SCANS: usize = 4;
/// Encoders write about ten.
const MOST_PROGRESSIVE_SCANS: usize = 100;

/// Says why the file is not whole, or Ok.
pub(super) fn check_complete(bytes: &[u8]) -> Result<(), &'static str> {
    if !bytes.starts_with(&[0xff, START_OF_IMAGE]) {
        return Err("the start marker is missing");
    }
    let mut scans = 0_usize;
    for segment in segments(bytes) {
        match segment? {
            Segment { marker: END_OF_IMAGE, .. } if scans == 0 => {
                return Err("the file holds no pixels");
            }
            Segment { marker: END_OF_IMAGE, .. } => return Ok(()),
            Segment { marker: START_OF_SCAN, .. } => scans += 1,
            Segment { .. } => {}
        }
    }
    Err(match scans {
        0 => "the file ends before its pixels",
        1.. => "the file ends before its end marker",
    })
}

/// The picture in an eighth, a quarter or half of its width and height: the smallest of these whose shorter side has at least `least_side` pixels. Chroma that the
/// file holds at half the size is read at half of the reduced size, too. None
/// if there is no such, and for what is left to the whole picture's decoder: four channels, arithmetic coding, more than 8 bits a sample,
/// more scans than a picture needs, and files in which this decoder finds another size than `size`, which was checked against the limits.
pub(super) fn decode_reduced(
    bytes: &[u8],
    size: (u32, u32),
    least_side: u32,
) -> Option<DynamicImage> {
    let least_side = u16::try_from(least_side).ok()?;
    if size.0.min(size.1).div_ceil(2) < least_side.into() || !has_few_scans(bytes) {
        return None;
    }
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().ok()?;
    let whole = decoder.info().filter(|whole| size == (whole.width.into(), whole.height.into()))?;
    // Asked for two sides, the library is content with one that is reached: the longer one must not be.
    let (width, height) = if whole.width <= whole.height {
        decoder.scale(least_side, u16::MAX).ok()?
    } else {
        decoder.scale(u16::MAX, least_side).ok()?
    };
    if width >= whole.width {
        return None;
    }
    let (width, height) = (u32::from(width), u32::from(height));
    match whole.pixel_format {
        PixelFormat::L8 => {
            GrayImage::from_raw(width, height, decoder.decode().ok()?).map(DynamicImage::from)
        }
        PixelFormat::RGB24 => {
            // The two libraries guess differently what three channels mean; the picture must not depend on its size.
            let meaning =
                if holds_rgb(bytes) { ColorTransform::RGB } else { ColorTransform::YCbCr };
            decoder.set_color_transform(meaning);
            RgbImage::from_raw(width, height, decoder.decode().ok()?).map(DynamicImage::from)
        }
        PixelFormat::CMYK32 | PixelFormat::L16 => None,
    }
}

/// Whether there are no more scans than the whole picture's decoder would take: a hostile file has thousands, and each is work for every pixel, but none for this
/// library to refuse.
fn has_few_scans(bytes: &[u8]) -> bool {
    let (mut most, mut scans) = (MOST_BASELINE_SCANS, 0);
    for segment in segments(bytes).map_while(Result::ok) {
        match segment.marker {
            PROGRESSIVE_FRAME => most = MOST_PROGRESSIVE_SCANS,
            START_OF_SCAN => scans += 1,
            END_OF_IMAGE => break,
            _ => {}
        }
    }
    scans <= most
}

/// True if three channels are red, green and blue, and not luma and two of chroma: Adobe's segment says so, or their names.
fn holds_rgb(bytes: &[u8]) -> bool {
    headers(bytes).any(|segment| match segment.marker {
        ADOBE => segment.content.starts_with(b"Adobe") && segment.content.get(11) == Some(&0),
        // Precision, height, width and the number of channels, then three bytes for each, its name first.
        BASELINE_FRAME..=PROGRESSIVE_FRAME => {
            matches!(*segment.content, [_, _, _, _, _, 3, b'R', _, _, b'G', _, _, b'B', ..])
        }
        _ => false,
    })
}

/// Whether there is metadata that may say how the picture is turned. The library that is asked for it reads all tables anew for that, much of the work for a
/// small picture.
pub(super) fn has_exif(bytes: &[u8]) -> bool {
    headers(bytes).any(|segment| segment.marker == EXIF && segment.content.starts_with(b"Exif"))
}

/// The segments before the first scan.
fn headers(bytes: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let all = segments(bytes).map_while(Result::ok);
    all.take_while(|segment| segment.marker != START_OF_SCAN)
}

/// A marker and what belongs to it; a scan's data does not.
struct Segment<'a> {
    marker: u8,
    content: &'a [u8],
}

/// What follows the start marker. Bytes between two segments belong to nothing; every reader skips them. The first error is the last item.
fn segments(bytes: &[u8]) -> impl Iterator<Item = Result<Segment<'_>, &'static str>> {
    let mut position = Some(2);
    std::iter::from_fn(move || {
        let marker_at = next_marker(bytes, position.take()?)?;
        let marker = bytes[marker_at];
        let start = marker_at + 1;
        let (content, end) = match marker {
            START_OF_IMAGE | END_OF_IMAGE | TEMPORARY | RESTART_FIRST..=RESTART_LAST => {
                (&[][..], start)
            }
            _ => match content_at(bytes, start) {
                Ok(content) => (content, start + 2 + content.len()),
                Err(reason) => return Some(Err(reason)),
            },
        };
        position = Some(end);
        Some(Ok(Segment { marker, content }))
    })
}

/// A segment's content, between its length and its end.
fn content_at(bytes: &[u8], start: usize) -> Result<&[u8], &'static str> {
    let cut_off = "the file ends inside a segment";
    let Some(&[high, low]) = bytes.get(start..start + 2) else {
        return Err(cut_off);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < 2 {
        return Err("a segment has an impossible length");
    }
    bytes.get(start + 2..start + length).ok_or(cut_off)
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
    use image::imageops::{FilterType, resize};
    use image::{DynamicImage, RgbImage};
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    use super::{check_complete, decode_reduced};

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

    /// Waves of three colours, 400 x 320 pixels.
    fn picture() -> RgbImage {
        RgbImage::from_fn(400, 320, |x, y| {
            let wave =
                |at: u32, length: f32| (127.5 + 120.0 * (at as f32 / length).sin()).round() as u8;
            image::Rgb([wave(x, 40.0), wave(y, 30.0), wave(x + y, 60.0)])
        })
    }

    fn encoded(
        pixels: &[u8],
        color: ColorType,
        prepare: impl FnOnce(&mut Encoder<&mut Vec<u8>>),
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 95);
        prepare(&mut encoder);
        encoder.encode(pixels, 400, 320, color).unwrap();
        bytes
    }

    /// Mean difference of samples from the whole picture's average over each of the reduced picture's pixels.
    fn difference(reduced: &DynamicImage, bytes: &[u8]) -> f64 {
        let whole = image::load_from_memory(bytes).unwrap();
        assert_eq!(reduced.color(), whole.color());
        let expected =
            resize(&whole.to_rgb8(), reduced.width(), reduced.height(), FilterType::Triangle);
        let samples = reduced.to_rgb8();
        let sum: u64 = samples
            .iter()
            .zip(expected.iter())
            .map(|(&left, &right)| u64::from(left.abs_diff(right)))
            .sum();
        sum as f64 / samples.len() as f64
    }

    #[test]
    fn a_reduced_picture_is_the_whole_one_made_smaller() {
        let picture = picture();
        let gray = DynamicImage::from(picture.clone()).into_luma8();
        let files = [
            ("plain", encoded(&picture, ColorType::Rgb, |_| ())),
            ("grey", encoded(&gray, ColorType::Luma, |_| ())),
            (
                "subsampled",
                encoded(&picture, ColorType::Rgb, |encoder| {
                    encoder.set_sampling_factor(SamplingFactor::F_2_2);
                }),
            ),
            (
                "progressive",
                encoded(&picture, ColorType::Rgb, |encoder| encoder.set_progressive(true)),
            ),
            (
                "with restarts",
                encoded(&picture, ColorType::Rgb, |encoder| encoder.set_restart_interval(3)),
            ),
        ];
        for (name, bytes) in files {
            for (least_side, size) in [
                (1, (50, 40)),
                (40, (50, 40)),
                (41, (100, 80)),
                (80, (100, 80)),
                (81, (200, 160)),
                (160, (200, 160)),
            ] {
                let reduced = decode_reduced(&bytes, (400, 320), least_side).unwrap();
                assert_eq!((reduced.width(), reduced.height()), size, "{name}: {least_side}");
                let difference = difference(&reduced, &bytes);
                assert!(difference < 2.5, "{name}: {least_side}: {difference}");
            }
            assert!(decode_reduced(&bytes, (400, 320), 161).is_none(), "{name}");
            assert!(decode_reduced(&bytes, (400, 320), 70_000).is_none(), "{name}");
            assert!(decode_reduced(&bytes, (400, 319), 10).is_none(), "{name}: another size");
        }
    }

    /// Three channels that are red, green and blue as they lie, told by Adobe's segment or by their names.
    #[test]
    fn channels_mean_the_same_at_every_size() {
        // The encoder takes them for luma and chroma, and so leaves them as they are.
        let as_they_are = |prepare: &dyn Fn(&mut Encoder<&mut Vec<u8>>)| {
            encoded(&picture(), ColorType::Ycbcr, prepare)
        };
        let by_adobe = as_they_are(&|encoder| {
            encoder.add_app_segment(14, b"Adobe\0\x64\0\0\0\0\0".to_vec()).unwrap();
        });
        let mut by_name = as_they_are(&|_| ());
        for (name, letter) in (0..).zip(*b"RGB") {
            // Of a frame: the channel's name and sampling factors; of a scan: the name and its tables.
            let frame = by_name.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
            let scan = by_name.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
            let in_frame = frame + 10 + 3 * usize::from(name);
            let in_scan = scan + 5 + 2 * usize::from(name);
            assert_eq!((by_name[in_frame], by_name[in_scan]), (name, name));
            (by_name[in_frame], by_name[in_scan]) = (letter, letter);
        }
        for (name, bytes) in [("Adobe", by_adobe), ("names", by_name)] {
            let reduced = decode_reduced(&bytes, (400, 320), 80).unwrap();
            let difference = difference(&reduced, &bytes);
            assert!(difference < 1.5, "{name}: {difference}");
            let original = picture();
            let center = (reduced.to_rgb8().get_pixel(50, 40).0, original.get_pixel(202, 162).0);
            for (found, expected) in center.0.into_iter().zip(center.1) {
                assert!(found.abs_diff(expected) < 12, "{name}: {center:?}");
            }
        }
    }

    /// A scan of ten bytes is work for every pixel; the file below asks for that a hundred times.
    #[test]
    fn more_scans_than_a_picture_needs_are_left_to_the_whole_pictures_decoder() {
        let bytes = encoded(&picture(), ColorType::Rgb, |_| ());
        let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        let header = &bytes[scan..scan + 14];
        let end = bytes.len() - 2;
        let many = [&bytes[..end], &header.repeat(100), &bytes[end..]].concat();
        assert_eq!(check_complete(&many), Ok(()));
        assert!(decode_reduced(&bytes, (400, 320), 10).is_some());
        assert!(decode_reduced(&many, (400, 320), 10).is_none());
    }

    #[test]
    fn four_channels_are_left_to_the_whole_pictures_decoder() {
        let ink: Vec<u8> =
            picture().pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 9]).collect();
        let bytes = encoded(&ink, ColorType::Cmyk, |_| ());
        assert!(image::load_from_memory(&bytes).is_ok());
        assert!(decode_reduced(&bytes, (400, 320), 10).is_none());
    }
}
