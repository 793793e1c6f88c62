//! Reading images: formats, depths, transparency, orientation, sizes, limits, and files that mean no good.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageEncoder, RgbImage, RgbaImage};

use super::*;
use crate::digits::{DIGIT_SIZE, draw_digit};

const GRAY: InputSpec = InputSpec { size: 28, color: Color::Gray };

fn limits() -> ImageLimits {
    ImageLimits::default()
}

fn digit(label: u8) -> GrayImage {
    let side = DIGIT_SIZE as u32;
    GrayImage::from_raw(side, side, draw_digit(label, 1).to_vec()).unwrap()
}

fn encoded(image: &DynamicImage, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encoded(&image.into(), image::ImageFormat::Png)
}

fn jpeg(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.into().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, 95)).unwrap();
    bytes
}

/// A GIF of one frame of 2 x 1 pixels, black and white, drawn by hand from the format's description.
fn gif() -> Vec<u8> {
    let mut bytes = b"GIF89a\x02\0\x01\0\x80\0\0\0\0\0\xff\xff\xff".to_vec();
    // Frame; code size 2; one block: clear (4), 0, 1, end (5) in codes of three bits.
    bytes.extend_from_slice(b"\x2c\0\0\0\0\x02\0\x01\0\0\x02\x02\x44\x0a\0\x3b");
    bytes
}

fn load_one(bytes: Vec<u8>, spec: InputSpec) -> Result<Vec<u8>, ImageError> {
    let (set, mut failures) = load_images(&[ImageSource::Bytes(bytes)], spec, &limits(), &|| false);
    match failures.pop() {
        None => Ok(set.into_pixels()),
        Some(failure) => Err(failure.error),
    }
}

fn pixels(bytes: Vec<u8>, size: u32, color: Color) -> Vec<u8> {
    load_one(bytes, InputSpec { size, color }).unwrap()
}

fn mean_difference(left: &[u8], right: &[u8]) -> f64 {
    assert_eq!(left.len(), right.len());
    let sum: u64 =
        left.iter().zip(right).map(|(&left, &right)| u64::from(left.abs_diff(right))).sum();
    sum as f64 / left.len() as f64
}

#[test]
fn every_format_is_read_and_told_by_its_content() {
    let gray = digit(3);
    let dynamic = DynamicImage::from(gray.clone());
    let cases = [
        (jpeg(gray.clone()), ImageFormat::Jpeg, Color::Gray, 3.0),
        (png(gray.clone()), ImageFormat::Png, Color::Gray, 0.0),
        (encoded(&dynamic, image::ImageFormat::Pnm), ImageFormat::Pnm, Color::Gray, 0.0),
        (encoded(&dynamic, image::ImageFormat::Bmp), ImageFormat::Bmp, Color::Rgb, 0.0),
        (
            encoded(&DynamicImage::from(dynamic.to_rgb8()), image::ImageFormat::WebP),
            ImageFormat::WebP,
            Color::Rgb,
            0.0,
        ),
    ];
    for (bytes, format, color, tolerance) in cases {
        let source = ImageSource::Bytes(bytes.clone());
        let info = probe(&source, &limits()).unwrap();
        assert_eq!(info, ImageInfo { width: 28, height: 28, color, format });
        let read = pixels(bytes.clone(), 28, Color::Gray);
        assert!(mean_difference(&read, gray.as_raw()) <= tolerance, "{format:?}");
        let original = image_bytes(&source, &limits()).unwrap();
        assert_eq!(
            original,
            ImageBytes { media_type: format.media_type(), width: 28, height: 28, bytes }
        );
    }
    let source = ImageSource::Bytes(gif());
    assert_eq!(probe(&source, &limits()).unwrap().format, ImageFormat::Gif);
    assert_eq!(pixels(gif(), 8, Color::Gray).len(), 64);
    // Two pixels, and the square in their middle blends them.
    let blended = pixels(gif(), 8, Color::Gray);
    assert!(blended.iter().any(|&sample| sample > 64 && sample < 192), "{blended:?}");
}

