//! The daemon's side of installed bundles: which one is used at a start, whether the new one proves
//! itself, and the thread that installs another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::embeddings;
use super::inference::Request;
use super::trial::{Judgement, Record, Trial};
use crate::bundle::Bundle;
use crate::bundle::store::{Folder, Pointer, Store, StoreError};
use crate::config::Config;
use crate::event::{BundleSource, FailedBundle, SignatureRule, UpdateInfo};
use crate::slot::Bell;
use crate::update::{self, Origin, Outcome, Remote, Stage, Steps, UpdateError};

/// How often a download says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Reports that may wait for the supervisor.
const REPORTS: usize = 16;
/// How long the inference thread may take to hand over its last frames.
const FRAMES: Duration = Duration::from_secs(5);

/// What the installing thread says.
pub enum Report {
    /// How far it is.
    Progress(Stage),
    /// It ended.
    Done(Result<Outcome, UpdateError>),
}

struct Worker {
    id: Value,
    reports: Receiver<Report>,
}

/// What runs, as long as it is on trial. Somebody may install or roll back meanwhile: what comes out of
/// the trial counts only while the pointer still says this folder.
struct OnTrial {
    folder: Folder,
    trial: Trial,
}

/// See the module.
pub struct Updates {
    store: Store,
    /// What the present model did.
    pub record: Arc<Record>,
    trial: Option<OnTrial>,
    worker: Option<Worker>,
}

impl Updates {
    /// At the start, before a bundle is chosen: removes leftovers, and counts the start of a bundle
    /// on trial, which may be one too many.
    pub fn start(config: &Config) -> Self {
        let updates = Self {
            store: Store::open(&config.state_dir),
            record: Arc::default(),
            trial: None,
            worker: None,
        };
        if updates.store.exists() {
            updates.count_start(config.model.is_installed());
            update::forget_old_downloads(&updates.store);
        }
        updates
    }

    /// A bundle that the configuration passes over is not tried: its starts do not count.
    fn count_start(&self, is_used: bool) {
        let before = self.store.pointer();
        let counted = self.store.lock().and_then(|lock| {
            let pointer = self.store.change(&lock, |pointer| match is_used {
                true => pointer.started(),
                false => pointer.clone(),
            })?;
            self.store.clean(&lock)?;
            Ok(pointer)
        });
        match counted {
            // A second installation holds it, or the disk is read-only: the bundle serves all the same.
            Err(error) => log::warn!("the start is not counted: {error}"),
            Ok(after) if after.current != before.current => log_failure(&after),
            Ok(_) => {}
        }
    }

    /// Removes embeddings that were kept for bundles which are gone. `used` is open; the one that vedetta
    /// comes with, and those that are installed, may be used again.
    pub fn forget_embeddings(&self, config: &Config, used: &Bundle) {
        // Whoever installs at the moment keeps some for a bundle that no pointer says yet.
        let lock = self.store.exists().then(|| self.store.lock()).transpose();
        let Ok(_held) = lock else { return };
        let pointer = self.store.pointer();
        let installed = [&pointer.current, &pointer.previous];
        let mut kept: Vec<String> = installed
            .into_iter()
            .flatten()
            .map(|folder| folder.sha256().to_owned())
            .collect();
        kept.push(used.sha256().to_owned());
        if let Some(shipped) = &config.model.shipped {
            match embeddings::manifest_sha256(shipped) {
                Ok(hash) => kept.push(hash),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                // It may be used again, and its embeddings cannot be told from others.
                Err(_) => return,
            }
        }
        embeddings::forget(&config.state_dir, &kept);
    }

    /// The installed bundle in use.
    pub fn current(&self) -> Option<PathBuf> {
        self.store.current()
    }

    /// Whether `bundle` is the installed one and has yet to prove itself.
    pub fn on_trial(&self, bundle: &Path) -> bool {
        self.folder_on_trial(bundle).is_some()
    }

