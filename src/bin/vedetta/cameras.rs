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

/// Prints the table.
#[cfg(feature = "v4l2")]
pub fn run(arguments: &CamerasArgs) -> ExitCode {
    use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
    use vedetta::capture::v4l2::list;

    let cameras = list();
    if cameras.is_empty() {
        eprintln!(
            "no camera found: nothing under /dev/video* captures video. Plug one in and look at \
             `dmesg`; in a container, pass the device through."
        );
        return ExitCode::FAILURE;
    }
    if arguments.json {
        for camera in &cameras {
            let formats: Vec<_> = camera
                .formats
                .iter()
                .map(
                    |f| serde_json::json!({"format": f.code, "usable": f.usable, "sizes": f.sizes}),
                )
                .collect();
            println!(
                "{}",
                serde_json::json!({
                    "device": camera.device, "stable": camera.stable, "name": camera.name,
                    "driver": camera.driver, "bus": camera.bus, "problem": camera.problem,
                    "formats": formats,
                })
            );
        }
        return ExitCode::SUCCESS;
    }
    for camera in &cameras {
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
            println!("  {problem}");
            continue;
        }
        let mut table = Table::new();
        table.load_preset(UTF8_HORIZONTAL_ONLY);
        table.set_header(["format", "sizes and rates"]);
        for format in &camera.formats {
            let code = if format.usable {
                format.code.clone()
            } else {
                format!("{} (cannot be decoded)", format.code)
            };
            table.add_row([code, format.sizes.join("\n")]);
        }
        println!("{table}\n");
    }
    ExitCode::SUCCESS
}