#[test]
fn a_wrong_name_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("숫자 이미지.png");
    fs::write(&path, jpeg(digit(7))).unwrap();
    let info = probe(&ImageSource::Path(path), &limits()).unwrap();
    assert_eq!(info.format, ImageFormat::Jpeg);
}

#[test]
fn grey_colour_depth_and_transparency_become_eight_bits_on_white() {
    let red = RgbImage::from_pixel(4, 4, image::Rgb([255, 0, 0]));
    let planes = pixels(png(red.clone()), 8, Color::Rgb);
    assert_eq!(planes[..64], [255; 64], "channels come first");
    assert_eq!(planes[64..], [0; 128]);
    assert_eq!(pixels(png(red), 8, Color::Gray)[0], 76, "0.299 of 255");
    let deep =
        image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(8, 8, image::Luma([0x8080_u16]));
    assert_eq!(pixels(png(deep), 8, Color::Gray), [0x80; 64]);
    let deep = image::ImageBuffer::<image::Rgba<u16>, _>::from_pixel(
        8,
        8,
        image::Rgba([0, 0xffff, 0, 0xffff]),
    );
    assert_eq!(pixels(png(deep), 8, Color::Rgb)[64..128], [255; 64]);
    for (alpha, expected) in [(0, 255), (255, 0), (128, 127)] {
        let ink = RgbaImage::from_pixel(8, 8, image::Rgba([0, 0, 0, alpha]));
        assert_eq!(pixels(png(ink), 8, Color::Gray), [expected; 64], "alpha {alpha}");
    }
    let half = image::ImageBuffer::<image::LumaA<u8>, _>::from_pixel(8, 8, image::LumaA([100, 0]));
    assert_eq!(pixels(png(half), 8, Color::Gray), [255; 64]);
    assert_eq!(pixels(png(GrayImage::from_pixel(8, 8, image::Luma([9]))), 8, Color::Rgb), [9; 192]);
}

#[test]
fn a_palette_is_looked_up() {
    // Stored, not compressed: eight lines of filter 0 and eight pixels.
    let lines: Vec<u8> = (0..8).flat_map(|_| [0, 1, 1, 1, 1, 1, 1, 1, 1]).collect();
    let bytes = png_of(
        8,
        8,
        3,
        &[(b"PLTE", &[10, 20, 30, 200, 100, 50]), (b"IDAT", &stored_zlib(&lines)), (b"IEND", &[])],
    );
    let planes = pixels(bytes, 8, Color::Rgb);
    assert_eq!((planes[0], planes[64], planes[128]), (200, 100, 50));
}

#[test]
fn exif_orientation_is_followed() {
    // Left half black, right half white; turned by 90 degrees clockwise the upper half is black.
    let image = GrayImage::from_fn(16, 8, |x, _| image::Luma([if x < 8 { 0 } else { 255 }]));
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    encoder.encode_image(&image).unwrap();
    let info = probe(&ImageSource::Bytes(bytes.clone()), &limits()).unwrap();
    assert_eq!((info.width, info.height), (8, 16));
    let square = pixels(bytes, 8, Color::Gray);
    assert!(square[..24].iter().all(|&sample| sample < 60), "{square:?}");
    assert!(square[40..].iter().all(|&sample| sample > 195), "{square:?}");
}

