use super::*;

fn rectangle(x: f32, y: f32, width: f32, height: f32) -> Shape {
    Shape::Rectangle {
        x,
        y,
        width,
        height,
    }
}

#[test]
fn a_picture_full_of_noise_fits_its_limit_all_the_same() {
    let mut seed = 1u32;
    let noise = RgbImage::from_fn(640, 480, |_, _| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [a, b, c, _] = seed.to_be_bytes();
        Rgb([a, b, c])
    });
    let jpeg = jpeg_at_most(&noise, 96 * 1024);
    assert!(jpeg.len() <= 96 * 1024, "{} bytes", jpeg.len());
    assert!(image::load_from_memory(&jpeg).is_ok());
}

#[test]
fn a_picture_that_fits_keeps_its_size() {
    let jpeg = jpeg_at_most(&RgbImage::new(640, 480), 96 * 1024);
    let picture = image::load_from_memory(&jpeg).unwrap();
    assert_eq!((picture.width(), picture.height()), (640, 480));
}

#[test]
fn zones_are_outlined_where_they_are() {
    let mut picture = RgbImage::new(200, 200);
    let mark = |labels| Mark {
        shape: rectangle(0.5, 0.5, 0.4, 0.4),
        labels,
    };
    zones(&mut picture, &[mark(vec![])]);
    assert!(picture.get_pixel(99, 140).0[0] > 160, "its edge is grey");
    assert_eq!(
        *picture.get_pixel(140, 140),
        Rgb([0; 3]),
        "its inside stays"
    );
    assert_eq!(*picture.get_pixel(40, 40), Rgb([0; 3]), "its outside stays");
    zones(&mut picture, &[mark(vec![("mela".to_owned(), 0.9)])]);
    let edge = picture.get_pixel(99, 160).0;
    assert!(
        edge[1] > 180 && edge[0] < 120,
        "its edge is green: {edge:?}"
    );
    let chip = picture.get_pixel(102, 92).0;
    assert!(chip[1] > 150, "a chip stands over the corner: {chip:?}");
}

#[test]
fn a_bar_is_as_long_as_its_probability() {
    let filled = |p: f32| {
        let mut picture = RgbImage::new(400, 300);
        scores(&mut picture, &[("mela".to_owned(), p)]);
        picture.pixels().filter(|pixel| **pixel == GREEN).count()
    };
    assert_eq!(filled(0.0), 0);
    assert!(filled(0.3) * 2 < filled(0.9));
}

#[test]
fn accents_are_drawn_and_typographic_marks_become_plain_ones() {
    let drawn = |text: &str| {
        let mut picture = RgbImage::new(300, 100);
        scores(&mut picture, &[(text.to_owned(), 0.5)]);
        picture
    };
    assert_ne!(drawn("perché"), drawn("perche"));
    assert_ne!(drawn("perché"), drawn("perch?"));
    assert_eq!(drawn("l’uva"), drawn("l'uva"));
}

#[test]
fn nearly_certain_is_not_shown_as_certain() {
    let shown: Vec<String> = [1.0, 0.996, 0.86, 0.001, 0.0].map(percent).into();
    assert_eq!(shown, ["100%", "99.6%", "86%", "<1%", "0%"]);
}

#[test]
fn any_picture_and_any_text_can_be_annotated() {
    let long = "è così perché più ".repeat(40);
    for (width, height) in [(0, 0), (1, 1), (3, 200), (200, 3), (40, 40), (1920, 1080)] {
        let mut picture = RgbImage::new(width, height);
        let labels = [
            (long.clone(), 2.0),
            ("\u{1F34C}".to_owned(), f32::NAN),
            (String::new(), -1.0),
        ];
        scores(&mut picture, &labels);
        let shapes = [
            Shape::Polygon(vec![[0.0, 0.0], [9.0, 0.5], [0.2, -1.0]]),
            Shape::Polygon(vec![[0.5, 0.5]; 3]),
            Shape::Full,
            rectangle(0.9, 0.9, 0.3, 0.0),
        ];
        for shape in shapes {
            let labels = labels.to_vec();
            zones(&mut picture, &[Mark { shape, labels }]);
        }
    }
}
