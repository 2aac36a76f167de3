use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::frame::{Bayer, BayerOrder, Colorimetry, Range, YcbcrMatrix};

const ORDERS: [BayerOrder; 4] = [
    BayerOrder::Rggb,
    BayerOrder::Bggr,
    BayerOrder::Grbg,
    BayerOrder::Gbrg,
];

fn frame(format: PixelFormat, width_px: u32, height_px: u32, data: Vec<u8>) -> Frame {
    Frame {
        sequence: 0,
        captured_at: Instant::now(),
        format,
        width_px,
        height_px,
        stride_bytes: 0,
        colorimetry: Colorimetry::default(),
        data,
    }
}

fn colorimetries() -> impl Iterator<Item = Colorimetry> {
    [YcbcrMatrix::Bt601, YcbcrMatrix::Bt709]
        .into_iter()
        .flat_map(|matrix| [Range::Limited, Range::Full].map(|range| Colorimetry { matrix, range }))
}

/// The definition, in floating point.
fn reference_rgb(c: Colorimetry, y: u8, cb: u8, cr: u8) -> [f64; 3] {
    let (kr, kb) = match c.matrix {
        YcbcrMatrix::Bt601 => (0.299, 0.114),
        YcbcrMatrix::Bt709 => (0.2126, 0.0722),
    };
    let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    let (y, cb, cr) = match c.range {
        Range::Limited => ((y - 16.0) / 219.0, cb / 224.0, cr / 224.0),
        Range::Full => (y / 255.0, cb / 255.0, cr / 255.0),
    };
    let r = y + 2.0 * (1.0 - kr) * cr;
    let b = y + 2.0 * (1.0 - kb) * cb;
    let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
    [r, g, b].map(|v| (v * 255.0).clamp(0.0, 255.0))
}

fn assert_near(got: [u8; 3], want: [f64; 3], what: &str) {
    for (got, want) in got.into_iter().zip(want) {
        assert!(
            (f64::from(got) - want).abs() <= 1.0,
            "{what}: {got} is not {want:.2}"
        );
    }
}

/// Codes that include every corner of the ranges.
const CODES: [u8; 12] = [0, 1, 15, 16, 17, 77, 128, 180, 235, 240, 254, 255];

#[test]
fn ycbcr_is_within_one_code_of_the_definition() {
    for colorimetry in colorimetries() {
        for y in CODES {
            for cb in CODES {
                for cr in CODES {
                    let mut yuyv = frame(PixelFormat::Yuyv, 2, 1, vec![y, cb, y, cr]);
                    yuyv.colorimetry = colorimetry;
                    let want = reference_rgb(colorimetry, y, cb, cr);
                    let what = format!("{colorimetry:?} {y} {cb} {cr}");
                    assert_near(decode(&yuyv).unwrap().get_pixel(1, 0).0, want, &what);
                }
            }
        }
    }
}

#[test]
fn the_three_ycbcr_layouts_agree_also_with_odd_sizes_and_padded_rows() {
    let (width, height, padding) = (5_u32, 3_u32, 6_usize);
    let luma = |x: u32, y: u32| u8::try_from(20 + 40 * x + 7 * y).unwrap();
    let chroma = |x: u32| {
        (
            u8::try_from(60 + 30 * (x / 2)).unwrap(),
            200 - u8::try_from(x / 2 * 25).unwrap(),
        )
    };
    let (mut yuyv, mut uyvy, mut nv12) = (vec![], vec![], vec![]);
    for y in 0..height {
        for x in (0..width).step_by(2) {
            let (cb, cr) = chroma(x);
            let y1 = if x + 1 < width { luma(x + 1, y) } else { 0 };
            yuyv.extend([luma(x, y), cb, y1, cr]);
            uyvy.extend([cb, luma(x, y), cr, y1]);
        }
        yuyv.extend(vec![0xee; padding]);
        uyvy.extend(vec![0xee; padding]);
        nv12.extend((0..width).map(|x| luma(x, y)));
        nv12.extend(vec![0xee; padding + 1]);
    }
    for _ in 0..height.div_ceil(2) {
        for x in (0..width).step_by(2) {
            let (cb, cr) = chroma(x);
            nv12.extend([cb, cr]);
        }
        nv12.extend(vec![0xee; padding]);
    }
    // Drivers may leave out what pads the last row.
    for (data, format, stride_bytes) in [
        (&mut yuyv, PixelFormat::Yuyv, 18),
        (&mut uyvy, PixelFormat::Uyvy, 18),
        (&mut nv12, PixelFormat::Nv12, 12),
    ] {
        data.truncate(data.len() - padding);
        let mut frame = frame(format, width, height, data.clone());
        frame.stride_bytes = stride_bytes;
        let image = decode(&frame).unwrap();
        for (x, y, pixel) in image.enumerate_pixels() {
            let (cb, cr) = chroma(x);
            let want = reference_rgb(Colorimetry::default(), luma(x, y), cb, cr);
            assert_near(pixel.0, want, &format!("{format:?} {x},{y}"));
        }
    }
}

