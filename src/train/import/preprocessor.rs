//! `preprocessor_config.json` beside a checkpoint → the manifest's `[image]`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::checkpoint::{MAX_JSON_BYTES, read_text};
use crate::bundle::manifest::{Channels, Crop, Image, Resize};

/// Mean of the pictures OpenAI's CLIP was trained on, red green blue.
pub const CLIP_MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Their standard deviation.
pub const CLIP_STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// What is taken for what the file does not say.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Filter.
    pub resize: Resize,
    /// How a picture that is not square is fitted.
    pub crop: Crop,
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by.
    pub std: [f32; 3],
}

/// CLIP's image processor.
pub const CLIP: Defaults = Defaults {
    resize: Resize::Bicubic,
    crop: Crop::Center,
    mean: CLIP_MEAN,
    std: CLIP_STD,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    size: Option<Size>,
    crop_size: Option<Size>,
    do_center_crop: Option<bool>,
    do_normalize: Option<bool>,
    do_rescale: Option<bool>,
    do_resize: Option<bool>,
    rescale_factor: Option<f64>,
    resample: Option<u32>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Size {
    Edge(usize),
    Shortest { shortest_edge: usize },
    Both { height: usize, width: usize },
}

/// Reads `folder/preprocessor_config.json` (or the part of `processor_config.json` that has its
/// place in newer checkpoints) for a tower whose pictures have an edge of `size_px`. Where there is
/// none the defaults hold; the second value says so.
///
/// # Errors
/// A preparation that a bundle cannot express, with the key and what is legal.
pub fn read(folder: &Path, size_px: usize, defaults: &Defaults) -> Result<(Image, Option<String>)> {
    let mut image = Image {
        size_px,
        resize: defaults.resize,
        crop: defaults.crop,
        mean: defaults.mean,
        std: defaults.std,
        channels: Channels::Rgb,
    };
    let Some((file, raw)) = find(folder)? else {
        let note =
            "no preprocessor_config.json: the family's usual preparation of pictures is taken";
        return Ok((image, Some(note.to_owned())));
    };
    apply(&mut image, &raw).with_context(|| file.to_owned())?;
    Ok((image, None))
}

fn find(folder: &Path) -> Result<Option<(&'static str, Raw)>> {
    for (file, part) in [
        ("preprocessor_config.json", None),
        ("processor_config.json", Some("image_processor")),
    ] {
        let path = folder.join(file);
        if !path.exists() {
            continue;
        }
        let text = read_text(&path, MAX_JSON_BYTES)?;
        let value: Value = serde_json::from_str(&text).with_context(|| file.to_owned())?;
        let value = match part {
            None => Some(&value),
            Some(part) => value.get(part),
        };
        if let Some(value) = value {
            let raw = Raw::deserialize(value).with_context(|| file.to_owned())?;
            return Ok(Some((file, raw)));
        }
    }
    Ok(None)
}

fn apply(image: &mut Image, raw: &Raw) -> Result<()> {
    let size_px = image.size_px;
    for (key, value) in [
        ("do_normalize", raw.do_normalize),
        ("do_rescale", raw.do_rescale),
        ("do_resize", raw.do_resize),
    ] {
        ensure!(value != Some(false), "{key} is false; legal: true");
    }
    if let Some(factor) = raw.rescale_factor {
        ensure!(
            (factor - 1.0 / 255.0).abs() < 1e-6,
            "rescale_factor is {factor}; legal: 1/255"
        );
    }
    image.mean = raw.image_mean.unwrap_or(image.mean);
    image.std = raw.image_std.unwrap_or(image.std);
    image.resize = match raw.resample {
        None => image.resize,
        Some(2) => Resize::Bilinear,
        Some(3) => Resize::Bicubic,
        Some(other) => bail!("resample is {other}; legal: 2 (bilinear), 3 (bicubic)"),
    };
    let cropped = raw.do_center_crop;
    image.crop = match (raw.size, cropped) {
        (None, _) => image.crop,
        (Some(Size::Both { height, width }), crop) => {
            ensure!(
                height == size_px && width == size_px,
                "size is {height} × {width} where the tower takes {size_px}"
            );
            ensure!(
                crop != Some(true) || raw.crop_size.is_none_or(|size| edge(size) == size_px),
                "crop_size is not {size_px}"
            );
            Crop::Squash
        }
        (Some(size), crop) => {
            ensure!(
                crop != Some(false),
                "do_center_crop is false; legal: true, or a size with height and width"
            );
            ensure!(
                edge(size) == size_px && raw.crop_size.is_none_or(|size| edge(size) == size_px),
                "size and crop_size have to be the {size_px} px that the tower takes"
            );
            Crop::Center
        }
    };
    Ok(())
}

fn edge(size: Size) -> usize {
    match size {
        Size::Edge(edge)
        | Size::Shortest {
            shortest_edge: edge,
        } => edge,
        Size::Both { height, width } if height == width => height,
        Size::Both { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: Value) -> Result<Image> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("preprocessor_config.json"),
            value.to_string(),
        )
        .unwrap();
        read(folder.path(), 224, &CLIP).map(|(image, _)| image)
    }

    #[test]
    fn both_spellings_of_a_size_give_a_centre_crop() {
        for size in [json!(224), json!({"shortest_edge": 224})] {
            let crop = json!({"height": 224, "width": 224});
            let image = of(json!({"size": size, "crop_size": crop, "resample": 3})).unwrap();
            assert_eq!(image.crop, Crop::Center);
            assert_eq!(image.resize, Resize::Bicubic);
        }
    }

    #[test]
    fn height_and_width_give_a_squash() {
        let size = json!({"height": 224, "width": 224});
        let image = of(json!({"size": size, "resample": 2, "image_mean": [0.5, 0.5, 0.5]}));
        let image = image.unwrap();
        assert_eq!(image.crop, Crop::Squash);
        assert_eq!(image.resize, Resize::Bilinear);
        assert_eq!(image.mean, [0.5; 3]);
    }

    #[test]
    fn what_a_bundle_cannot_say_is_refused() {
        for (value, named) in [
            (json!({"resample": 1}), "resample"),
            (json!({"size": 256, "crop_size": 224}), "crop_size"),
            (json!({"do_normalize": false}), "do_normalize"),
            (json!({"rescale_factor": 1.0}), "rescale_factor"),
            (json!({"size": {"height": 224, "width": 112}}), "112"),
        ] {
            let error = of(value).unwrap_err();
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }

    #[test]
    fn without_the_file_the_familys_values_hold_and_a_note_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (image, note) = read(folder.path(), 224, &CLIP).unwrap();
        assert_eq!(image.mean, CLIP_MEAN);
        assert!(note.is_some());
    }
}