    fn folder_on_trial(&self, bundle: &Path) -> Option<Folder> {
        let pointer = self.store.pointer();
        let folder = pointer.current.clone().filter(|_| pointer.on_trial())?;
        (self.store.path(&folder) == bundle).then_some(folder)
    }

    /// Begins the trial when `bundle` is the installed one and has to prove itself.
    pub fn adopted(&mut self, bundle: &Path, now: Duration, lasts: Duration) {
        self.trial = self.folder_on_trial(bundle).map(|folder| OnTrial {
            folder,
            trial: Trial::begin(now, lasts),
        });
        if self.trial.is_some() {
            log::info!("{} is on trial", bundle.display());
        }
    }

    /// How the trial stands; a bundle that proved itself is confirmed.
    pub fn judge(&mut self, now: Duration, alive: bool) -> Judgement {
        let Some(OnTrial { folder, trial }) = &mut self.trial else {
            return Judgement::Open;
        };
        let judgement = trial.judge(now, &self.record, alive);
        if judgement != Judgement::Proved {
            return judgement;
        }
        let folder = folder.clone();
        let confirmed = match self.change_if(&self.store.path(&folder), Pointer::confirmed) {
            Ok(confirmed) => confirmed,
            Err(error) => {
                log::debug!("not confirmed yet: {error}");
                return Judgement::Open;
            }
        };
        self.trial = None;
        if confirmed.is_none() {
            log::info!("{folder} worked, but is not the installed bundle any more");
            return Judgement::Open;
        }
        log::info!("the installed bundle has proved itself");
        Judgement::Proved
    }

    /// Gives the installed bundle up for the one before, if it is still `bundle`.
    ///
    /// # Errors
    /// The pointer cannot be written.
    pub fn give_up(&mut self, bundle: &Path, reason: &str) -> Result<(), StoreError> {
        self.trial = None;
        match self.change_if(bundle, |pointer| pointer.failed(reason))? {
            Some(pointer) => log_failure(&pointer),
            None => log::error!(
                "{}, which is not the installed bundle any more: {reason}",
                bundle.display()
            ),
        }
        Ok(())
    }

    /// Back to the bundle before. `shipped` says whether vedetta came with one.
    ///
    /// # Errors
    /// There is none, or the pointer cannot be written.
    pub fn roll_back(&mut self, shipped: bool) -> Result<Pointer, StoreError> {
        let before = self.store.pointer();
        let other = before.rolled_back().ok_or(StoreError::NoOther)?;
        if other.current.is_none() && !shipped {
            return Err(StoreError::NoOther);
        }
        self.change(|_| other)?;
        Ok(before)
    }

    /// Puts the pointer back to what it was.
    pub fn restore(&mut self, before: Pointer) {
        if let Err(error) = self.change(|_| before) {
            log::error!("{error}");
        }
    }

    /// The daemon stops because it was asked to: that says nothing about a bundle on trial.
    pub fn excuse(&self) {
        let Some(OnTrial { folder, .. }) = &self.trial else {
            return;
        };
        if let Err(error) = self.change_if(&self.store.path(folder), Pointer::excused) {
            log::warn!("{error}");
        }
    }

    /// Changes the pointer if `bundle` is the installed one; `None` where it is not any more.
    fn change_if(
        &self,
        bundle: &Path,
        change: impl FnOnce(&Pointer) -> Pointer,
    ) -> Result<Option<Pointer>, StoreError> {
        let mut is_current = false;
        let pointer = self.change(|pointer| {
            let current = pointer.current.as_ref();
            is_current = current.is_some_and(|folder| self.store.path(folder) == bundle);
            if is_current {
                change(pointer)
            } else {
                pointer.clone()
            }
        })?;
        Ok(is_current.then_some(pointer))
    }

    fn change(&self, change: impl FnOnce(&Pointer) -> Pointer) -> Result<Pointer, StoreError> {
        let lock = self.store.lock()?;
        self.store.change(&lock, change)
    }