#[test]
fn rgb_bgr_and_grey_keep_their_values() {
    let rgb = decode(&frame(PixelFormat::Rgb24, 1, 2, vec![1, 2, 3, 4, 5, 6])).unwrap();
    assert_eq!(rgb.as_raw(), &[1, 2, 3, 4, 5, 6]);
    let bgr = decode(&frame(PixelFormat::Bgr24, 1, 2, vec![3, 2, 1, 6, 5, 4])).unwrap();
    assert_eq!(bgr, rgb);
    let grey = decode(&frame(PixelFormat::Grey, 2, 1, vec![9, 200])).unwrap();
    assert_eq!(grey.as_raw(), &[9, 9, 9, 200, 200, 200]);
}

#[test]
fn a_short_frame_is_refused_with_its_numbers() {
    let error = decode(&frame(PixelFormat::Nv12, 64, 48, vec![0; 4607])).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("4607") && message.contains("4608"),
        "{message}"
    );
}

#[test]
fn a_stride_shorter_than_a_row_is_refused() {
    let mut frame = frame(PixelFormat::Yuyv, 64, 48, vec![0; 64 * 48 * 2]);
    frame.stride_bytes = 127;
    assert!(matches!(
        decode(&frame),
        Err(DecodeError::Stride { row_bytes: 128, .. })
    ));
}

#[test]
fn sizes_nobody_has_are_refused_before_memory_is_taken() {
    for (width, height) in [
        (0, 480),
        (640, 0),
        (8193, 1),
        (8000, 8000),
        (u32::MAX, u32::MAX),
    ] {
        let result = decode(&frame(PixelFormat::Grey, width, height, vec![]));
        assert!(
            matches!(result, Err(DecodeError::Dimensions { .. })),
            "{width}x{height}"
        );
    }
}

/// sRGB code to linear 0–1.
fn linear(code: u8) -> f64 {
    let v = f64::from(code) / 255.0;
    if v <= 0.04045 {
        v / 12.92
    } else {
        ((v + 0.055) / 1.055).powf(2.4)
    }
}

/// What a sensor of this layout makes of an RGB picture: one linear sample a pixel.
fn mosaic(image: &RgbImage, bayer: Bayer, shift: u32) -> Vec<u8> {
    let colours = match bayer.order {
        BayerOrder::Rggb => [0, 1, 1, 2],
        BayerOrder::Bggr => [2, 1, 1, 0],
        BayerOrder::Grbg => [1, 0, 2, 1],
        BayerOrder::Gbrg => [1, 2, 0, 1],
    };
    let mut data = Vec::new();
    for (x, y, pixel) in image.enumerate_pixels() {
        let value = linear(pixel.0[colours[(y % 2 * 2 + x % 2) as usize]]);
        let top = f64::from((1_u32 << bayer.bits) - 1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0–4095"
        )]
        let sample = (value * top).round() as u16;
        if bayer.bits == 8 {
            data.push(u8::try_from(sample).unwrap());
        } else {
            data.extend((sample << shift).to_le_bytes());
        }
    }
    data
}

/// A smooth picture whose channels have the same mean, so that grey-world leaves it as it is.
fn balanced_picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let ramp = |v: u32, of: u32| u8::try_from(255 * v / (of - 1)).unwrap();
        let third = ((x + 1) * 3).div_ceil(width).clamp(1, 3) as usize - 1;
        let mut pixel = [40, 40, 40].map(|v: u8| v.max(ramp(y, height) / 2));
        pixel[third] = 230;
        image::Rgb(pixel)
    })
}

