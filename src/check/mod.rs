//! `vedetta check`: what stands in the way of this configuration on this board, and what to do.
//! Nothing here changes anything that a running daemon uses.

pub mod broker;
pub mod camera;
mod gpu;
pub mod machine;

use std::fmt;

use crate::bundle::{Bundle, Limits};
use crate::calibrate::Applied;
use crate::config::{Config, ConfigError, Environment, Loaded, Problem};
use crate::prompts;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, but the user should know.
    Warn,
    /// vedetta cannot do its work like this.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `camera ingresso`, `broker`.
    pub subject: String,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, where something is to be done.
    pub advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Ok, found, None)
    }

    /// Works, but `advice` makes it better.
    pub fn warn(
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Warn, found, Some(advice.into()))
    }

    /// Does not work; `advice` says what to do.
    pub fn fail(
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Fail, found, Some(advice.into()))
    }

    fn new(
        subject: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
        advice: Option<String>,
    ) -> Self {
        let advice = advice.filter(|advice| !advice.is_empty());
        let (subject, found) = (subject.into(), found.into());
        Self {
            subject,
            verdict,
            found,
            advice,
        }
    }
}

/// What [`everything`] found.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order of the report.
    pub findings: Vec<Finding>,
    /// The configuration itself could not be used.
    pub unusable: bool,
}

impl Report {
    /// 0 when nothing fails, 78 (`EX_CONFIG`) when the configuration cannot be used, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        let failed = |finding: &Finding| finding.verdict == Verdict::Fail;
        match self.findings.iter().any(failed) {
            _ if self.unusable => ConfigError::EXIT_CODE,
            true => 1,
            false => 0,
        }
    }
}

/// Every check there is; with a configuration that cannot be used, those of the machine.
pub fn everything(
    loaded: &Result<Loaded, ConfigError>,
    name: &str,
    environment: &Environment,
) -> Report {
    let mut findings = Vec::new();
    match loaded {
        Err(error) => findings.extend(error.problems.iter().map(|problem| refused(problem, name))),
        Ok(Loaded { config, warnings }) => {
            findings.push(summary(config, name));
            findings.extend(warnings.iter().map(warned));
            findings.extend(labels(config));
            findings.extend(config.cameras.iter().flat_map(camera::check));
            match Bundle::open(&config.model.bundle, &Limits::default()) {
                Ok(opened) => {
                    findings.push(bundle(&opened));
                    let precision = &opened.manifest().precision.image;
                    findings.extend(gpu::check(config.model.backend, precision));
                    findings.extend(calibration(config, &opened));
                }
                Err(error) => {
                    let advice = "name one with model.bundle or $VEDETTA_MODELS";
                    findings.push(Finding::fail("bundle", error.to_string(), advice));
                }
            }
            findings.extend(broker::check(&config.mqtt));
            findings.push(machine::disk(&config.state_dir));
        }
    }
    findings.extend(machine::check(environment));
    Report {
        findings,
        unusable: loaded.is_err(),
    }
}

fn refused(problem: &Problem, name: &str) -> Finding {
    let advice = match problem.origin == name {
        true => "see config.example.toml",
        // The message of a key says what is legal.
        false => "",
    };
    Finding::fail("configuration", problem.to_string(), advice)
}

fn warned(problem: &Problem) -> Finding {
    Finding::warn("configuration", problem.to_string(), "")
}

fn summary(config: &Config, name: &str) -> Finding {
    let zones: usize = config.cameras.iter().map(|camera| camera.zones.len()).sum();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let parts = [
        counted(config.cameras.len(), "camera"),
        counted(zones, "zone"),
        counted(config.labels.len(), "label"),
    ];
    Finding::ok("configuration", format!("{name}: {}", parts.join(", ")))
}

fn labels(config: &Config) -> Vec<Finding> {
    let refused = config.labels.iter().filter_map(|label| {
        let error = prompts::for_label(&label.prompts).err()?;
        let advice = "change its noun, or give it whole prompts";
        Some(Finding::fail(
            format!("label {}", label.id),
            error.to_string(),
            advice,
        ))
    });
    let refused: Vec<Finding> = refused.collect();
    if !refused.is_empty() {
        return refused;
    }
    let shown: Vec<String> = config
        .labels
        .iter()
        .map(|label| prompts::display(&label.prompts))
        .collect();
    vec![Finding::ok("labels", shown.join(", "))]
}

fn bundle(bundle: &Bundle) -> Finding {
    let manifest = bundle.manifest();
    let found = format!(
        "{}, {} px, language {}, every hash is right",
        bundle.id(),
        manifest.image.size_px,
        manifest.language
    );
    Finding::ok("bundle", found)
}

fn calibration(config: &Config, bundle: &Bundle) -> Vec<Finding> {
    let Some(path) = &config.model.calibration else {
        return Vec::new();
    };
    let applied = Applied::of_config(config, bundle);
    if let Some(problem) = &applied.problem {
        let advice = "until then labels are not calibrated";
        return vec![Finding::fail("calibration", problem, advice)];
    }
    let refused = applied.refused.iter().map(|refused| {
        let advice = "run `vedetta-train calibrate` again; until then its scores count as they are";
        Finding::warn("calibration", refused.to_string(), advice)
    });
    let mut findings: Vec<Finding> = refused.collect();
    let count = applied.count();
    let found = format!(
        "{}: {count} of {} label(s)",
        path.display(),
        config.labels.len()
    );
    findings.push(match count {
        0 if findings.is_empty() => {
            let advice = "calibrate with this configuration: --config";
            Finding::warn("calibration", found, advice)
        }
        _ => Finding::ok("calibration", found),
    });
    findings
}

#[cfg(test)]
mod tests;
