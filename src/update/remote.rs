//! A bundle on a server, as somebody asks for it.

use super::FetchError;
use crate::bundle::signature;
use crate::bundle::store::DOWNLOAD;

/// Longest URL, bytes.
pub(super) const MAX_URL_BYTES: usize = 2048;

/// A file on a server, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    url: String,
    sha256: String,
}

impl Remote {
    /// Checks both: an `https://` URL and 64 hex digits.
    ///
    /// # Errors
    /// Which of them is wrong.
    pub fn new(url: &str, sha256: &str) -> Result<Self, FetchError> {
        let legal = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        let fits = url.len() <= MAX_URL_BYTES && url.chars().all(legal);
        if !fits || !url.starts_with("https://") {
            return Err(FetchError::Url);
        }
        let sha256 = sha256.to_ascii_lowercase();
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(FetchError::Sha256);
        }
        Ok(Self {
            url: url.to_owned(),
            sha256,
        })
    }

    /// One that may also be on plain HTTP.
    #[cfg(test)]
    pub(super) fn unchecked(url: &str, sha256: &str) -> Self {
        Self {
            url: url.to_owned(),
            sha256: sha256.to_owned(),
        }
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// 64 lower-case hex digits.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Where its signature is: beside it, before the question mark.
    pub(super) fn signature_url(&self) -> String {
        let suffix = signature::SUFFIX;
        match self.url.find(['?', '#']) {
            Some(at) => format!("{}{suffix}{}", &self.url[..at], &self.url[at..]),
            None => format!("{}{suffix}", self.url),
        }
    }

    /// The name of the unfinished download.
    pub(super) fn part_name(&self) -> String {
        format!("{DOWNLOAD}{}.part", &self.sha256[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "ab12CD34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34";

    #[test]
    fn only_https_and_whole_hashes_are_taken() {
        let remote = Remote::new("https://esempio.it/a.tar.zst?t=1&u=2", HASH).unwrap();
        assert_eq!(remote.part_name(), "download-ab12cd34ab12cd34.part");
        assert_eq!(
            remote.signature_url(),
            "https://esempio.it/a.tar.zst.minisig?t=1&u=2"
        );
        let long = format!("https://a/{}", "x".repeat(3000));
        for url in [
            "",
            "http://a/b",
            "file:///etc/passwd",
            "HTTPS://a",
            "https://a/b c",
            "https://a/\n",
            "https://a/{}",
            &long,
        ] {
            assert!(Remote::new(url, HASH).is_err(), "{url:?}");
        }
        for hash in ["", "ab", &HASH[1..], &format!("{}g", &HASH[1..])] {
            assert!(Remote::new("https://a/b", hash).is_err(), "{hash:?}");
        }
    }
}
