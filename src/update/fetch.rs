//! Downloading over HTTPS: capped, continued where it broke off, compared with a known SHA-256.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::ring;
use rustls_pemfile::certs;
use sha2::{Digest, Sha256};
use thiserror::Error;
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::remote::{MAX_URL_BYTES, Remote};
use crate::bundle::hex;
use crate::bundle::signature::{self, beside};
use crate::bundle::store::DOWNLOAD;
use crate::publish::backoff::Backoff;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes between two questions whether there is still room.
const ROOM_BYTES: u64 = 4 << 20;
/// Attempts in a row that bring next to nothing, before a download is given up.
const ATTEMPTS: u32 = 5;
/// Less than this is next to nothing, bytes.
const ENOUGH_BYTES: u64 = 16 * 1024;
/// A server that says nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// One that brings less than [`ENOUGH_BYTES`] in this time is as good as gone: the store is locked as long
/// as it is listened to.
const SLOWEST: Duration = Duration::from_secs(60);
/// Hops from one address to the next.
const REDIRECTS: u32 = 5;
/// An unfinished download that nobody continued for this long is removed.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why something could not be downloaded.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The URL of a [`Remote`].
    #[error("url must start with https:// and have at most {MAX_URL_BYTES} legal characters")]
    Url,
    /// The hash of a [`Remote`].
    #[error("sha256 must be the 64 hex digits that sha256sum prints for the file")]
    Sha256,
    /// The certificate authorities.
    #[error("{0}; set update.ca_file")]
    Authorities(String),
    /// The server said no.
    #[error("the server answers {0}")]
    Status(StatusCode),
    /// It leads away from HTTPS.
    #[error("the server leads to an address without HTTPS, which is not followed")]
    Insecure,
    /// Not reached, or lost again and again.
    #[error("the download broke off {attempts} times in a row: {reason}; ask again to continue it")]
    Lost {
        /// How often.
        attempts: u32,
        /// The last reason.
        reason: String,
    },
    /// Longer than anything that is accepted.
    #[error("it is longer than the {0} bytes that a bundle may have")]
    TooLarge(u64),
    /// Not the file that was meant.
    #[error("it has SHA-256 {found} where {expected} was asked for")]
    WrongHash {
        /// Of what came.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// The disk.
    #[error("the download cannot be written: {0}")]
    Disk(#[from] io::Error),
    /// No room, as the caller measures it.
    #[error("{0}")]
    NoRoom(String),
}

/// One download.
pub(super) struct Download<'a> {
    pub remote: &'a Remote,
    /// Most bytes.
    pub cap: u64,
    /// Asked before so many bytes are written; the answer says why not.
    pub room: &'a dyn Fn(u64) -> Result<(), String>,
    /// Told how many bytes are there, and of how many.
    pub progress: &'a mut dyn FnMut(u64, Option<u64>),
}

/// How an attempt ended.
enum Attempt {
    Complete,
    /// Worth another one.
    Broken(String),
}

