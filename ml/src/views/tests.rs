//! Views: what they depend on, what a seed means, single augmentations on the CPU, and the device's views against the CPU's.

use burn::tensor::Device;

use super::geometry::{AffineMap, Deformation};
use super::on_device::{DeviceDrawer, ResidentImages};
use super::pixels::median_of_border;
use super::plan::Rectangle;
use super::*;
use crate::images::ImageSet;
use crate::weights::read;

const GRAY: InputSpec = InputSpec { size: 12, color: Color::Gray };
const LARGE: InputSpec = InputSpec { size: 70, color: Color::Rgb };

fn noise(input: InputSpec, count: usize) -> ImageSet {
    let mut random = Random::keyed(&[9]);
    let pixels = (0..count * input.image_len()).map(|_| random.next() as u8).collect();
    ImageSet::new(input, pixels).unwrap()
}

fn draw(drawer: &ViewDrawer, images: &ImageSet, indices: &[usize], epoch: u32) -> Vec<f32> {
    drawer.draw_batch(images.select(indices).pixels(), indices, epoch)
}

#[test]
fn names_parse() {
    for augmentation in Augmentation::ALL {
        assert_eq!(augmentation.name().parse::<Augmentation>().unwrap(), augmentation);
    }
    assert!(matches!("mirror".parse::<Augmentation>(), Err(MlError::UnknownName { .. })));
}

#[test]
fn digits_are_never_flipped_or_recoloured() {
    let defaults = Augmentation::defaults(GRAY);
    for harmful in
        [Augmentation::HorizontalFlip, Augmentation::ResizedCrop, Augmentation::ColorJitter]
    {
        assert!(!defaults.contains(&harmful));
    }
    assert!(Augmentation::defaults(LARGE).contains(&Augmentation::HorizontalFlip));
}

#[test]
fn views_depend_on_seed_epoch_and_image_and_on_nothing_else() {
    for input in [GRAY, LARGE] {
        let images = noise(input, 6);
        let drawer = |seed| ViewDrawer::new(input, &Augmentation::ALL, seed);
        let all = draw(&drawer(1), &images, &[0, 1, 2, 3, 4, 5], 2);
        let length = input.image_len();
        let some = draw(&drawer(1), &images, &[4, 1], 2);
        for (place, index) in [(0, 4), (1, 1), (2, 6 + 4), (3, 6 + 1)] {
            assert_eq!(some[place * length..][..length], all[index * length..][..length]);
        }
        assert_ne!(all, draw(&drawer(2), &images, &[0, 1, 2, 3, 4, 5], 2));
        assert_ne!(all, draw(&drawer(1), &images, &[0, 1, 2, 3, 4, 5], 3));
        assert_ne!(all[..length], all[6 * length..][..length], "two views differ");
        assert!(all.iter().all(|value| (0.0..=1.0).contains(value)));
    }
}

#[test]
fn views_of_a_seed_stay_what_they_are() {
    let gray = [
        [0.378_926, 0.537_359, 0.441_878],
        [0.244_589, 0.352_027, 0.361_057],
        [0.438_701, 0.443_245, 0.433_197],
        [0.686_591, 0.250_054, 0.443_619],
        [0.297_449, 0.563_710, 0.642_505],
        [0.536_393, 0.578_553, 0.411_583],
        [0.390_074, 0.346_939, 0.435_122],
        [0.394_245, 0.750_874, 0.407_899],
        [0.541_809, 0.285_586, 0.269_191],
        [0.438_794, 0.433_761, 0.581_994],
        [0.516_568, 0.258_152, 0.225_426],
        [0.524_750, 0.245_160, 0.455_667],
    ];
    let large = [
        [0.581_072, 0.757_447, 0.177_697],
        [0.514_044, 0.266_889, 0.318_013],
        [0.407_783, 0.428_840, 0.364_608],
        [0.865_092, 0.718_926, 0.482_770],
        [0.379_504, 0.793_827, 0.358_529],
        [0.753_351, 0.515_795, 0.395_748],
        [0.113_948, 0.100_050, 0.123_638],
        [0.051_928, 0.115_552, 0.000_000],
        [0.655_769, 0.649_760, 0.805_443],
        [0.458_537, 0.577_174, 0.554_199],
        [0.344_488, 0.443_578, 0.355_032],
        [0.429_601, 0.452_329, 0.392_777],
    ];
    for (input, expected) in [(GRAY, gray), (LARGE, large)] {
        let drawer = ViewDrawer::new(input, &Augmentation::ALL, 1);
        let views = draw(&drawer, &noise(input, 6), &[0, 1, 2, 3, 4, 5], 2);
        let length = input.image_len();
        for (view, expected) in views.chunks_exact(length).zip(expected) {
            for (place, expected) in
                [length / 3, length / 2 + 5, length * 3 / 4 - 2].into_iter().zip(expected)
            {
                assert!((view[place] - expected).abs() < 2e-4, "{} for {expected}", view[place]);
            }
        }
    }
}

#[test]
fn every_augmentation_changes_an_image() {
    let indices: Vec<usize> = (0..40).collect();
    let (images, length) = (noise(LARGE, 40), LARGE.image_len());
    let plain = draw(&ViewDrawer::new(LARGE, &[], 1), &images, &indices, 1);
    assert_eq!(plain[..length], plain[40 * length..][..length]);
    for augmentation in Augmentation::ALL {
        let changed = draw(&ViewDrawer::new(LARGE, &[augmentation], 1), &images, &indices, 1);
        assert_ne!(plain, changed, "{augmentation}");
    }
}

