//! A file system in memory whose power can be cut at any step, and which then forgets whatever was
//! not made safe: file contents in part, names in a folder in any selection.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, Lock};

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % n as u64).unwrap()
    }
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This step fails, the next ones do not.
    Fails,
    /// Nothing happens any more from here on.
    Stops,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(from, to, node) => {
                // A journal may know of the new name and not of the old one.
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Node {
    File {
        data: Vec<u8>,
        safe: Option<Vec<u8>>,
    },
    Dir {
        names: BTreeMap<String, usize>,
        safe: BTreeMap<String, usize>,
        pending: Vec<Change>,
    },
}

#[derive(Clone, Debug)]
struct State {
    nodes: Vec<Node>,
    steps: usize,
    fault: Option<(usize, Fault)>,
    stopped: bool,
    free_bytes: u64,
    dice: Dice,
}

/// See the module. Clones share everything; [`Model::copy`] does not.
#[derive(Clone, Debug)]
pub struct Model(Arc<Mutex<State>>);

impl Model {
    /// An empty file system.
    pub fn new(seed: u64) -> Self {
        let root = Node::Dir {
            names: BTreeMap::new(),
            safe: BTreeMap::new(),
            pending: Vec::new(),
        };
        Self(Arc::new(Mutex::new(State {
            nodes: vec![root],
            steps: 0,
            fault: None,
            stopped: false,
            free_bytes: u64::MAX,
            dice: Dice(seed),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The same state, apart from this one.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
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

    /// What [`Disk::free_bytes`] says.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = bytes;
    }

    /// The process is started again; the machine kept running, nothing is lost.
    pub fn restart(&self) {
        let mut state = self.state();
        state.stopped = false;
        state.fault = None;
    }

    /// The machine is started again: what was not safe is there, or in part, or not.
    pub fn cut_power(&self) {
        let mut guard = self.state();
        let State { nodes, dice, .. } = &mut *guard;
        for node in nodes {
            match node {
                Node::File { data, safe } => {
                    if safe.as_ref() != Some(data) {
                        *data = match dice.below(4) {
                            0 => safe.clone().unwrap_or_default(),
                            1 => data[..dice.below(data.len() + 1)].to_vec(),
                            2 => vec![0; data.len()],
                            _ => data.clone(),
                        };
                    }
                    *safe = Some(data.clone());
                }
                Node::Dir {
                    names,
                    safe,
                    pending,
                } => {
                    let kind = dice.below(4);
                    let first = dice.below(pending.len() + 1);
                    for (n, change) in pending.drain(..).enumerate() {
                        let kept = match kind {
                            0 => false,
                            1 => n < first,
                            2 => dice.below(2) == 0,
                            _ => true,
                        };
                        if kept {
                            change.apply(safe);
                        }
                    }
                    *names = safe.clone();
                }
            }
        }
        drop(guard);
        self.restart();
    }
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl State {
    /// Counts a step; `true` when it is the one that goes wrong.
    fn step(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(io::Error::other("there is no power"));
        }
        let here = self.steps;
        self.steps += 1;
        match self.fault {
            Some((at, fault)) if at == here => {
                self.stopped = fault == Fault::Stops;
                self.fault = None;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn wrong<T>() -> io::Result<T> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut node = 0;
        for part in path.components().filter_map(|c| match c {
            std::path::Component::Normal(name) => name.to_str(),
            _ => None,
        }) {
            let Node::Dir { names, .. } = &self.nodes[node] else {
                return Err(missing());
            };
            node = *names.get(part).ok_or_else(missing)?;
        }
        Ok(node)
    }

    fn change(&mut self, path: &Path, change: Change) -> io::Result<()> {
        let parent = self.find(path.parent().ok_or_else(missing)?)?;
        let Node::Dir { names, pending, .. } = &mut self.nodes[parent] else {
            return Err(missing());
        };
        change.apply(names);
        pending.push(change);
        Ok(())
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<()> {
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.change(path, Change::Link(name(path), node))
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Disk for Model {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return State::wrong();
        }
        if state.find(path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let dir = Node::Dir {
            names: BTreeMap::new(),
            safe: BTreeMap::new(),
            pending: Vec::new(),
        };
        state.add(path, dir)
    }

    fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<u64> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        let mut state = self.state();
        let goes_wrong = state.step()?;
        let length = match goes_wrong {
            true => state.dice.below(bytes.len() + 1),
            false => bytes.len(),
        };
        bytes.truncate(length);
        let written = bytes.len() as u64;
        match state.find(path) {
            Ok(node) => {
                if let Node::File { data, .. } = &mut state.nodes[node] {
                    *data = bytes;
                }
            }
            Err(_) => {
                let file = Node::File {
                    data: bytes,
                    safe: None,
                };
                state.add(path, file)?;
            }
        }
        if goes_wrong {
            return State::wrong();
        }
        Ok(written)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return State::wrong();
        }
        let node = state.find(path)?;
        match &mut state.nodes[node] {
            Node::File { data, safe } => *safe = Some(data.clone()),
            Node::Dir {
                names,
                safe,
                pending,
            } => {
                *safe = names.clone();
                pending.clear();
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let goes_wrong = state.step()?;
        // One that the power cut fell into may have happened or not.
        let happens = !goes_wrong || state.stopped && state.dice.below(2) == 0;
        if happens {
            assert_eq!(from.parent(), to.parent(), "not in one step");
            let node = state.find(from)?;
            if let (Ok(there), Node::Dir { .. }) = (state.find(to), &state.nodes[node]) {
                let Node::Dir { names, .. } = &state.nodes[there] else {
                    return Err(io::Error::from(io::ErrorKind::NotADirectory));
                };
                if !names.is_empty() {
                    return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty));
                }
            }
            state.change(to, Change::Rename(name(from), name(to), node))?;
        }
        if goes_wrong {
            return State::wrong();
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return State::wrong();
        }
        state.find(path)?;
        state.change(path, Change::Unlink(name(path)))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? {
            return State::wrong();
        }
        let node = state.find(path)?;
        match &state.nodes[node] {
            Node::Dir { names, .. } if names.is_empty() => {}
            _ => return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty)),
        }
        state.change(path, Change::Unlink(name(path)))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.stopped {
            return State::wrong();
        }
        match &state.nodes[state.find(path)?] {
            Node::Dir { names, .. } => Ok(names.keys().cloned().collect()),
            Node::File { .. } => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        let state = self.state();
        if state.stopped {
            return State::wrong();
        }
        match &state.nodes[state.find(path)?] {
            Node::File { data, .. } => Ok(data.clone()),
            Node::Dir { .. } => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        }
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.state().free_bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        if self.read(path, 0).is_err() {
            self.write(path, &mut io::empty())?;
        }
        Ok(Some(Box::new(())))
    }
}