    /// Installs the bundle at `remote` on a thread of its own; [`Updates::reports`] tells of it.
    ///
    /// # Errors
    /// One is being installed already, or there is no thread.
    pub fn install(
        &mut self,
        id: Value,
        remote: Remote,
        config: Config,
        requests: SyncSender<Request>,
        bell: Arc<Bell>,
    ) -> Result<(), UpdateError> {
        if self.worker.is_some() {
            return Err(StoreError::Busy(self.store.root().to_owned()).into());
        }
        let (sender, reports) = mpsc::sync_channel(REPORTS);
        let work = move || {
            let outcome = install(&config, &Origin::Remote(remote), &sender, &requests, &bell);
            // Nobody listens any more when the daemon stops.
            let _ = sender.send(Report::Done(outcome));
        };
        std::thread::Builder::new()
            .name("update".to_owned())
            .spawn(work)
            .map_err(|source| StoreError::Disk {
                path: self.store.root().to_owned(),
                action: "installed into",
                source,
            })?;
        self.worker = Some(Worker { id, reports });
        Ok(())
    }

    /// The next thing that the installing thread said, and the `id` of the command.
    pub fn report(&mut self) -> Option<(Value, Report)> {
        let worker = self.worker.as_ref()?;
        let id = worker.id.clone();
        let report = match worker.reports.try_recv() {
            Ok(report) => report,
            Err(mpsc::TryRecvError::Empty) => return None,
            Err(mpsc::TryRecvError::Disconnected) => {
                let reason = "the installing thread died; see the log".to_owned();
                Report::Done(Err(UpdateError::TryOut(reason)))
            }
        };
        if matches!(report, Report::Done(_)) {
            self.worker = None;
        }
        Some((id, report))
    }

    /// For `B/info`.
    pub fn info(&self, config: &Config) -> UpdateInfo {
        let pointer = self.store.pointer();
        let source = match &config.model.shipped {
            None => BundleSource::Configured,
            Some(_) if config.model.is_installed() => BundleSource::Installed,
            Some(_) => BundleSource::Shipped,
        };
        let signature = match (&config.update.public_key, config.update.require_signature) {
            (_, false) => SignatureRule::Off,
            (None, true) => SignatureRule::NoKey,
            (Some(_), true) => SignatureRule::Required,
        };
        let other = (pointer.current != pointer.previous).then_some(&pointer.previous);
        UpdateInfo {
            source,
            trial: pointer.on_trial(),
            previous: other.map(|folder| {
                let id = folder.as_ref().map(|folder| folder.bundle_id());
                id.unwrap_or_else(|| "shipped".to_owned())
            }),
            failed: pointer.failed.map(|failed| FailedBundle {
                bundle: failed.bundle,
                reason: failed.reason,
            }),
            signature,
        }
    }
}

fn log_failure(pointer: &Pointer) {
    if let Some(failed) = &pointer.failed {
        log::error!("bundle {} is given up: {}", failed.bundle, failed.reason);
    }
}

fn install(
    config: &Config,
    origin: &Origin,
    sender: &SyncSender<Report>,
    requests: &SyncSender<Request>,
    bell: &Bell,
) -> Result<Outcome, UpdateError> {
    let store = Store::open(&config.state_dir);
    let mut told: Option<Instant> = None;
    let mut progress = |stage: Stage| {
        let is_download = matches!(stage, Stage::Downloading(..));
        if is_download && told.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
            return;
        }
        told = is_download.then(Instant::now);
        // Never waits: what does not fit is old news.
        let _ = sender.try_send(Report::Progress(stage));
    };
    let mut try_out = |bundle: &Bundle| {
        let (answer, frames) = mpsc::sync_channel(1);
        let asked = requests.try_send(Request::LastFrames(answer)).is_ok();
        bell.ring();
        let frames = asked.then(|| frames.recv_timeout(FRAMES).ok()).flatten();
        update::try_out(bundle, config, &frames.unwrap_or_default())
    };
    update::install(
        &store,
        &config.update,
        origin,
        &mut Steps {
            try_out: &mut try_out,
            progress: &mut progress,
        },
    )
}

#[cfg(test)]
mod tests;
