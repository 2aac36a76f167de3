//! What the virtual machine's test scripts cannot do with busybox: feed pictures into a v4l2loopback
//! device, turn vivid's fault controls, look at the colours of a picture, make a bundle that knows
//! colours, and do the books of the survival campaign.

mod ledger;
#[allow(dead_code, reason = "a part of it is used here")]
#[path = "../support/tiny_bundle.rs"]
mod tiny_bundle;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use v4l::control::{Control, Value};
use v4l::video::Output;
use v4l::{Device, Format, FourCC};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["feed", device, shown] => feed(device, Path::new(shown)),
        ["control", device, name, value] => control(device, name, value.parse()?),
        ["feed-raw", device] => feed_raw(device),
        ["bars", picture] => bars(picture),
        ["bundle", folder] => {
            tiny_bundle::write_good(Path::new(folder));
            Ok(())
        }
        ["photos", folder] => photos(Path::new(folder)),
        ["ledger", first, last, heard, logs @ ..] => {
            let sequences = first.parse()?..=last.parse()?;
            println!(
                "{}",
                ledger::Ledger::read(Path::new(heard), logs, &sequences)?
            );
            Ok(())
        }
        _ => bail!(
            "vmtool feed DEVICE SHOWN | feed-raw DEVICE | control DEVICE NAME VALUE | bars JPEG | \
             bundle FOLDER | photos FOLDER | ledger FIRST LAST HEARD LOG…"
        ),
    }
}

/// Writes the JPEG that the file `shown` names, five times a second, until it is killed: who changes
/// the file changes the picture. The first one gives the size.
fn feed(device: &str, shown: &Path) -> Result<()> {
    let picture = || -> Result<PathBuf> { Ok(std::fs::read_to_string(shown)?.trim().into()) };
    let mut showing = picture()?;
    let (width, height) = image::image_dimensions(&showing)?;
    let mut format = Format::new(width, height, FourCC::new(b"MJPG"));
    format.size = 1 << 20;
    let _node = produce(device, &format)?;
    let mut sink = std::fs::OpenOptions::new().write(true).open(device)?;
    let mut jpeg = std::fs::read(&showing)?;
    loop {
        let wanted = picture()?;
        if wanted != showing {
            println!("showing {}", wanted.display());
            jpeg = std::fs::read(&wanted)?;
            showing = wanted;
        }
        std::io::Write::write_all(&mut sink, &jpeg)?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Writes grey YUYV frames of 320x240, five times a second, until it is killed.
fn feed_raw(device: &str) -> Result<()> {
    let _node = produce(device, &Format::new(320, 240, FourCC::new(b"YUYV")))?;
    let mut sink = std::fs::OpenOptions::new().write(true).open(device)?;
    loop {
        std::io::Write::write_all(&mut sink, &[128; 320 * 240 * 2])?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Has a loopback device produce `format`. It takes another one only while nobody reads it: that is
/// waited for.
fn produce(device: &str, format: &Format) -> Result<Device> {
    let mut attempts = 0;
    loop {
        let node = Device::with_path(device)?;
        let outcome = node.set_format(format);
        if outcome
            .as_ref()
            .is_ok_and(|settled| settled.fourcc == format.fourcc)
        {
            return Ok(node);
        }
        attempts += 1;
        let fourcc = format.fourcc;
        ensure!(attempts < 900, "{device} refused {fourcc}: {outcome:?}");
        drop(node);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Makes a photo of 640x480 of each colour that the tiny bundle knows: a strong tint over a pattern, so
/// that nobody takes it for a covered lens.
fn photos(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let colours = [
        ("rosso", [220, 20, 20]),
        ("verde", [20, 220, 20]),
        ("blu", [20, 20, 220]),
        ("giallo", [220, 220, 20]),
    ];
    for (name, colour) in colours {
        let picture = image::RgbImage::from_fn(640, 480, |x, y| {
            let shade = u8::from((x / 40 + y / 40) % 2 == 0);
            image::Rgb(colour.map(|value: u8| value - 20 * shade))
        });
        picture.save(folder.join(format!("{name}.jpg")))?;
    }
    Ok(())
}

/// Sets the control called `name`; buttons take any value.
fn control(device: &str, name: &str, value: i64) -> Result<()> {
    let node = Device::with_path(device)?;
    let controls = node.query_controls()?;
    let found = controls.iter().find(|control| control.name == name);
    let id = found
        .with_context(|| format!("{device} has no control called {name}"))?
        .id;
    node.set_control(Control {
        id,
        value: Value::Integer(value),
    })
    .with_context(|| format!("{device} refused {name} = {value}"))
}

/// Checks that a picture shows vivid's 75 % colour bars: white, yellow, cyan, green, magenta, red,
/// blue, black from left to right.
fn bars(picture: &str) -> Result<()> {
    const BARS: [[u8; 3]; 8] = [
        [191, 191, 191],
        [191, 191, 0],
        [0, 191, 191],
        [0, 191, 0],
        [191, 0, 191],
        [191, 0, 0],
        [0, 0, 191],
        [0, 0, 0],
    ];
    let image = image::open(Path::new(picture))?.to_rgb8();
    let row = image.height() * 3 / 4;
    for (n, want) in (0u32..).zip(BARS) {
        let got = image.get_pixel(image.width() * (2 * n + 1) / 16, row).0;
        let off = got
            .iter()
            .zip(want)
            .map(|(a, b)| a.abs_diff(b))
            .max()
            .unwrap_or(0);
        ensure!(off <= 24, "bar {n} is {got:?}, expected {want:?}");
    }
    println!("eight colour bars, as they should be");
    Ok(())
}
