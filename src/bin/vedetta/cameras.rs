//! `vedetta cameras`.

use std::process::ExitCode;

/// List the cameras of this machine with their formats, sizes and rates.
#[derive(clap::Args)]
pub struct CamerasArgs {
    /// One JSON object per camera and line.
    #[arg(long)]
    json: bool,
}

/// Prints the table.
#[cfg(not(feature = "v4l2"))]
pub fn run(_: &CamerasArgs) -> ExitCode {
    eprintln!("this build has no V4L2 support; build with the feature v4l2");
    ExitCode::FAILURE
}

/// Sizes shown per format at most; a table is for people.
#[cfg(feature = "v4l2")]
const MAX_SIZES: usize = 24;

/// Prints the table.
#[cfg(feature = "v4l2")]
pub fn run(arguments: &CamerasArgs) -> ExitCode {
    let cameras = vedetta::capture::v4l2::list();
    if cameras.is_empty() {
        eprintln!(
            "no camera found: nothing under /dev/video* captures video. Plug one in and look at \
             `dmesg`; in a container, pass the device through."
        );
        return ExitCode::FAILURE;
    }
    for camera in &cameras {
        if arguments.json {
            println!("{}", json(camera));
        } else {
            print(camera);
        }
    }
    ExitCode::SUCCESS
}

#[cfg(feature = "v4l2")]
fn json(camera: &vedetta::capture::v4l2::ListedCamera) -> serde_json::Value {
    use serde_json::json;
    use vedetta::capture::select::{Interval, OfferedRate, Steps};

    let steps = |steps: Steps| {
        if steps.min == steps.max {
            json!(steps.min)
        } else {
            json!({"min": steps.min, "max": steps.max, "step": steps.step})
        }
    };
    let rate = |rate: &OfferedRate| match *rate {
        OfferedRate::Exactly(interval) => json!(interval.fps()),
        OfferedRate::Between { shortest, longest } => {
            let fps = |interval: Interval| interval.fps();
            json!({"min": fps(longest), "max": fps(shortest)})
        }
    };
    let formats = camera.formats.iter().map(|format| {
        let sizes = format.offer.sizes.iter().map(|size| {
            json!({
                "width": steps(size.width_px),
                "height": steps(size.height_px),
                "rates_fps": size.rates.iter().map(rate).collect::<Vec<_>>(),
            })
        });
        json!({
            "format": format.offer.fourcc.to_string(),
            "usable": format.usable,
            "sizes": sizes.collect::<Vec<_>>(),
        })
    });
    json!({
        "device": camera.device,
        "stable": camera.stable,
        "name": camera.name,
        "driver": camera.driver,
        "bus": camera.bus,
        "problem": camera.problem,
        "formats": formats.collect::<Vec<_>>(),
    })
}

#[cfg(feature = "v4l2")]
fn print(camera: &vedetta::capture::v4l2::ListedCamera) {
    use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};

    println!(
        "{}: {} ({}, {})",
        camera.device.display(),
        camera.name,
        camera.driver,
        camera.bus
    );
    if let Some(stable) = &camera.stable {
        println!("  stable name: {}", stable.display());
    }
    if let Some(problem) = &camera.problem {
        println!("  {problem}\n");
        return;
    }
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header(["format", "sizes and rates"]);
    for format in &camera.formats {
        let mut code = format.offer.fourcc.to_string();
        if !format.usable {
            code.push_str(" (cannot be decoded)");
        }
        let sizes = &format.offer.sizes;
        let mut lines: Vec<String> = sizes
            .iter()
            .take(MAX_SIZES)
            .map(ToString::to_string)
            .collect();
        match sizes.len() {
            0 => lines.push("any size: the driver does not say".to_owned()),
            count if count > MAX_SIZES => {
                lines.push(format!(
                    "… and {} more (--json lists all)",
                    count - MAX_SIZES
                ));
            }
            _ => {}
        }
        table.add_row([code, lines.join("\n")]);
    }
    println!("{table}\n");
}
