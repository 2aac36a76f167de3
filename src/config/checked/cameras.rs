//! `[[camera]]` and its zones.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::frame::{Bayer, BayerOrder, PixelFormat};

use super::super::read::Field;
use super::super::{BaselineRule, Camera, Gate, Id, Label, Shape, Source, Zone, defaults, raw};
use super::values::{Context, given, narrow, seconds};

/// Most cameras of a device.
const MAX_CAMERAS: usize = 16;
/// Most zones of a camera: they are one batch.
const MAX_ZONES: usize = 64;
/// Most corners of a polygon.
const MAX_CORNERS: usize = 32;
/// Smallest side of a zone, in fractions of the frame: 13 pixels of 1280.
const MIN_SIDE: f64 = 0.01;

/// Words of `camera.format`.
pub const FORMATS: [(&str, PixelFormat); 19] = [
    ("yuyv", PixelFormat::Yuyv),
    ("uyvy", PixelFormat::Uyvy),
    ("nv12", PixelFormat::Nv12),
    ("mjpeg", PixelFormat::Mjpeg),
    ("rgb24", PixelFormat::Rgb24),
    ("bgr24", PixelFormat::Bgr24),
    ("grey", PixelFormat::Grey),
    ("rggb8", bayer(BayerOrder::Rggb, 8)),
    ("bggr8", bayer(BayerOrder::Bggr, 8)),
    ("grbg8", bayer(BayerOrder::Grbg, 8)),
    ("gbrg8", bayer(BayerOrder::Gbrg, 8)),
    ("rggb10", bayer(BayerOrder::Rggb, 10)),
    ("bggr10", bayer(BayerOrder::Bggr, 10)),
    ("grbg10", bayer(BayerOrder::Grbg, 10)),
    ("gbrg10", bayer(BayerOrder::Gbrg, 10)),
    ("rggb12", bayer(BayerOrder::Rggb, 12)),
    ("bggr12", bayer(BayerOrder::Bggr, 12)),
    ("grbg12", bayer(BayerOrder::Grbg, 12)),
    ("gbrg12", bayer(BayerOrder::Gbrg, 12)),
];

const fn bayer(order: BayerOrder, bits: u8) -> PixelFormat {
    PixelFormat::Bayer(Bayer { order, bits })
}

/// Ids that were taken already, and what cameras need to know of the rest.
struct Taken<'a> {
    cameras: BTreeSet<Id>,
    zones: BTreeSet<Id>,
    labels: &'a [Label],
    /// Labels that the file names, also those that had something wrong with them.
    label_count: usize,
}

pub fn cameras(context: &Context<'_>, raw: &raw::Config, labels: &[Label]) -> Vec<Camera> {
    let Some((place, list)) = given(&raw.camera) else {
        if raw.camera.is_none() {
            let message = "has no camera: add [[camera]] and device = \"/dev/video0\"";
            context.problems.in_file(None, message);
        }
        return Vec::new();
    };
    if list.is_empty() || list.len() > MAX_CAMERAS {
        context
            .problems
            .at(place, format!("must be 1 to {MAX_CAMERAS} cameras"));
        return Vec::new();
    }
    let mut taken = Taken {
        cameras: BTreeSet::new(),
        zones: BTreeSet::new(),
        labels,
        label_count: given(&raw.label).map_or(0, |(_, list)| list.len()),
    };
    let alone = list.len() == 1;
    list.iter()
        .filter_map(|raw| camera(context, raw, alone, &mut taken))
        .collect()
}

fn camera(
    context: &Context<'_>,
    raw: &Field<raw::Camera>,
    alone: bool,
    taken: &mut Taken<'_>,
) -> Option<Camera> {
    let (place, raw) = (raw.place, raw.value.as_ref()?);
    let id = match &raw.id {
        Some(id) => context.id(&raw.id).map(|made| (made, id.place)),
        None if alone => Id::new("camera").map(|id| (id, place)),
        None => context.wrong(place, "needs an id, because there are several cameras"),
    };
    if let Some((id, place)) = &id
        && !taken.cameras.insert(id.clone())
    {
        let message = format!("a camera with the id {id} is there already");
        context.problems.at(*place, message);
    }
    let name = context.text(&raw.name);
    let rate_fps = context
        .number(&raw.rate_fps, 0.01..=60.0)
        .unwrap_or(defaults::RATE_FPS);
    let source = source(context, raw, rate_fps);
    let stall_after = stall_after(context, raw, rate_fps);
    let frozen_after = context.seconds(&raw.frozen_after_s, 1.0..=86_400.0);
    let frozen_after = frozen_after.unwrap_or(seconds(defaults::FROZEN_AFTER_S));
    let gate = gate(context, raw);
    let baseline = baseline(context, raw);
    let zones = zones(context, raw, id.as_ref().map(|(id, _)| id), place, taken);
    let (id, _) = id?;
    Some(Camera {
        name: name.unwrap_or_else(|| id.to_string()),
        source: source?,
        rate_fps: narrow(rate_fps),
        zones: zones?,
        gate,
        stall_after,
        baseline,
        frozen_after: raw.replay.is_none().then_some(frozen_after),
        id,
    })
}