impl Download<'_> {
    /// Downloads into `part`, continuing what is there, until it has the right hash.
    ///
    /// # Errors
    /// [`FetchError`]. What was lost can be continued by another call.
    pub fn run(mut self, agent: &Agent, part: &Path) -> Result<(), FetchError> {
        // Somebody else's, left over, cannot be continued; the folder is ours.
        let there = OpenOptions::new().append(true).open(part);
        if there.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
            fs::remove_file(part)?;
        }
        let was_there = length(part) > 0;
        let attempts = self.get(agent, part)?;
        match self.compare(part) {
            // What was there before may have been anything, and the file another one at each attempt.
            Err(FetchError::WrongHash { .. }) if was_there || attempts > 1 => {
                self.get(agent, part)?;
                self.compare(part)
            }
            other => other,
        }
    }

    /// Returns how many attempts it took.
    fn get(&mut self, agent: &Agent, part: &Path) -> Result<u64, FetchError> {
        let mut backoff = Backoff::default();
        let (mut attempts, mut all) = (0, 0);
        loop {
            let before = length(part);
            all += 1;
            let reason = match self.attempt(agent, part)? {
                Attempt::Complete => return Ok(all),
                Attempt::Broken(reason) => reason,
            };
            attempts = match length(part).saturating_sub(before) {
                ENOUGH_BYTES.. => 1,
                _ => attempts + 1,
            };
            if attempts >= ATTEMPTS {
                return Err(FetchError::Lost { attempts, reason });
            }
            log::warn!("the download broke off: {reason}; it is continued");
            std::thread::sleep(backoff.delay(None, 0.5));
        }
    }

    fn attempt(&mut self, agent: &Agent, part: &Path) -> Result<Attempt, FetchError> {
        let have = length(part);
        let mut request = agent.get(self.remote.url());
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = match request.header(header::ACCEPT_ENCODING, "identity").call() {
            Ok(response) => response,
            Err(ureq::Error::RequireHttpsOnly(_)) => return Err(FetchError::Insecure),
            Err(error) => return Ok(Attempt::Broken(error.to_string())),
        };
        let status = response.status();
        let (start, total) = match (status, range(&response)) {
            (StatusCode::OK, _) => (0, response.body().content_length()),
            (StatusCode::PARTIAL_CONTENT, Some((Some(start), total))) if start == have => {
                (have, total)
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, Some((None, Some(total)))) if total == have => {
                return Ok(Attempt::Complete);
            }
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                remove(part)?;
                return Ok(Attempt::Broken("it cannot be continued".to_owned()));
            }
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Attempt::Broken(format!("the server answers {status}")));
            }
            _ => return Err(FetchError::Status(status)),
        };
        if total.is_some_and(|total| total > self.cap) {
            return Err(FetchError::TooLarge(self.cap));
        }
        let more = total.map_or(0, |total| total.saturating_sub(start));
        (self.room)(more).map_err(FetchError::NoRoom)?;
        let mut file = open(part, start > 0)?;
        let copied = self.copy(response, &mut file, start, total);
        if copied.is_err() {
            // Whatever else writes on this disk needs the room.
            remove(part)?;
        }
        copied
    }

    /// An error is one that asking again does not cure.
    fn copy(
        &mut self,
        mut response: Response<ureq::Body>,
        file: &mut File,
        start: u64,
        total: Option<u64>,
    ) -> Result<Attempt, FetchError> {
        let mut body = response.body_mut().as_reader();
        let mut have = start;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut pace = Pace::begin(Instant::now(), start);
        let mut asked_at = start;
        loop {
            (self.progress)(have, total);
            let count = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Broken(error.to_string())),
            };
            have += count as u64;
            if have > self.cap {
                return Err(FetchError::TooLarge(self.cap));
            }
            if have - asked_at >= ROOM_BYTES {
                asked_at = have;
                (self.room)(ROOM_BYTES).map_err(FetchError::NoRoom)?;
            }
            file.write_all(&chunk[..count])?;
            if !pace.keeps_up(Instant::now(), have) {
                let seconds = SLOWEST.as_secs();
                return Ok(Attempt::Broken(format!(
                    "the server sent less than {ENOUGH_BYTES} bytes in {seconds} s"
                )));
            }
        }
        if total.is_some_and(|total| have < total) {
            return Ok(Attempt::Broken(
                "the server closed the connection".to_owned(),
            ));
        }
        Ok(Attempt::Complete)
    }

    fn compare(&self, part: &Path) -> Result<(), FetchError> {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(part)?, &mut hash)?;
        let found = hex(&hash.finalize());
        if found == self.remote.sha256() {
            return Ok(());
        }
        remove(part)?;
        Err(FetchError::WrongHash {
            found,
            expected: self.remote.sha256().to_owned(),
        })
    }
}

/// Whether bytes come fast enough.
struct Pace {
    since: Instant,
    had: u64,
}

impl Pace {
    fn begin(since: Instant, had: u64) -> Self {
        Self { since, had }
    }