/// A photograph that is decoded at a reduced size is as upright, as square and as grey as the whole one.
#[test]
fn a_large_photograph_is_what_it_is_at_its_whole_size() {
    let photo = RgbImage::from_fn(640, 480, |x, y| {
        image::Rgb([(x * 255 / 640) as u8, (y * 255 / 480) as u8, ((x + y) / 5) as u8])
    });
    let mut turned = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut turned, 95);
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    encoder.encode_image(&photo).unwrap();
    for (bytes, upright) in
        [(jpeg(photo.clone()), photo.clone()), (turned, image::imageops::rotate90(&photo))]
    {
        let info = probe(&ImageSource::Bytes(bytes.clone()), &limits()).unwrap();
        assert_eq!((info.width, info.height), upright.dimensions());
        for (size, color) in [(28, Color::Gray), (64, Color::Rgb), (224, Color::Rgb)] {
            let read = pixels(bytes.clone(), size, color);
            let whole = pixels(png(upright.clone()), size, color);
            let difference = mean_difference(&read, &whole);
            assert!(difference < 1.5, "{size} {color:?}: {difference}");
        }
    }
}

#[test]
fn images_of_other_sizes_are_cropped_to_their_middle() {
    // Three squares side by side; the middle one is what stays.
    let wide = GrayImage::from_fn(90, 30, |x, _| {
        image::Luma([if (30..60).contains(&x) { 200 } else { 10 }])
    });
    assert_eq!(pixels(png(wide.clone()), 30, Color::Gray), [200; 900]);
    assert_eq!(pixels(png(wide.clone()), 15, Color::Gray)[7 * 15 + 7], 200);
    let tall = image::imageops::rotate90(&wide);
    assert_eq!(pixels(png(tall), 30, Color::Gray), [200; 900]);
    let tiny = GrayImage::from_pixel(1, 1, image::Luma([77]));
    assert_eq!(pixels(png(tiny), 28, Color::Gray), [77; 784]);
    let line = GrayImage::from_pixel(1, 4_000, image::Luma([77]));
    assert_eq!(pixels(png(line), 28, Color::Gray), [77; 784]);
}

