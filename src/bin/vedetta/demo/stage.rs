//! What the demo needs on disk: photos, a model, a folder for its state, a configuration.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use vedetta::config::{Environment, Id};

use super::photos::{self, Photo};

/// Frames per second. Two looks within the dwell time would do; four make the table lively and
/// cost nothing, because the change gate encodes only the first one of a photo.
const RATE_FPS: u32 = 4;
/// Seconds a label has to stay. With a window of three it is ON 1.25 s after its photo appeared.
const DWELL_S: f32 = 1.0;
/// The device, and with it the topics `vedetta/demo/…`.
pub const DEVICE: &str = "demo";
/// The camera.
pub const CAMERA: &str = "foto";

/// What the bundled photos show: label and Italian noun.
const LABELS: [(&str, &str); 8] = [
    ("banana", "banana"),
    ("carota", "carota"),
    ("latte", "cartone di latte"),
    ("mela", "mela verde"),
    ("arancia", "arancia"),
    ("pomodoro", "pomodoro"),
    ("ananas", "ananas"),
    ("limone", "limone"),
];

/// Everything on disk; the temporary folder goes when this is dropped.
#[derive(Debug)]
pub struct Stage {
    /// The model.
    pub bundle: PathBuf,
    /// Where the photos are.
    pub folder: PathBuf,
    /// Photos in the order they are shown.
    pub photos: Vec<Photo>,
    /// Label and noun.
    pub labels: Vec<(Id, String)>,
    pace: Duration,
    temporary: Temporary,
}

impl Stage {
    /// Finds model and photos, and lays the photos out for the camera.
    ///
    /// # Errors
    /// Something was not found or cannot be used; the message says what to do.
    pub fn set(
        bundle: Option<&Path>,
        photos: Option<&Path>,
        labels: &[String],
        pace: Duration,
    ) -> anyhow::Result<Self> {
        let environment = Environment::current();
        let bundle = absolute(&match bundle {
            Some(path) => given_bundle(path)?,
            None => environment.installed_bundle()?,
        })?;
        let folder = absolute(&match photos {
            Some(path) => path.to_owned(),
            None => photos::find(&environment)?,
        })?;
        let labels = parse_labels(labels)?;
        let photos = photos::list(&folder, &labels)?;
        let temporary = Temporary::make()?;
        let stage = Self {
            bundle,
            folder,
            photos,
            labels,
            pace,
            temporary,
        };
        stage.lay_out()?;
        Ok(stage)
    }

    /// The configuration of the daemon, as anybody could write it.
    pub fn configuration(&self, port: u16) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let path = |path: &Path| quoted(&path.display().to_string());
        let state = path(&self.temporary.path.join("state"));
        let replay = path(&self.reel());
        let bundle = path(&self.bundle);
        let mut text = format!(
            "device = \"{DEVICE}\"\n\
             state_dir = {state}\n\n\
             [model]\n\
             bundle = {bundle}\n\n\
             [mqtt]\n\
             host = \"127.0.0.1\"\n\
             port = {port}\n\
             version = \"3.1.1\"\n\
             discovery = false\n\
             health_every_s = 2\n\n\
             [decision]\n\
             dwell_s = {DWELL_S}\n\
             window = 3\n\n\
             [[camera]]\n\
             id = \"{CAMERA}\"\n\
             replay = {replay}\n\
             rate_fps = {RATE_FPS}\n\n\
             [[camera.zone]]\n\
             id = \"banco\"\n"
        );
        for (id, noun) in &self.labels {
            let noun = quoted(noun);
            let _ = write!(
                text,
                "\n[[label]]\nid = \"{id}\"\nnoun = {noun}\ngroup = \"merce\"\n"
            );
        }
        text
    }

    /// The folder the camera replays.
    fn reel(&self) -> PathBuf {
        self.temporary.path.join("reel")
    }

    /// A replayed folder shows every file once; a photo that is to be shown for seconds has to lie
    /// there many times.
    fn lay_out(&self) -> anyhow::Result<()> {
        let reel = self.reel();
        fs::create_dir(&reel).with_context(|| format!("cannot make {}", reel.display()))?;
        let frames = (self.pace.as_millis() * u128::from(RATE_FPS))
            .div_ceil(1000)
            .max(1);
        for (n, photo) in self.photos.iter().enumerate() {
            for frame in 0..frames {
                let link = reel.join(format!("{n:04}-{frame:04}-{}", photo.name));
                symlink(&photo.path, &link)
                    .with_context(|| format!("cannot make {}", link.display()))?;
            }
        }
        Ok(())
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
}

fn given_bundle(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_dir() && !path.join("bundle.toml").is_file() {
        bail!("{} is no bundle: it has no bundle.toml", path.display());
    }
    Ok(path.to_owned())
}