/// The view of `image` that `plan` makes.
fn render(input: InputSpec, image: &[u8], plan: &ViewPlan) -> Vec<f32> {
    let splines = spline_weights(input.size as usize);
    let mut renderer = Renderer::new(input, &splines);
    renderer.load(image);
    let mut view = vec![0.0; image.len()];
    renderer.render(plan, &mut view);
    view
}

fn nothing(input: InputSpec) -> ViewPlan {
    ViewPlan::draw(&mut Random::keyed(&[]), input, &[])
}

#[test]
fn maps_move_pixels_where_they_should() {
    let input = InputSpec { size: 4, color: Color::Gray };
    let mut image: Vec<u8> = (0..16).map(|value| value * 10).collect();
    // The median of the border.
    image[15] = 70;
    let sample = |map: AffineMap| {
        let deformation = Some(Deformation::new(map, None));
        let view = render(input, &image, &ViewPlan { deformation, ..nothing(input) });
        view.iter().map(|value| (value * 255.0).round() as u8).collect::<Vec<_>>()
    };
    assert_eq!(sample(AffineMap::IDENTITY), image);
    assert_eq!(sample(AffineMap::FLIP)[..4], [30, 20, 10, 0]);
    // Half the square is two pixels: everything comes from two columns further right, and the background follows.
    let moved = sample(AffineMap { x0: 1.0, ..AffineMap::IDENTITY });
    assert_eq!(moved[..4], [20, 30, 70, 70]);
    let quarter = sample(AffineMap { xx: 0.0, xy: -1.0, yx: 1.0, yy: 0.0, ..AffineMap::IDENTITY });
    assert_eq!(quarter[..4], [30, 70, 110, 70]);
    for far in [-1e9, -3.0, 3.0, 1e9] {
        assert_eq!(sample(AffineMap { x0: far, y0: -far, ..AffineMap::IDENTITY }), [70; 16]);
    }
}

#[test]
fn a_background_of_any_colour_is_found() {
    let mut plane = vec![200_u8; 25];
    plane[12] = 3;
    plane[2] = 0;
    assert!((median_of_border(&plane, 5) - 200.0 / 255.0).abs() < 1e-6);
    assert_eq!(median_of_border(&[7], 1), 7.0 / 255.0);
}

#[test]
fn blur_keeps_the_mean_and_spreads_a_point() {
    let input = InputSpec { size: 40, color: Color::Gray };
    let mut image = vec![0; 40 * 40];
    image[20 * 40 + 20] = 255;
    let view = render(input, &image, &ViewPlan { blur: Some(1.0), ..nothing(input) });
    assert!((view.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(view[20 * 40 + 20] < 0.2 && view[20 * 40 + 21] > 0.05);
    assert!((view[20 * 40 + 21] - view[21 * 40 + 20]).abs() < 1e-7);
    // The border is repeated: what is even stays even.
    let even = render(input, &[51; 40 * 40], &ViewPlan { blur: Some(1.5), ..nothing(input) });
    assert!(even.iter().all(|value| (value - 0.2).abs() < 1e-6));
}

#[test]
fn what_is_erased_is_background() {
    let image = noise(GRAY, 1);
    let erased = Some(Rectangle { columns: 2..5, rows: 10..12 });
    let view = render(GRAY, image.pixels(), &ViewPlan { erased, ..nothing(GRAY) });
    let background = median_of_border(image.pixels(), 12);
    for (place, (&value, &byte)) in view.iter().zip(image.pixels()).enumerate() {
        let inside = (2..5).contains(&(place % 12)) && place / 12 >= 10;
        assert_eq!(value, if inside { background } else { f32::from(byte) / 255.0 });
    }
}

/// The largest difference between the views of a device and those of the CPU.
pub(crate) fn apart(
    device: &Device,
    input: InputSpec,
    augmentations: &[Augmentation],
    count: usize,
) -> f32 {
    let images = noise(input, count + 1);
    let indices: Vec<usize> = (1..=count).rev().collect();
    let drawer = ViewDrawer::new(input, augmentations, 4);
    let expected = draw(&drawer, &images, &indices, 1);
    let resident = ResidentImages::new(&images, device).unwrap().expect("a few images fit");
    let drawer = DeviceDrawer::new(&drawer, device);
    let views = drawer.draw(&resident, &indices, &indices, 1);
    let views = read(views).expect("views can be read");
    assert_eq!(views.len(), expected.len());
    views.iter().zip(&expected).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// Views of images that lie on a device, and of the same ones sent for this batch.
pub(crate) fn resident_and_sent(
    device: &Device,
    input: InputSpec,
    indices: &[usize],
) -> (Vec<f32>, Vec<f32>) {
    let images = noise(input, 6);
    let drawer =
        DeviceDrawer::new(&ViewDrawer::new(input, &Augmentation::defaults(input), 4), device);
    let resident = ResidentImages::new(&images, device).unwrap().expect("a few images fit");
    let sent = ResidentImages::upload(input, images.select(indices).pixels(), device);
    let rows: Vec<usize> = (0..indices.len()).collect();
    let values = |images: &ResidentImages, rows: &[usize]| {
        read(drawer.draw(images, rows, indices, 1)).expect("views can be read")
    };
    (values(&resident, indices), values(&sent, &rows))
}
