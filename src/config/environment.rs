//! What the configuration takes from its surroundings, as an argument, so that tests choose it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::bundle::MANIFEST;

/// Variables and facts of the process that defaults and overrides depend on.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Environment variables; those that are not UTF-8 are left out.
    pub variables: BTreeMap<String, String>,
    /// Working directory; relative paths in overrides start here.
    pub directory: PathBuf,
    /// Host name; the default device id.
    pub hostname: String,
    /// Processors this process may use.
    pub cores: NonZeroUsize,
    /// Whether the process runs as root.
    pub root: bool,
    /// Path of the running binary.
    pub executable: Option<PathBuf>,
}

impl Environment {
    /// The surroundings of this process.
    pub fn current() -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        Self {
            variables: std::env::vars_os()
                .filter_map(|(key, value)| Some((text(key)?, text(value)?)))
                .collect(),
            directory: std::env::current_dir().unwrap_or_default(),
            hostname: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            root: rustix::process::geteuid().is_root(),
            executable: std::env::current_exe().ok(),
        }
    }

    /// Fixed surroundings without any variable: four cores, host `vedetta`, a service user.
    pub fn bare() -> Self {
        Self {
            variables: BTreeMap::new(),
            directory: PathBuf::new(),
            hostname: "vedetta".to_owned(),
            cores: NonZeroUsize::new(4).unwrap_or(NonZeroUsize::MIN),
            root: false,
            executable: None,
        }
    }

    /// A variable, when it is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Name of the device by default: the host name, and behind it `$VEDETTA_INSTANCE`, which the unit
    /// `vedetta@.service` sets: two instances under one name would throw each other out of the broker.
    pub fn device(&self) -> String {
        match self.variable("VEDETTA_INSTANCE") {
            Some(instance) => format!("{}-{instance}", self.hostname),
            None => self.hostname.clone(),
        }
    }

    /// Where state is kept by default: `$STATE_DIRECTORY` (systemd), `$XDG_STATE_HOME/vedetta` or
    /// `~/.local/state/vedetta` for a person, `/var/lib/vedetta` for root and services.
    pub fn state_dir(&self) -> PathBuf {
        if let Some(list) = self.variable("STATE_DIRECTORY") {
            // systemd separates several directories with a colon; the first is ours.
            return PathBuf::from(list.split(':').next().unwrap_or(list));
        }
        let service = self.root || self.variable("NOTIFY_SOCKET").is_some();
        let of_user = || {
            let state = self.variable("XDG_STATE_HOME").map(PathBuf::from);
            let home = || Some(PathBuf::from(self.variable("HOME")?).join(".local/state"));
            state.filter(|path| path.is_absolute()).or_else(home)
        };
        match of_user() {
            Some(state) if !service => state.join("vedetta"),
            _ => PathBuf::from("/var/lib/vedetta"),
        }
    }

    /// Where a model bundle is looked for when the configuration names none, in this order:
    /// `$VEDETTA_MODELS` (a bundle, or a folder with one named `demo`), `./models/demo`,
    /// `<binary>/../share/vedetta/models/demo`, `/usr/share/vedetta/models/demo`.
    pub fn bundle_places(&self) -> Vec<PathBuf> {
        let mut places = Vec::new();
        if let Some(models) = self.variable("VEDETTA_MODELS") {
            let models = self.directory.join(models);
            places.extend([models.clone(), models.join("demo")]);
        }
        places.push(self.directory.join("models/demo"));
        let share = self.executable.as_ref().and_then(|binary| {
            let prefix = binary.parent()?.parent()?;
            Some(prefix.join("share/vedetta/models/demo"))
        });
        places.extend(share);
        places.push(PathBuf::from(INSTALLED_BUNDLE));
        places
    }

    /// The first of [`Environment::bundle_places`] that holds a bundle; the place of an installed
    /// one when none does, so that a later error names a path.
    pub fn find_bundle(&self) -> PathBuf {
        self.installed_bundle()
            .unwrap_or_else(|_| PathBuf::from(INSTALLED_BUNDLE))
    }

    /// The same, for tools that are of no use without one.
    ///
    /// # Errors
    /// No place holds a bundle.
    pub fn installed_bundle(&self) -> Result<PathBuf, NoBundle> {
        let places = self.bundle_places();
        let found = places.iter().find(|place| holds_bundle(place)).cloned();
        found.ok_or(NoBundle { places })
    }
}

/// There is no bundle where one is looked for.
#[derive(Debug, Error)]
#[error(
    "there is no model bundle in any of these places:\n{}\nRun vedetta from the root of the \
     repository, set VEDETTA_MODELS to the folder `models` of it, or name a bundle with --bundle.",
    listed_places(places)
)]
pub struct NoBundle {
    places: Vec<PathBuf>,
}

/// Places as an error message shows them, one a line.
pub fn listed_places(places: &[PathBuf]) -> String {
    let lines = places.iter().map(|place| format!("  {}", place.display()));
    lines.collect::<Vec<_>>().join("\n")
}

/// Where a package installs the demo bundle.
const INSTALLED_BUNDLE: &str = "/usr/share/vedetta/models/demo";

fn holds_bundle(place: &Path) -> bool {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let is_packed = name.ends_with(".tar.zst") && place.is_file();
    is_packed || place.join(MANIFEST).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::bare();
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        environment.variables = variables.iter().map(owned).collect();
        environment
    }

    #[test]
    fn state_lives_where_systemd_or_the_user_keeps_it() {
        let dir = |variables: &[(&str, &str)]| with(variables).state_dir();
        let home = ("HOME", "/home/anna");
        assert_eq!(
            dir(&[("STATE_DIRECTORY", "/a:/b"), home]),
            PathBuf::from("/a")
        );
        assert_eq!(
            dir(&[home]),
            PathBuf::from("/home/anna/.local/state/vedetta")
        );
        assert_eq!(
            dir(&[home, ("XDG_STATE_HOME", "/s")]),
            PathBuf::from("/s/vedetta")
        );
        assert_eq!(
            dir(&[home, ("NOTIFY_SOCKET", "/run/n")]),
            PathBuf::from("/var/lib/vedetta")
        );
        assert_eq!(dir(&[]), PathBuf::from("/var/lib/vedetta"));
    }

    #[test]
    fn every_instance_has_a_name_of_its_own() {
        assert_eq!(with(&[]).device(), "vedetta");
        let second = with(&[("VEDETTA_INSTANCE", "ingresso")]);
        assert_eq!(second.device(), "vedetta-ingresso");
    }

    #[test]
    fn a_bundle_is_found_in_the_models_folder_before_the_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("bundle.toml"), "").unwrap();
            path
        };
        let mut environment = with(&[("VEDETTA_MODELS", "/nowhere")]);
        environment.directory = folder.path().to_owned();
        assert_eq!(environment.find_bundle(), PathBuf::from(INSTALLED_BUNDLE));
        let error = environment.installed_bundle().unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/demo") && error.contains("--bundle"),
            "{error}"
        );
        let here = bundle("models/demo");
        assert_eq!(environment.find_bundle(), here);
        let chosen = bundle("other/demo");
        let other = folder.path().join("other").display().to_string();
        environment.variables.insert("VEDETTA_MODELS".into(), other);
        assert_eq!(environment.find_bundle(), chosen);
        assert_eq!(environment.installed_bundle().unwrap(), chosen);
    }
}