#[test]
fn what_is_no_image_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        ImageSource::Path(path)
    };
    let failure = |source: ImageSource| {
        load_images(&[source], GRAY, &limits(), &|| false).1.pop().unwrap().error
    };
    for (name, bytes) in [
        ("text.jpg", &b"this is not a picture"[..]),
        ("empty.png", b""),
        ("BM.bmp", b"BMW makes cars"),
        ("P5.pgm", b"P5 is a name"),
        ("tiff.tif", b"II*\0\x08\0\0\0"),
    ] {
        let error = failure(at(name, bytes));
        assert!(matches!(error, ImageError::NotAnImage { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let missing = failure(ImageSource::Path(folder.path().join("missing.jpg")));
    assert!(matches!(missing, ImageError::Missing { .. }), "{missing:?}");
    let below_a_file = at("file", b"");
    let ImageSource::Path(path) = below_a_file else { unreachable!() };
    assert!(matches!(failure(ImageSource::Path(path.join("x.jpg"))), ImageError::Missing { .. }));
    assert!(matches!(failure(ImageSource::Path("with\0zero".into())), ImageError::Missing { .. }));
    let is_folder = failure(ImageSource::Path(folder.path().to_owned()));
    assert!(matches!(is_folder, ImageError::NotAFile { .. }), "{is_folder:?}");
    assert!(matches!(failure(ImageSource::Path("/dev/zero".into())), ImageError::NotAFile { .. }));
}

#[test]
fn a_cut_off_file_is_broken_in_every_format() {
    let photo = DynamicImage::from(RgbImage::from_fn(64, 48, |x, y| {
        image::Rgb([(x * 4) as u8, (y * 5) as u8, (x * y) as u8])
    }));
    let mut progressive_like = jpeg(photo.clone());
    for (name, bytes) in [
        ("png", encoded(&photo, image::ImageFormat::Png)),
        ("webp", encoded(&photo, image::ImageFormat::WebP)),
        ("bmp", encoded(&photo, image::ImageFormat::Bmp)),
        ("pnm", encoded(&photo, image::ImageFormat::Pnm)),
        ("jpeg", std::mem::take(&mut progressive_like)),
        ("gif", gif()),
    ] {
        let whole = load_one(bytes.clone(), GRAY);
        assert!(whole.is_ok(), "{name}: {whole:?}");
        let half = load_one(bytes[..bytes.len() / 2].to_vec(), GRAY);
        assert!(
            matches!(half, Err(ImageError::Broken { .. } | ImageError::NotAnImage { .. })),
            "{name}: {half:?}"
        );
    }
    // A JPEG must be whole to the last byte: the decoder itself would show a grey remainder.
    let bytes = jpeg(photo);
    for length in 3..bytes.len() {
        let cut = load_one(bytes[..length].to_vec(), GRAY);
        assert!(
            matches!(cut, Err(ImageError::Broken { .. })),
            "{length} of {}: {cut:?}",
            bytes.len()
        );
    }
}

#[test]
fn limits_are_checked_before_anything_is_decoded() {
    let header = png_of(30_000, 30_000, 2, &[(b"IDAT", &stored_zlib(&[0; 16]))]);
    let error = load_one(header.clone(), GRAY).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error:?}");
    assert!(error.to_string().contains("30000 x 30000"), "{error}");
    assert!(matches!(
        probe(&ImageSource::Bytes(header), &limits()),
        Err(ImageError::TooLarge { .. })
    ));
    let picture = ImageSource::Bytes(png(GrayImage::new(100, 50)));
    for (limits, named) in [
        (ImageLimits { max_side: 99, ..limits() }, "99 a side"),
        (ImageLimits { max_pixels: 4_999, ..limits() }, "4999 in all"),
        (ImageLimits { max_bytes: 40, ..limits() }, "40 are allowed"),
    ] {
        let error = probe(&picture, &limits).unwrap_err();
        assert!(
            matches!(error, ImageError::TooLarge { .. }) && error.to_string().contains(named),
            "{error}"
        );
        assert!(matches!(image_bytes(&picture, &limits), Err(ImageError::TooLarge { .. })));
    }
    let exact = ImageLimits { max_side: 100, max_pixels: 5_000, ..limits() };
    assert!(probe(&picture, &exact).is_ok());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.png");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(probe(&ImageSource::Path(path), &limits()), Err(ImageError::TooLarge { .. })));
}

/// Other people's bytes: every single-byte change of small files is survived, and so are random ones.
#[test]
fn hostile_bytes_never_panic() {
    let photo = DynamicImage::from(RgbImage::from_fn(9, 7, |x, y| {
        image::Rgb([(x * 28) as u8, (y * 36) as u8, 9])
    }));
    let files = [
        encoded(&photo, image::ImageFormat::Png),
        encoded(&photo, image::ImageFormat::WebP),
        encoded(&photo, image::ImageFormat::Bmp),
        encoded(&photo, image::ImageFormat::Pnm),
        jpeg(photo.clone()),
        // Large enough to be decoded at a reduced size.
        jpeg(photo.resize_exact(72, 56, image::imageops::FilterType::Triangle)),
        gif(),
    ];
    let small = ImageLimits { max_bytes: 1 << 20, max_pixels: 1 << 16, max_side: 1 << 12 };
    let mut state = 1_u32;
    let mut tried = 0;
    for file in &files {
        for place in 0..file.len() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            for value in [0, 0xff, file[place] ^ (state >> 24) as u8] {
                let mut changed = file.clone();
                changed[place] = value;
                let source = ImageSource::Bytes(changed);
                let (set, failures) =
                    load_images(std::slice::from_ref(&source), GRAY, &small, &|| false);
                assert_eq!(set.len() + failures.len(), 1);
                let drawn = preview(&source, &small, 10, 5);
                assert_eq!(drawn.is_ok(), !set.is_empty());
                tried += 1;
            }
        }
    }
    assert!(tried > 1_000, "{tried}");
}

#[test]
fn readable_images_keep_their_order_and_failures_their_places() {
    let good: Vec<Vec<u8>> =
        (0..40).map(|value| png(GrayImage::from_pixel(28, 28, image::Luma([value])))).collect();
    let sources: Vec<ImageSource> = good
        .iter()
        .enumerate()
        .map(|(place, bytes)| {
            ImageSource::Bytes(if place % 7 == 3 { b"text".to_vec() } else { bytes.clone() })
        })
        .collect();
    let (set, failures) = load_images(&sources, GRAY, &limits(), &|| false);
    assert_eq!(
        failures.iter().map(|failure| failure.index).collect::<Vec<_>>(),
        [3, 10, 17, 24, 31, 38]
    );
    let expected: Vec<u8> = (0..40).filter(|place| place % 7 != 3).collect();
    assert_eq!(set.shape(), [34, 1, 28, 28]);
    assert_eq!((0..set.len()).map(|place| set.image(place)[0]).collect::<Vec<_>>(), expected);
    let chosen = set.select(&[33, 0]);
    assert_eq!((chosen.image(0)[0], chosen.image(1)[0]), (39, 0));
    assert_eq!(set.range(1, 3).len(), 2 * 784);
    assert!(ImageSet::new(GRAY, vec![0; 785]).is_none());
    assert_eq!(ImageSet::new(GRAY, vec![0; 784]).map(|set| set.len()), Some(1));
    let (none, failures) = load_images(&[], GRAY, &limits(), &|| false);
    assert!(none.is_empty() && failures.is_empty());
}

#[test]
fn loading_stops_when_asked() {
    let bytes = png(digit(5));
    let sources = vec![ImageSource::Bytes(bytes); 500];
    let asked = AtomicUsize::new(0);
    let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 10;
    let (set, failures) = load_images(&sources, GRAY, &limits(), &stop);
    assert_eq!((set.len(), failures.len()), (10, 0));
}

/// Threads take turns where the limit allows one image at a time, and nobody waits for ever.
#[test]
fn decoding_shares_one_images_pixels() {
    let bytes = png(GrayImage::from_pixel(30, 30, image::Luma([5])));
    let sources = vec![ImageSource::Bytes(bytes); 64];
    let tight = ImageLimits { max_pixels: 900, ..limits() };
    let (set, failures) = load_images(&sources, GRAY, &tight, &|| false);
    assert_eq!((set.len(), failures.len()), (64, 0));
}

#[test]
fn a_shape_is_chosen_by_what_the_images_show() {
    let bytes = |image: DynamicImage| ImageSource::Bytes(png(image));
    let gray = |side| bytes(GrayImage::new(side, side).into());
    let gray_in_rgb =
        |side| ImageSource::Bytes(jpeg(RgbImage::from_pixel(side, side, image::Rgb([90, 90, 90]))));
    let red = |side| bytes(RgbImage::from_pixel(side, side, image::Rgb([200, 10, 10])).into());
    let choose =
        |sources: &[ImageSource]| choose_input_spec(sources, None, None, &limits()).unwrap();
    assert_eq!(choose(&vec![gray(28); 100]), GRAY);
    assert_eq!(choose(&[gray_in_rgb(28), gray(28)]).color, Color::Gray);
    assert_eq!(choose(&[gray(28), red(28)]).color, Color::Rgb);
    for (side, expected) in
        [(1, 8), (32, 32), (64, 64), (65, 96), (100, 128), (224, 224), (900, 224)]
    {
        assert_eq!(choose(&[gray(side)]).size, expected, "{side}");
    }
    let mixed = [gray(20), gray(28), gray(28), gray(28), gray(600)];
    assert_eq!(choose(&mixed).size, 28);
    let fixed = choose_input_spec(&[gray(28)], Some(64), Some(Color::Rgb), &limits()).unwrap();
    assert_eq!(fixed, InputSpec { size: 64, color: Color::Rgb });
    assert_eq!(choose_input_spec(&[red(28)], None, Some(Color::Gray), &limits()).unwrap(), GRAY);
    let broken = ImageSource::Bytes(b"text".to_vec());
    assert_eq!(choose(&[broken.clone(), gray(28)]), GRAY);
    assert!(matches!(
        choose_input_spec(&[broken], None, None, &limits()),
        Err(ImageError::NotAnImage { .. })
    ));
    assert!(matches!(choose_input_spec(&[], None, None, &limits()), Err(ImageError::NoImages)));
    for size in [0, 7, 1025] {
        let refused = choose_input_spec(&[gray(28)], Some(size), None, &limits());
        assert!(matches!(refused, Err(ImageError::BadSize { .. })), "{size}");
    }
}

#[test]
fn a_digit_is_drawn_in_half_blocks() {
    let mut corner = GrayImage::new(4, 4);
    corner.put_pixel(0, 0, image::Luma([255]));
    corner.put_pixel(1, 1, image::Luma([255]));
    corner.put_pixel(2, 2, image::Luma([255]));
    corner.put_pixel(2, 3, image::Luma([255]));
    let drawn = preview(&ImageSource::Bytes(png(corner)), &limits(), 28, 14).unwrap();
    assert_eq!(drawn.text, "▀▄  \n  █ ");
    assert_eq!((drawn.media_type, drawn.width, drawn.height), ("image/png", 4, 4));
    let drawn = preview(&ImageSource::Bytes(jpeg(digit(4))), &limits(), 28, 14).unwrap();
    let lines: Vec<&str> = drawn.text.lines().collect();
    assert_eq!(lines.len(), 14);
    assert!(lines.iter().all(|line| line.chars().count() == 28), "{}", drawn.text);
    let blocks = drawn.text.chars().filter(|&letter| letter != ' ' && letter != '\n').count();
    assert!((25..200).contains(&blocks), "{blocks}\n{}", drawn.text);
}

#[test]
fn previews_keep_proportions_and_fit() {
    for (width, height, columns, rows, shown) in [
        (400, 200, 40, 20, (40, 10)),
        (200, 400, 40, 20, (20, 20)),
        (1, 1, 40, 20, (1, 1)),
        (3_000, 1, 40, 20, (40, 1)),
        (10, 10, 0, 0, (1, 1)),
    ] {
        let source = ImageSource::Bytes(png(GrayImage::new(width, height)));
        let text = preview(&source, &limits(), columns, rows).unwrap().text;
        let size = (text.lines().next().unwrap().chars().count(), text.lines().count());
        assert_eq!(size, shown, "{width} x {height}");
    }
    let white = preview(
        &ImageSource::Bytes(png(GrayImage::from_pixel(4, 4, image::Luma([255])))),
        &limits(),
        4,
        2,
    )
    .unwrap();
    assert_eq!(white.text, "████\n████");
}

#[test]
fn permission_is_an_error_of_the_system() {
    let error = ImageError::Io {
        path: Path::new("/x").to_owned(),
        source: std::io::ErrorKind::PermissionDenied.into(),
    };
    assert!(
        std::error::Error::source(&error)
            .is_some_and(|source| source.to_string().contains("permission"))
    );
}

/// A PNG of 8 bits a sample from its header's values and its further chunks.
fn png_of(width: u32, height: u32, color_type: u8, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend_from_slice(&[8, color_type, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [(b"IHDR", header.as_slice())].iter().chain(chunks) {
        let checked = [name.as_slice(), data].concat();
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&checked);
        bytes.extend_from_slice(&crc32(&checked).to_be_bytes());
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// A zlib stream of one stored block: header, block, Adler-32.
fn stored_zlib(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let (mut low, mut high) = (1_u32, 0_u32);
    for &byte in data {
        low = (low + u32::from(byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    let checksum = (high << 16) | low;
    [
        &[0x78, 0x01, 0x01][..],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        data,
        &checksum.to_be_bytes(),
    ]
    .concat()
}