    fn keeps_up(&mut self, now: Instant, have: u64) -> bool {
        if have - self.had >= ENOUGH_BYTES {
            *self = Self::begin(now, have);
        }
        now.saturating_duration_since(self.since) < SLOWEST
    }
}

/// Downloads the signature of `remote` and puts it beside `part`, in place of what may be there: that may be
/// somebody else's, as root's in the daemon's folder.
pub(super) fn signature(agent: &Agent, remote: &Remote, part: &Path) -> Result<(), FetchError> {
    let mut backoff = Backoff::default();
    let mut attempts = 0;
    let text = loop {
        let outcome = agent.get(remote.signature_url()).call();
        let reason = match outcome {
            Ok(mut response) if response.status() == StatusCode::OK => {
                let body = response.body_mut().with_config();
                match body.limit(signature::MAX_BYTES).read_to_string() {
                    Ok(text) => break text,
                    Err(error) => error.to_string(),
                }
            }
            Ok(response) if response.status().is_server_error() => response.status().to_string(),
            Ok(response) => return Err(FetchError::Status(response.status())),
            Err(ureq::Error::RequireHttpsOnly(_)) => return Err(FetchError::Insecure),
            Err(error) => error.to_string(),
        };
        attempts += 1;
        if attempts >= ATTEMPTS {
            return Err(FetchError::Lost { attempts, reason });
        }
        std::thread::sleep(backoff.delay(None, 0.5));
    };
    let path = beside(part);
    remove(&path)?;
    open(&path, false)?.write_all(text.as_bytes())?;
    Ok(())
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A client that speaks nothing but HTTPS, and believes the authorities in `ca_file`.
pub(super) fn agent(ca_file: &Path) -> Result<Agent, FetchError> {
    let wrong = |error: String| FetchError::Authorities(format!("{}: {error}", ca_file.display()));
    let file = File::open(ca_file).map_err(|error| wrong(error.to_string()))?;
    // System-wide files often hold a few that are not understood.
    let roots: Vec<_> = certs(&mut io::BufReader::new(file))
        .filter_map(Result::ok)
        .map(|certificate| Certificate::from_der(&certificate).to_owned())
        .collect();
    if roots.is_empty() {
        return Err(wrong("holds no PEM certificate".to_owned()));
    }
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build();
    let config = Agent::config_builder()
        .https_only(true)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .timeout_resolve(Some(SILENCE))
        .timeout_connect(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .timeout_per_write(Some(SILENCE))
        .user_agent(concat!("vedetta/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    Ok(config.new_agent())
}

/// Removes unfinished downloads in `folder` but `keep`, and those that were forgotten.
pub(super) fn tidy(folder: &Path, keep: Option<&str>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kept = keep.is_some_and(|keep| name.starts_with(keep));
        let age = entry
            .metadata()
            .and_then(|data| data.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        let wanted = kept || keep.is_none() && age.is_none_or(|age| age < FORGOTTEN);
        if name.starts_with(DOWNLOAD)
            && !wanted
            && let Err(error) = fs::remove_file(entry.path())
        {
            log::warn!("{} is left over: {error}", entry.path().display());
        }
    }
}

fn range(response: &Response<ureq::Body>) -> Option<(Option<u64>, Option<u64>)> {
    let value = response.headers().get(header::CONTENT_RANGE)?;
    content_range(value.to_str().ok()?)
}

/// A header `Content-Range` (RFC 9110, 14.4): the first byte, where the server gives any, and how many the
/// whole has, where it says so. `None` when it is none of bytes.
pub fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = match range {
        "*" => None,
        range => Some(range.split_once('-')?.0.parse().ok()?),
    };
    Some((start, total.parse().ok()))
}

fn length(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |data| data.len())
}

/// A link in its place is not followed: root installs into a folder of the daemon's user.
fn open(part: &Path, append: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.create(true).append(append).truncate(!append);
    let options = options.write(true).custom_flags(libc::O_NOFOLLOW);
    options.open(part)
}

#[cfg(test)]
mod tests;
