//! A disk in memory whose power can be cut at any step, and which then keeps of what was not made safe
//! any part in any order: writes whole, in sectors, or not at all.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::store::{Access, Opener, builder};
use crate::bundle::store::Dice;

/// What a disk writes at once, bytes.
const SECTOR: usize = 512;

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// This step fails, the next ones do not.
    Fails,
    /// From here on nothing can be written.
    Fills,
    /// Nothing happens any more from here on.
    Stops,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let end = (at + data.len()).min(content.len());
                if *at < end {
                    content[*at..end].copy_from_slice(&data[..end - at]);
                }
            }
            Self::Resize(length) => content.resize(*length, 0),
        }
    }

    /// The sectors of a write that reached the platter.
    fn torn(&self, dice: &mut Dice) -> Vec<Self> {
        let Self::Write(at, data) = self else {
            return vec![self.clone()];
        };
        let sectors = data.chunks(SECTOR).enumerate();
        sectors
            .filter(|_| dice.below(2) == 0)
            .map(|(n, sector)| Self::Write(at + n * SECTOR, sector.to_vec()))
            .collect()
    }
}

#[derive(Debug)]
struct State {
    /// What a reader sees.
    content: Vec<u8>,
    /// What a power cut leaves,
    safe: Vec<u8>,
    /// and what may be there besides.
    pending: Vec<Change>,
    steps: usize,
    fault: Option<(usize, Fault)>,
    full: bool,
    stopped: bool,
    dice: Dice,
}

/// See the module. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Platter(Arc<Mutex<State>>);

impl Platter {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            content: Vec::new(),
            safe: Vec::new(),
            pending: Vec::new(),
            steps: 0,
            fault: None,
            full: false,
            stopped: false,
            dice: Dice(seed),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Opens databases on this disk.
    pub fn opener(&self) -> Opener {
        let platter = self.clone();
        Box::new(move |_, access| {
            if platter.state().stopped {
                return Err(no_power().into());
            }
            let disk = match access {
                Access::Write => platter.clone(),
                // What is changed while reading is forgotten.
                Access::Read => platter.snapshot(),
            };
            builder().create_with_backend(disk)
        })
    }

    fn snapshot(&self) -> Self {
        let copy = Self::new(0);
        copy.state().content.clone_from(&self.state().content);
        copy
    }

    /// The n-th step from here on, 0 the next one, goes wrong.
    pub fn set_fault(&self, after: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.steps + after, fault));
    }

    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.state().steps
    }

    /// Whether everything came to a stop.
    pub fn stopped(&self) -> bool {
        self.state().stopped
    }

    /// There is room again, and whatever was to go wrong does not.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.fault, state.full) = (None, false);
    }

    /// The process is started again; the machine kept running, nothing is lost.
    pub fn restart(&self) {
        self.mend();
        self.state().stopped = false;
    }

    /// The machine is started again: what was not safe is there, or in part, or not.
    pub fn cut_power(&self) {
        let mut guard = self.state();
        let State {
            content,
            safe,
            pending,
            dice,
            ..
        } = &mut *guard;
        let kind = dice.below(4);
        let first = dice.below(pending.len() + 1);
        for (n, change) in pending.drain(..).enumerate() {
            let kept = match kind {
                0 => Vec::new(),
                1 if n < first => vec![change],
                1 => Vec::new(),
                2 => change.torn(dice),
                _ => match dice.below(2) {
                    0 => vec![change],
                    _ => Vec::new(),
                },
            };
            kept.iter().for_each(|change| change.apply(safe));
        }
        content.clone_from(safe);
        drop(guard);
        self.restart();
    }
}

impl State {
    /// Counts a step; `true` when the power goes while it is done.
    fn step(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(no_power());
        }
        let here = self.steps;
        self.steps += 1;
        let fault = self.fault.take_if(|(at, _)| *at == here);
        match fault.map(|(_, fault)| fault) {
            None => {}
            Some(Fault::Fails) => return Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(Fault::Fills) => self.full = true,
            Some(Fault::Stops) => self.stopped = true,
        }
        Ok(self.stopped)
    }

    /// Whether a step during which the power went was done.
    fn is_done(&mut self, is_last: bool) -> bool {
        !is_last || self.dice.below(2) == 0
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let is_last = self.step()?;
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.is_done(is_last) {
            change.apply(&mut self.content);
            self.pending.push(change);
        }
        if is_last { Err(no_power()) } else { Ok(()) }
    }
}

fn no_power() -> io::Error {
    io::Error::other("there is no power")
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let there = state.content.get(at..at + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        self.state().change(Change::Resize(length))
    }

    /// A failed one leaves pending what was: pages that a kernel forgets after a failed fsync are not
    /// modelled.
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let is_last = state.step()?;
        if state.is_done(is_last) {
            let State { safe, pending, .. } = &mut *state;
            pending.drain(..).for_each(|change| change.apply(safe));
        }
        if is_last { Err(no_power()) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.state().change(Change::Write(at, data.to_vec()))
    }
}