#[test]
fn every_bayer_order_and_width_gives_the_picture_back() {
    let picture = balanced_picture(30, 24);
    for order in ORDERS {
        for (bits, shift) in [(8, 0), (10, 0), (12, 0), (10, 6), (12, 4)] {
            let bayer = Bayer { order, bits };
            let raw = mosaic(&picture, bayer, shift);
            let decoded = decode(&frame(PixelFormat::Bayer(bayer), 30, 24, raw)).unwrap();
            // Away from the colour edges, the borders included; black level and balance move codes
            // a little.
            for x in [0, 4, 13, 15, 24, 29] {
                for y in [0, 5, 12, 23] {
                    let (got, want) = (decoded.get_pixel(x, y).0, picture.get_pixel(x, y).0);
                    for (got, want) in got.into_iter().zip(want) {
                        assert!(
                            got.abs_diff(want) <= 40,
                            "{bayer:?} << {shift} at {x},{y}: {got} is not {want}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_greenish_sensor_is_balanced_to_grey() {
    let bayer = Bayer {
        order: BayerOrder::Rggb,
        bits: 8,
    };
    let (width, height) = (16, 16);
    let data = (0..height)
        .flat_map(|y| (0..width).map(move |x| if (x + y) % 2 == 1 { 160 } else { 80 + x }))
        .collect();
    let image = decode(&frame(PixelFormat::Bayer(bayer), 16, 16, data)).unwrap();
    let mean = |c: usize| image.pixels().map(|p| f64::from(p.0[c])).sum::<f64>() / 256.0;
    assert!((mean(0) - mean(1)).abs() < 10.0, "{} {}", mean(0), mean(1));
    assert!((mean(2) - mean(1)).abs() < 10.0, "{} {}", mean(2), mean(1));
}

#[test]
fn a_covered_sensor_stays_dark() {
    let bayer = Bayer {
        order: BayerOrder::Rggb,
        bits: 10,
    };
    // Black level 64 of 1023, a little noise.
    let data = (0..32 * 32_u16)
        .flat_map(|n| (62 + n % 5).to_le_bytes())
        .collect();
    let image = decode(&frame(PixelFormat::Bayer(bayer), 32, 32, data)).unwrap();
    assert!(image.iter().all(|&v| v < 20), "{:?}", image.iter().max());
}

fn jpeg_bytes(image: &image::DynamicImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    image.write_with_encoder(encoder).unwrap();
    bytes
}

fn textured(width: u32, height: u32) -> image::DynamicImage {
    RgbImage::from_fn(width, height, |x, y| {
        let v = |n: u32| u8::try_from(n % 256).unwrap();
        image::Rgb([v(x * 7 + y), v(y * 5 + x * x / 9), v(x * y / 11)])
    })
    .into()
}

/// Removes every DHT segment, as Motion JPEG does.
fn without_huffman_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (jpeg[..2].to_vec(), 2);
    loop {
        let length = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        match jpeg[at + 1] {
            0xc4 => {}
            0xda => return [out.as_slice(), &jpeg[at..]].concat(),
            _ => out.extend(&jpeg[at..at + length]),
        }
        at += length;
    }
}

#[test]
fn a_jpeg_without_huffman_tables_decodes_like_the_one_with_them() {
    let whole = jpeg_bytes(&textured(320, 64), 80);
    let stripped = without_huffman_tables(&whole);
    assert!(stripped.len() < whole.len());
    let decode = |data| decode(&frame(PixelFormat::Mjpeg, 320, 64, data)).unwrap();
    assert_eq!(decode(stripped), decode(whole));
}

#[test]
fn greyscale_jpeg_becomes_three_equal_channels() {
    let grey = image::DynamicImage::from(textured(320, 40).to_luma8());
    let image = decode(&frame(PixelFormat::Mjpeg, 0, 0, jpeg_bytes(&grey, 95))).unwrap();
    assert_eq!(image.dimensions(), (320, 40));
    assert!(image.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]));
    let grey = grey.to_luma8();
    let error = image.pixels().zip(grey.pixels());
    assert!(error.map(|(a, b)| a.0[0].abs_diff(b.0[0])).max() < Some(40));
}

#[test]
fn padding_after_the_end_of_a_jpeg_is_ignored() {
    let whole = jpeg_bytes(&textured(320, 64), 80);
    let padded = [whole.as_slice(), &[0; 1000]].concat();
    let decode = |data| decode(&frame(PixelFormat::Mjpeg, 320, 64, data)).unwrap();
    assert!(is_complete_jpeg(&padded));
    assert_eq!(decode(padded), decode(whole));
}

#[test]
fn a_jpeg_cut_anywhere_is_an_error_and_never_half_a_picture() {
    let whole = jpeg_bytes(&textured(320, 64), 80);
    for cut in (0..whole.len()).step_by(97) {
        let result = decode(&frame(PixelFormat::Mjpeg, 320, 64, whole[..cut].to_vec()));
        assert!(result.is_err(), "cut at {cut} of {}", whole.len());
        assert!(!is_complete_jpeg(&whole[..cut]));
        // Also when the end-of-image marker came through but bytes before it did not. The last few
        // blocks cannot be told from a complete picture, and are no half of one.
        if cut > 700 && cut + 64 < whole.len() {
            let gap = [&whole[..cut], &[0xff, 0xd9]].concat();
            let result = decode(&frame(PixelFormat::Mjpeg, 320, 64, gap));
            assert!(result.is_err(), "gap after {cut} of {}", whole.len());
        }
    }
}

#[test]
fn a_jpeg_bomb_is_refused_by_its_header() {
    let mut bomb = jpeg_bytes(&textured(16, 16), 50);
    let frame_header = bomb.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bomb[frame_header + 5..frame_header + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    let result = decode(&frame(PixelFormat::Mjpeg, 16, 16, bomb));
    assert!(matches!(
        result,
        Err(DecodeError::Dimensions {
            width_px: 65535,
            ..
        })
    ));
}

#[test]
fn a_cmyk_jpeg_is_refused_clearly() {
    let mut cmyk = jpeg_bytes(&textured(16, 16), 50);
    let frame_header = cmyk.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    cmyk[frame_header + 9] = 4;
    let error = decode(&frame(PixelFormat::Mjpeg, 16, 16, cmyk)).unwrap_err();
    assert!(error.to_string().contains("CMYK"), "{error}");
}

#[test]
fn real_photos_decode_like_the_image_crate_does() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/data/grocery/val/Fruit/Apple"
    );
    let Ok(kinds) = std::fs::read_dir(folder) else {
        println!("skipped: no photos in {folder}");
        return;
    };
    let mut count = 0;
    for kind in kinds {
        for photo in std::fs::read_dir(kind.unwrap().path()).unwrap() {
            let path = photo.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let want = image::load_from_memory(&bytes).unwrap().to_rgb8();
            let got = decode(&frame(PixelFormat::Mjpeg, 0, 0, bytes)).unwrap();
            assert_eq!(got, want, "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 0);
}

fn any_format() -> impl Strategy<Value = PixelFormat> {
    let bayer = (0_usize..4, 0_u8..17).prop_map(|(order, bits)| {
        PixelFormat::Bayer(Bayer {
            order: ORDERS[order],
            bits,
        })
    });
    prop_oneof![
        Just(PixelFormat::Yuyv),
        Just(PixelFormat::Uyvy),
        Just(PixelFormat::Nv12),
        Just(PixelFormat::Mjpeg),
        Just(PixelFormat::Rgb24),
        Just(PixelFormat::Bgr24),
        Just(PixelFormat::Grey),
        bayer,
    ]
}

proptest! {
    #[test]
    fn random_frames_decode_to_their_size_or_are_refused(
        format in any_format(),
        width in 0_u32..70,
        height in 0_u32..40,
        stride in prop_oneof![Just(0_u32), 0_u32..300, any::<u32>()],
        data in proptest::collection::vec(any::<u8>(), 0..8192),
    ) {
        let mut frame = frame(format, width, height, data);
        frame.stride_bytes = stride;
        if let Ok(image) = decode(&frame) {
            prop_assert!(format == PixelFormat::Mjpeg || image.dimensions() == (width, height));
        }
    }

    #[test]
    fn damaged_jpegs_never_panic(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
        is_stripped in any::<bool>(),
    ) {
        let mut jpeg = jpeg_bytes(&textured(64, 48), 60);
        if is_stripped {
            jpeg = without_huffman_tables(&jpeg);
        }
        for (index, byte) in at {
            let index = index.index(jpeg.len());
            jpeg[index] = byte;
        }
        if is_cut {
            jpeg.truncate(cut.index(jpeg.len()));
        }
        let _ = decode(&frame(PixelFormat::Mjpeg, 64, 48, jpeg));
    }
}