fn source(context: &Context<'_>, raw: &raw::Camera, rate_fps: f64) -> Option<Source> {
    let size_px = match given(&raw.size) {
        None => None,
        Some((place, size)) => Some(pixels(size).or_else(|| {
            context.wrong(place, "must be [width, height] in pixels, each 16 to 8192")
        })?),
    };
    let format = context.choice(&raw.format, &FORMATS);
    let Some(folder) = &raw.replay else {
        if let Some(repeat) = &raw.repeat {
            context.problems.at(repeat.place, "only goes with replay");
        }
        let device = match &raw.device {
            None => "/dev/video0".into(),
            Some(_) => context.path(&raw.device)?,
        };
        return Some(Source::V4l2 {
            device,
            format,
            size_px,
        });
    };
    if raw.device.is_some() {
        return context.wrong(
            folder.place,
            "device and replay exclude each other; keep one",
        );
    }
    let places = [
        raw.format.as_ref().map(|f| f.place),
        raw.size.as_ref().map(|f| f.place),
        raw.frozen_after_s.as_ref().map(|f| f.place),
    ];
    for place in places.into_iter().flatten() {
        context.problems.at(place, "only goes with device");
    }
    Some(Source::Replay {
        folder: context.path(&raw.replay)?,
        rate_fps: narrow(rate_fps),
        repeat: context.flag(&raw.repeat).unwrap_or(true),
    })
}

fn pixels(size: &[u64]) -> Option<(u32, u32)> {
    let side = |value: u64| {
        u32::try_from(value)
            .ok()
            .filter(|v| (16..=8192).contains(v))
    };
    match size {
        [width, height] => side(*width).zip(side(*height)),
        _ => None,
    }
}

/// A replay slower than the stall time would look stalled between two images.
fn stall_after(context: &Context<'_>, raw: &raw::Camera, rate_fps: f64) -> Duration {
    let replayed = raw.replay.as_ref().map(|_| 1.0 / rate_fps);
    match context.number(&raw.stall_after_s, 0.5..=600.0) {
        Some(stall) => {
            if let (Some(period), Some((place, _))) = (replayed, given(&raw.stall_after_s))
                && stall <= period
            {
                let message = format!("must be more than the {period} s between two images");
                context.problems.at(place, message);
            }
            seconds(stall)
        }
        None => seconds(defaults::STALL_AFTER_S.max(replayed.unwrap_or(0.0) * 3.0)),
    }
}

/// Off unless it is enabled; wrong numbers are told either way.
fn baseline(context: &Context<'_>, raw: &raw::Camera) -> Option<BaselineRule> {
    let (_, raw) = given(&raw.baseline)?;
    let deviations = context.number(&raw.deviations, 1.0..=20.0);
    let forget_after = context.seconds(&raw.forget_after_s, 600.0..=604_800.0);
    let rule = BaselineRule {
        deviations: narrow(deviations.unwrap_or(defaults::BASELINE_DEVIATIONS)),
        forget_after: forget_after.unwrap_or(seconds(defaults::BASELINE_FORGET_AFTER_S)),
    };
    context.flag(&raw.enabled).unwrap_or(false).then_some(rule)
}

fn gate(context: &Context<'_>, raw: &raw::Camera) -> Gate {
    let empty = raw::Gate::default();
    let raw = given(&raw.gate).map_or(&empty, |(_, raw)| raw);
    let threshold = context.number(&raw.threshold, 0.0..=1.0);
    let force_every = context.seconds(&raw.force_every_s, 0.1..=3600.0);
    let dark_below = context.number(&raw.dark_below, 0.0..=1.0);
    Gate {
        enabled: context.flag(&raw.enabled).unwrap_or(true),
        threshold: narrow(threshold.unwrap_or(defaults::GATE_THRESHOLD)),
        force_every: force_every.unwrap_or(seconds(defaults::FORCE_EVERY_S)),
        dark_below: narrow(dark_below.unwrap_or(defaults::DARK_BELOW)),
    }
}

