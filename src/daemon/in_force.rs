//! What is in force: the configuration file, what was changed at run time, and the calibration.

use super::settings::Settings;
use crate::bundle::Bundle;
use crate::calibrate::Applied;
use crate::config::Config;

/// Puts together what holds with `bundle`. A threshold set at run time wins over the calibration's,
/// which wins over the configuration file's.
pub fn in_force(configured: &Config, settings: &Settings, bundle: &Bundle) -> (Config, Applied) {
    let mut config = configured.clone();
    settings.apply_labels(&mut config);
    let calibrated = Applied::of_config(&config, bundle);
    calibrated.put_thresholds_into(&mut config);
    settings.apply_thresholds(&mut config);
    (config, calibrated)
}

/// Says in the log what became of the calibration.
pub fn log(calibrated: &Applied, config: &Config) {
    let Some(path) = &config.model.calibration else {
        return;
    };
    if let Some(problem) = &calibrated.problem {
        log::error!("{problem}; labels are not calibrated");
        return;
    }
    for refused in &calibrated.refused {
        log::warn!("{refused}; run `vedetta-train calibrate` again");
    }
    let (count, of) = (calibrated.count(), config.labels.len());
    log::info!("{count} of {of} label(s) calibrated by {}", path.display());
}
