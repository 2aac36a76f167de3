//! The part of Python's pickle that `torch.save` writes for a dictionary of tensors, read without
//! executing anything: a global is only a name on a short list, and what is built is only data.
//!
//! Containers live in one flat table and refer to each other by index, so that however deeply a
//! hostile file nests them, nothing recurses.

use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};

use super::pickled::{Container, Global, Pickled, Storage, Value};

/// Longest pickle, bytes; the largest known one has 200 kB. A byte of it may become an empty container,
/// which takes fifty.
pub(super) const MAX_PICKLE_BYTES: u64 = 4 << 20;

/// Runs the pickle and returns the named tensors of the dictionary it describes, or of the
/// dictionary under `state_dict` in it.
pub(super) fn tensors(pickle: &[u8]) -> Result<Vec<(String, Pickled)>> {
    let mut machine = Machine {
        input: pickle,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        containers: Vec::new(),
    };
    let mut top = machine.run()?;
    if let Some(inner) = machine.entry(&top, "state_dict") {
        top = inner;
    }
    machine.named(&top)
}

struct Machine<'a> {
    input: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Vec<Option<Value>>,
    containers: Vec<Vec<Value>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value> {
        loop {
            let [opcode] = self.bytes()?;
            match opcode {
                b'.' => return self.pop(),
                // PROTO
                0x80 => {
                    let [protocol] = self.bytes()?;
                    ensure!(
                        protocol == 2,
                        "is of protocol {protocol}; torch.save writes 2"
                    );
                }
                b'(' => self.marks.push(self.stack.len()),
                // None, False, True
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
                // BINFLOAT
                b'G' => {
                    let _: [u8; 8] = self.bytes()?;
                    self.stack.push(Value::Other);
                }
                b'K' => {
                    let [value] = self.bytes()?;
                    self.stack.push(Value::Int(i64::from(value)));
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.bytes()?);
                    self.stack.push(Value::Int(i64::from(value)));
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.bytes()?);
                    self.stack.push(Value::Int(i64::from(value)));
                }
                0x8a => self.long()?,
                b'X' => {
                    let length = u32::from_le_bytes(self.bytes()?);
                    let text = self.take(usize::try_from(length)?)?;
                    let text = std::str::from_utf8(text).context("holds text that is not UTF-8")?;
                    self.stack.push(Value::Text(text.into()));
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack
                        .push(Value::Global(Global::named(&module, &name)?));
                }
                b'q' => {
                    let [slot] = self.bytes()?;
                    self.remember(usize::from(slot))?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.bytes()?);
                    self.remember(usize::try_from(slot)?)?;
                }
                b'h' => {
                    let [slot] = self.bytes()?;
                    self.recall(usize::from(slot))?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.bytes()?);
                    self.recall(usize::try_from(slot)?)?;
                }
                b'}' => self.push_container(Value::Dict, Vec::new()),
                b']' => self.push_container(Value::List, Vec::new()),
                b')' => self.push_container(Value::Tuple, Vec::new()),
                // TUPLE1 to TUPLE3
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let items = self.pop_many(count)?;
                    self.push_container(Value::Tuple, items);
                }
                b't' => {
                    let items = self.pop_mark()?;
                    self.push_container(Value::Tuple, items);
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.extend(items, true)?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.extend(items, true)?;
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.extend(items, false)?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.extend(items, false)?;
                }
                // BUILD: attributes of a dictionary, PyTorch's `_metadata`.
                b'b' => {
                    self.pop()?;
                    ensure!(
                        matches!(self.stack.last(), Some(Value::Dict(_))),
                        "sets attributes of something that is no dictionary"
                    );
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id)?;
                    self.stack.push(Value::Storage(Rc::new(storage)));
                }
                b'R' => self.reduce()?,
                other => bail!("has the opcode {other:#04x}, which torch.save does not write"),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self
            .input
            .split_at_checked(count)
            .context("ends in the middle")?;
        self.input = tail;
        Ok(head)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self
            .input
            .split_first_chunk::<N>()
            .context("ends in the middle")?;
        self.input = tail;
        Ok(*head)
    }

    /// LONG1: a little-endian two's complement of up to eight bytes.
    fn long(&mut self) -> Result<()> {
        let [count] = self.bytes()?;
        ensure!(count <= 8, "holds a number of {count} bytes");
        let digits = self.take(usize::from(count))?;
        let mut wide = match digits.last() {
            Some(last) if last & 0x80 != 0 => [0xff; 8],
            _ => [0; 8],
        };
        wide[..digits.len()].copy_from_slice(digits);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn remember(&mut self, slot: usize) -> Result<()> {
        // Python numbers the slots one after the other.
        ensure!(slot <= self.memo.len(), "skips a slot of its memory");
        let value = self.stack.last().context("remembers nothing")?.clone();
        match self.memo.get_mut(slot) {
            Some(place) => *place = Some(value),
            None => self.memo.push(Some(value)),
        }
        Ok(())
    }

    fn recall(&mut self, slot: usize) -> Result<()> {
        let value = self.memo.get(slot).cloned().flatten();
        self.stack
            .push(value.with_context(|| format!("recalls slot {slot}, which is empty"))?);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        ensure!(self.stack.len() > floor, "takes more than it has put");
        self.stack.pop().context("takes more than it has put")
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count);
        let from = from.filter(|from| *from >= floor);
        Ok(self
            .stack
            .split_off(from.context("takes more than it has put")?))
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().context("has no mark")?;
        ensure!(mark <= self.stack.len(), "takes more than it has put");
        Ok(self.stack.split_off(mark))
    }

    fn push_container(&mut self, kind: fn(Container) -> Value, items: Vec<Value>) {
        self.stack.push(kind(self.containers.len()));
        self.containers.push(items);
    }

    fn extend(&mut self, items: Vec<Value>, pairs: bool) -> Result<()> {
        let container = match self.stack.last() {
            Some(Value::Dict(container)) if pairs => *container,
            Some(Value::List(container)) if !pairs => *container,
            _ => bail!("adds to something that is no container"),
        };
        ensure!(
            !pairs || items.len().is_multiple_of(2),
            "has a key without a value"
        );
        self.containers[container].extend(items);
        Ok(())
    }

    /// Items of a tuple.
    fn items(&self, value: &Value) -> Result<&[Value]> {
        match value {
            Value::Tuple(container) => Ok(&self.containers[*container]),
            _ => bail!("has something else where a tuple belongs"),
        }
    }

    fn sizes(&self, value: &Value) -> Result<Vec<usize>> {
        self.items(value)?.iter().map(size).collect()
    }

    /// `("storage", type, key, location, elements)`.
    fn storage(&self, id: &Value) -> Result<Storage> {
        match self.items(id)? {
            [
                Value::Text(tag),
                Value::Global(Global::Storage(kind)),
                Value::Text(key),
                Value::Text(_),
                length,
            ] if **tag == *"storage" => Ok(Storage {
                key: Rc::clone(key),
                kind: *kind,
                length: size(length)?,
            }),
            _ => bail!("refers to something that is no storage"),
        }
    }

    fn reduce(&mut self) -> Result<()> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let arguments = self.items(&arguments)?;
        let value = match function {
            Value::Global(Global::OrderedDict) if arguments.is_empty() => {
                self.push_container(Value::Dict, Vec::new());
                return Ok(());
            }
            Value::Global(Global::RebuildTensor) => match arguments {
                [Value::Storage(storage), first, shape, strides, ..] => {
                    Value::Tensor(Rc::new(Pickled {
                        key: Rc::clone(&storage.key),
                        kind: storage.kind,
                        length: storage.length,
                        first: size(first)?,
                        shape: self.sizes(shape)?,
                        strides: self.sizes(strides)?,
                    }))
                }
                _ => bail!("makes a tensor out of something that is no storage"),
            },
            Value::Global(Global::RebuildParameter) => match arguments {
                [tensor @ Value::Tensor(_), ..] => tensor.clone(),
                _ => bail!("makes a parameter out of something that is no tensor"),
            },
            _ => bail!("calls something that is no function of PyTorch's"),
        };
        self.stack.push(value);
        Ok(())
    }

    /// Text up to the next newline.
    fn line(&mut self) -> Result<String> {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.context("ends in the middle")?)?;
        let line = std::str::from_utf8(line)
            .context("holds text that is not UTF-8")?
            .to_owned();
        self.take(1)?;
        Ok(line)
    }

    fn entry(&self, dict: &Value, wanted: &str) -> Option<Value> {
        let Value::Dict(container) = dict else {
            return None;
        };
        let pairs = self.containers[*container].chunks_exact(2);
        pairs.rev().find_map(|pair| match &pair[0] {
            Value::Text(key) if **key == *wanted => Some(pair[1].clone()),
            _ => None,
        })
    }

    fn named(&self, dict: &Value) -> Result<Vec<(String, Pickled)>> {
        let Value::Dict(container) = dict else {
            bail!("does not describe a dictionary of tensors");
        };
        let pairs = self.containers[*container].chunks_exact(2);
        pairs
            .map(|pair| match pair {
                [Value::Text(name), Value::Tensor(tensor)] => {
                    Ok((name.to_string(), Pickled::clone(tensor)))
                }
                [Value::Text(name), _] => bail!("{name} is no tensor"),
                _ => bail!("has a tensor without a name"),
            })
            .collect()
    }
}

fn size(value: &Value) -> Result<usize> {
    match value {
        Value::Int(value) => usize::try_from(*value).context("has a negative size"),
        _ => bail!("has something else where a size belongs"),
    }
}