fn zones(
    context: &Context<'_>,
    raw: &raw::Camera,
    camera: Option<&Id>,
    camera_place: super::super::problem::PlaceId,
    taken: &mut Taken<'_>,
) -> Option<Vec<Zone>> {
    let whole_frame = raw::Zone::default();
    let list: Vec<_> = match &raw.zone {
        None => vec![(camera_place, &whole_frame)],
        Some(zones) => {
            let list = zones.value.as_ref()?;
            if list.is_empty() || list.len() > MAX_ZONES {
                return context.wrong(zones.place, format!("must be 1 to {MAX_ZONES} zones"));
            }
            let read = |zone: &'_ Field<raw::Zone>| zone.value.is_some();
            let given = list.iter().filter(|zone| read(zone));
            given
                .filter_map(|zone| Some((zone.place, zone.value.as_ref()?)))
                .collect()
        }
    };
    let alone = list.len() == 1;
    let mut zones = Vec::new();
    for (place, raw) in list {
        let (id, id_place) = match &raw.id {
            Some(field) => (context.id(&raw.id), field.place),
            None if alone => (camera.cloned(), place),
            None => {
                let message = "needs an id, because its camera has several zones";
                (context.wrong(place, message), place)
            }
        };
        if let Some(id) = &id
            && !taken.zones.insert(id.clone())
        {
            let message =
                format!("a zone with the id {id} is there already, maybe of another camera");
            context.problems.at(id_place, message);
        }
        let name = context.text(&raw.name);
        let shape = shape(context, raw);
        let labels = zone_labels(context, raw, taken);
        if let (Some(id), Some(shape), Some(labels)) = (id, shape, labels) {
            let name = name.unwrap_or_else(|| id.to_string());
            zones.push(Zone {
                id,
                name,
                shape,
                labels,
            });
        }
    }
    Some(zones)
}

fn zone_labels(context: &Context<'_>, raw: &raw::Zone, taken: &Taken<'_>) -> Option<Vec<usize>> {
    let labels = taken.labels;
    let Some((place, names)) = given(&raw.labels) else {
        return raw.labels.is_none().then(|| (0..labels.len()).collect());
    };
    if names.is_empty() {
        return context.wrong(
            place,
            "must name a label; leave the key out for all of them",
        );
    }
    let mut indices = Vec::new();
    for name in names {
        match labels.iter().position(|label| label.id.as_str() == name) {
            Some(index) if !indices.contains(&index) => indices.push(index),
            Some(_) => context.problems.at(place, format!("names {name:?} twice")),
            // A label that was refused is missing in the list; its own error says enough.
            None if labels.len() < taken.label_count => {}
            None => {
                let known: Vec<_> = labels.iter().map(|label| label.id.as_str()).collect();
                let message = format!(
                    "no label has the id {name:?}; there are {}",
                    known.join(", ")
                );
                context.problems.at(place, message);
            }
        }
    }
    Some(indices)
}

fn shape(context: &Context<'_>, raw: &raw::Zone) -> Option<Shape> {
    match (&raw.rectangle, &raw.polygon) {
        (None, None) => Some(Shape::Full),
        (Some(rectangle), Some(_)) => {
            let message = "rectangle and polygon exclude each other; keep one";
            context.wrong(rectangle.place, message)
        }
        (Some(_), None) => {
            let (place, sides) = given(&raw.rectangle)?;
            rectangle(sides).or_else(|| {
                let message = "must be [x, y, width, height] in fractions of the frame, 0 to 1, \
                               inside it and at least 0.01 wide and high";
                context.wrong(place, message)
            })
        }
        (None, Some(_)) => {
            let (place, corners) = given(&raw.polygon)?;
            polygon(corners).or_else(|| {
                let message = "must be 3 to 32 corners [x, y] in fractions of the frame, 0 to 1, \
                               not all on one line";
                context.wrong(place, message)
            })
        }
    }
}

fn rectangle(sides: &[f64]) -> Option<Shape> {
    // Decimal fractions that add up to 1 may add up to a little more in binary.
    const TOLERANCE: f64 = 1e-6;
    let &[x, y, width, height] = sides else {
        return None;
    };
    let fits = |start: f64, length: f64| {
        (0.0..=1.0).contains(&start) && length >= MIN_SIDE && start + length <= 1.0 + TOLERANCE
    };
    (fits(x, width) && fits(y, height)).then(|| Shape::Rectangle {
        x: narrow(x),
        y: narrow(y),
        width: narrow(width),
        height: narrow(height),
    })
}

fn polygon(corners: &[Vec<f64>]) -> Option<Shape> {
    if !(3..=MAX_CORNERS).contains(&corners.len()) {
        return None;
    }
    let corner = |corner: &Vec<f64>| match corner[..] {
        [x, y] if (0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y) => Some([x, y]),
        _ => None,
    };
    let corners: Vec<[f64; 2]> = corners.iter().map(corner).collect::<Option<_>>()?;
    let side = |axis: usize| {
        let values = corners.iter().map(|corner| corner[axis]);
        values.clone().fold(0.0, f64::max) - values.fold(1.0, f64::min)
    };
    // Shoelace formula: twice the area, with the sign of the direction of travel.
    let next = corners.iter().cycle().skip(1);
    let twice: f64 = corners
        .iter()
        .zip(next)
        .map(|(a, b)| a[0] * b[1] - b[0] * a[1])
        .sum();
    let wide = side(0) >= MIN_SIDE && side(1) >= MIN_SIDE;
    (wide && twice.abs() > MIN_SIDE * MIN_SIDE)
        .then(|| Shape::Polygon(corners.iter().map(|c| c.map(narrow)).collect()))
}