/// `mela verde`, or `mela=mela verde` to choose the id.
fn parse_labels(given: &[String]) -> anyhow::Result<Vec<(Id, String)>> {
    if given.is_empty() {
        let bundled = LABELS.iter();
        return Ok(bundled
            .filter_map(|(id, noun)| Some((Id::new(id)?, (*noun).to_owned())))
            .collect());
    }
    let mut labels: Vec<(Id, String)> = Vec::new();
    for text in given {
        let (id, noun) = match text.split_once('=') {
            Some((id, noun)) => (Id::new(id.trim()), noun.trim()),
            None => (Id::from_noun(text), text.trim()),
        };
        let Some(id) = id else {
            bail!(
                "--label {text:?}: give a noun, or id=noun with an id of {}",
                Id::LEGAL
            );
        };
        if labels.iter().any(|(known, _)| *known == id) {
            bail!("--label {text:?}: there is a label {id} already; choose an id: other={noun}");
        }
        labels.push((id, noun.to_owned()));
    }
    Ok(labels)
}

/// A folder of our own under the system's temporary folder.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn make() -> anyhow::Result<Self> {
        let root = std::env::temp_dir();
        for _ in 0..16 {
            let random = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
            let path = root.join(format!("vedetta-demo-{random:016x}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot make a folder in {}; set TMPDIR", root.display())
                    });
                }
            }
        }
        bail!("cannot make a folder of its own in {}", root.display())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's temporary folder.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vedetta::config::Config;

    fn stage(labels: &[&str]) -> anyhow::Result<(tempfile::TempDir, Stage)> {
        let folder = tempfile::tempdir()?;
        for name in ["2-mela.JPG", "1-\"banana\".png", "note.txt"] {
            fs::write(folder.path().join(name), "")?;
        }
        fs::create_dir(folder.path().join("bundle"))?;
        fs::write(folder.path().join("bundle/bundle.toml"), "")?;
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let bundle = folder.path().join("bundle");
        let pace = Duration::from_secs(4);
        let stage = Stage::set(Some(&bundle), Some(folder.path()), &labels, pace)?;
        Ok((folder, stage))
    }

    #[test]
    fn the_configuration_of_the_demo_is_one() {
        let (_folder, stage) = stage(&[]).unwrap();
        let text = stage.configuration(1883);
        let config = Config::from_toml(&text, "demo", &[], &Environment::bare()).unwrap();
        assert_eq!(config.labels.len(), 8);
        assert_eq!(config.mqtt.port, 1883);
        assert_eq!(config.cameras[0].zones[0].id.as_str(), "banco");
    }

    #[test]
    fn every_photo_is_shown_for_its_time_in_name_order() {
        let (_folder, stage) = stage(&[]).unwrap();
        let mut frames: Vec<_> = fs::read_dir(stage.reel())
            .unwrap()
            .map(|f| f.unwrap().path())
            .collect();
        frames.sort();
        assert_eq!(frames.len(), 2 * 16);
        let target = |n: usize| fs::canonicalize(&frames[n]).unwrap();
        assert!(target(0).ends_with("1-\"banana\".png") && target(16).ends_with("2-mela.JPG"));
        let expected: Vec<_> = stage.photos.iter().map(|p| p.expected.as_deref()).collect();
        assert_eq!(expected, [Some("banana"), Some("mela")]);
    }

    #[test]
    fn the_temporary_folder_goes_with_the_stage() {
        let (_folder, stage) = stage(&[]).unwrap();
        let path = stage.temporary.path.clone();
        assert!(path.is_dir());
        drop(stage);
        assert!(!path.exists());
    }

    #[test]
    fn labels_are_nouns_or_ids_with_nouns() {
        let (_folder, stage) = stage(&["una mela verde", "x1 = \"pera\""]).unwrap();
        let text = stage.configuration(1883);
        let config = Config::from_toml(&text, "demo", &[], &Environment::bare()).unwrap();
        let ids: Vec<_> = config
            .labels
            .iter()
            .map(|label| label.id.as_str())
            .collect();
        assert_eq!(ids, ["mela-verde", "x1"]);
        for wrong in [&["?"][..], &["Mela=x"], &["mela", "una mela"]] {
            let error = super::tests::stage(wrong).unwrap_err();
            assert!(error.to_string().starts_with("--label "), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let mut environment = Environment::bare();
        environment.directory = "/nowhere".into();
        environment
            .variables
            .insert("VEDETTA_MODELS".to_owned(), "/none".to_owned());
        for text in [
            environment.installed_bundle().unwrap_err().to_string(),
            photos::find(&environment).unwrap_err().to_string(),
        ] {
            assert!(
                text.contains("VEDETTA_MODELS") && text.contains("/nowhere/models"),
                "{text}"
            );
        }
    }
}
