//! What systemd is told, when it asked for it: readiness, status and the watchdog. Without
//! `NOTIFY_SOCKET` nothing is sent and nothing fails.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Verdict;

/// How long one step of the start may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The connection to the service manager.
#[derive(Debug)]
pub struct Systemd {
    /// Half of `WATCHDOG_USEC`, as `sd_watchdog_enabled(3)` recommends.
    feed_every: Option<Duration>,
    fed_at: Option<Duration>,
    /// The stage that was named last.
    starving: Option<String>,
    status: String,
}

impl Systemd {
    /// Reads `WATCHDOG_USEC` and `WATCHDOG_PID`; leaves the environment as it is.
    pub fn from_env() -> Self {
        let mut microseconds = 0;
        let enabled = sd_notify::watchdog_enabled(false, &mut microseconds);
        Self {
            feed_every: enabled.then(|| Duration::from_micros(microseconds) / 2),
            fed_at: None,
            starving: None,
            status: String::new(),
        }
    }

    /// How often [`Systemd::tick`] has to be called at least; `None` when systemd wants no watchdog.
    pub fn feed_every(&self) -> Option<Duration> {
        self.feed_every
    }

    /// The start goes on: systemd waits for [`Systemd::ready`] at least two minutes more.
    pub fn starting(&self) {
        let microseconds = u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    /// Start or reload is complete.
    pub fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins; [`Systemd::ready`] ends it. `Type=notify-reload` needs the time stamp.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => log::warn!("systemd is not told of the reload: no clock: {error}"),
        }
    }

    /// The daemon stops.
    pub fn stopping(&mut self) {
        send(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`; sent only when it changed.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            send(&[NotifyState::Status(&one_line(status))]);
        }
    }

    /// Feeds the watchdog when it is due at `now` (uptime) and `verdict` allows it, however often it
    /// is called; logs once when it starts or stops to starve, and when it is another stage's fault.
    pub fn tick(&mut self, now: Duration, verdict: &Verdict) {
        match verdict {
            Verdict::Feed => {
                if self.starving.take().is_some() {
                    log::warn!("every stage advances again, the watchdog is fed");
                }
                let Some(every) = self.feed_every else { return };
                if self
                    .fed_at
                    .is_none_or(|at| now.saturating_sub(at) >= every / 2)
                {
                    self.fed_at = Some(now);
                    send(&[NotifyState::Watchdog]);
                }
            }
            Verdict::Starve {
                stage,
                silent_for,
                died,
            } => {
                // A slow stage may hide one that hangs: whoever is named last is who is restarted for.
                if self.starving.as_ref() != Some(stage) {
                    self.starving = Some(stage.clone());
                    let what = if *died { "died" } else { "hangs" };
                    let seconds = silent_for.as_secs();
                    let line = format!("{stage} {what}, silent for {seconds} s");
                    log::error!("{line}; the watchdog is not fed");
                    self.status(&line);
                }
            }
        }
    }
}

/// A newline would start another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        log::debug!("systemd was not notified: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    fn starve() -> Verdict {
        Verdict::Starve {
            stage: "inference".to_owned(),
            silent_for: Duration::from_secs(40),
            died: false,
        }
    }

    /// The other half of the test below: runs in a process of its own, because the environment is
    /// what is tested.
    #[test]
    #[ignore = "run by the_service_manager_hears_what_systemd_expects"]
    fn inside_a_service() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            println!("skipped: not run as a service");
            return;
        }
        let mut systemd = Systemd::from_env();
        assert_eq!(systemd.feed_every(), Some(Duration::from_secs(5)));
        let at = Duration::from_secs;
        systemd.starting();
        systemd.ready("1 camera\nSTOPPING=1");
        systemd.status("all well");
        systemd.status("all well");
        systemd.tick(at(0), &Verdict::Feed);
        systemd.tick(at(1), &Verdict::Feed);
        systemd.tick(at(5), &Verdict::Feed);
        systemd.tick(at(10), &starve());
        systemd.tick(at(15), &starve());
        systemd.tick(
            at(16),
            &Verdict::Starve {
                stage: "capture-uno".to_owned(),
                silent_for: at(30),
                died: false,
            },
        );
        systemd.tick(at(20), &Verdict::Feed);
        systemd.reloading();
        systemd.stopping();
    }

    #[test]
    fn the_service_manager_hears_what_systemd_expects() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let name = format!("{}::inside_a_service", module_path!());
        let (_, name) = name.split_once("::").unwrap();
        // WATCHDOG_PID has to be the process itself, which only a shell knows beforehand.
        let child = Command::new("sh")
            .args(["-c", "WATCHDOG_PID=$$ exec \"$0\" --exact --ignored \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "10000000")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        let hear = || {
            let mut buffer = [0; 512];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(hear(), "EXTEND_TIMEOUT_USEC=120000000\n");
        assert_eq!(hear(), "READY=1\nSTATUS=1 camera STOPPING=1\n");
        assert_eq!(hear(), "STATUS=all well\n");
        assert_eq!(hear(), "WATCHDOG=1\n", "at 0 s");
        assert_eq!(hear(), "WATCHDOG=1\n", "at 5 s, not at 1 s");
        assert_eq!(hear(), "STATUS=inference hangs, silent for 40 s\n");
        assert_eq!(hear(), "STATUS=capture-uno hangs, silent for 30 s\n");
        assert_eq!(hear(), "WATCHDOG=1\n", "at 20 s, after it moved again");
        let reload = hear();
        assert!(
            reload.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reload}"
        );
        assert_eq!(hear(), "STOPPING=1\n");
    }

    #[test]
    fn outside_of_systemd_nothing_happens() {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            println!("skipped: this test itself runs as a service");
            return;
        }
        let mut systemd = Systemd::from_env();
        assert_eq!(systemd.feed_every(), None);
        systemd.ready("ready");
        systemd.reloading();
        systemd.tick(Duration::ZERO, &Verdict::Feed);
        systemd.tick(Duration::ZERO, &starve());
        systemd.stopping();
    }
}
