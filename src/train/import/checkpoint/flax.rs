//! `flax_model.msgpack`: nested maps of arrays, as `flax.serialization` writes them. Names and axes
//! become PyTorch's.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use anyhow::{Context, Result, bail, ensure};

use super::{Kind, MAX_NAME_BYTES, MAX_TENSORS, Source, Stored};

/// Deepest nesting; a transformer's layer is at 8.
const MAX_DEPTH: usize = 32;

/// Flax' number for an array among MessagePack's extensions.
const ARRAY: u8 = 1;

/// Most axes of an array.
const MAX_AXES: usize = 8;

pub(super) fn index(source: &Source) -> Result<Vec<(String, Stored)>> {
    let mut file = BufReader::new(&source.file);
    file.rewind()?;
    let mut reader = Reader {
        file,
        at: 0,
        bytes: source.bytes,
        tensors: Vec::new(),
    };
    let Item::Map(entries) = reader.item()? else {
        bail!("is no map of arrays, as flax.serialization writes it")
    };
    reader.map(entries, "", 0)?;
    ensure!(
        reader.at == source.bytes,
        "{} bytes behind the last array",
        source.bytes - reader.at
    );
    Ok(reader.tensors)
}

/// What a MessagePack item starts with.
enum Item {
    /// Number of entries.
    Map(usize),
    /// Number of items.
    Array(usize),
    /// Length in bytes.
    Text(usize),
    /// Length in bytes.
    Binary(usize),
    /// Number and length in bytes.
    Extension(u8, usize),
    Int(u64),
    /// `nil`, a flag, a negative or floating-point number.
    Other,
}

struct Reader<'a> {
    file: BufReader<&'a File>,
    at: u64,
    bytes: u64,
    tensors: Vec<(String, Stored)>,
}

impl Reader<'_> {
    fn read<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file
            .read_exact(&mut bytes)
            .context("ends in the middle")?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn length<const N: usize>(&mut self) -> Result<usize> {
        let mut wide = [0; 8];
        wide[8 - N..].copy_from_slice(&self.read::<N>()?);
        Ok(usize::try_from(u64::from_be_bytes(wide))?)
    }

    fn item(&mut self) -> Result<Item> {
        let [tag] = self.read()?;
        let low = |bits: u8| usize::from(tag & bits);
        Ok(match tag {
            0x00..=0x7f => Item::Int(u64::from(tag)),
            0x80..=0x8f => Item::Map(low(0x0f)),
            0x90..=0x9f => Item::Array(low(0x0f)),
            0xa0..=0xbf => Item::Text(low(0x1f)),
            0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Item::Other,
            0xc4 => Item::Binary(self.length::<1>()?),
            0xc5 => Item::Binary(self.length::<2>()?),
            0xc6 => Item::Binary(self.length::<4>()?),
            0xc7 => self.extension::<1>()?,
            0xc8 => self.extension::<2>()?,
            0xc9 => self.extension::<4>()?,
            0xcc => Item::Int(self.length::<1>()? as u64),
            0xcd => Item::Int(self.length::<2>()? as u64),
            0xce => Item::Int(self.length::<4>()? as u64),
            0xcf => Item::Int(u64::from_be_bytes(self.read()?)),
            0xd4..=0xd8 => {
                let [number] = self.read()?;
                Item::Extension(number, 1 << (tag - 0xd4))
            }
            0xd9 => Item::Text(self.length::<1>()?),
            0xda => Item::Text(self.length::<2>()?),
            0xdb => Item::Text(self.length::<4>()?),
            0xdc => Item::Array(self.length::<2>()?),
            0xdd => Item::Array(self.length::<4>()?),
            0xde => Item::Map(self.length::<2>()?),
            0xdf => Item::Map(self.length::<4>()?),
            _ => bail!("has an item of type {tag:#04x}, which flax.serialization does not write"),
        })
    }

    fn extension<const N: usize>(&mut self) -> Result<Item> {
        let length = self.length::<N>()?;
        let [number] = self.read()?;
        Ok(Item::Extension(number, length))
    }

    fn text(&mut self) -> Result<String> {
        let Item::Text(length) = self.item()? else {
            bail!("has something else where a name belongs")
        };
        ensure!(length <= MAX_NAME_BYTES, "has a name of {length} bytes");
        let mut text = vec![0; length];
        self.file
            .read_exact(&mut text)
            .context("ends in the middle")?;
        self.at += length as u64;
        String::from_utf8(text).context("has a name that is not UTF-8")
    }

    fn map(&mut self, entries: usize, path: &str, depth: usize) -> Result<()> {
        ensure!(depth < MAX_DEPTH, "nests deeper than {MAX_DEPTH}");
        for _ in 0..entries {
            let key = self.text()?;
            let path = if path.is_empty() {
                key
            } else {
                format!("{path}.{key}")
            };
            ensure!(
                path.len() <= MAX_NAME_BYTES,
                "has a name of {} bytes",
                path.len()
            );
            match self.item()? {
                Item::Map(entries) => self.map(entries, &path, depth + 1)?,
                Item::Extension(ARRAY, length) => {
                    let stored = self
                        .array(length)
                        .with_context(|| format!("array {path}"))?;
                    ensure!(
                        self.tensors.len() < MAX_TENSORS,
                        "more than {MAX_TENSORS} arrays"
                    );
                    let tensor = renamed(&path, stored).with_context(|| format!("array {path}"))?;
                    self.tensors.push(tensor);
                }
                _ => bail!(
                    "{path} is no array; arrays of more than 1 GiB, which Flax cuts into pieces, \
                     are not supported"
                ),
            }
        }
        Ok(())
    }

    /// `[shape, type, elements]`, row-major, in an extension of `length` bytes.
    fn array(&mut self, length: usize) -> Result<Stored> {
        let end = self.at.checked_add(length as u64);
        let end = end.filter(|end| *end <= self.bytes).context("is cut off")?;
        ensure!(
            matches!(self.item()?, Item::Array(3)),
            "has no shape, type and elements"
        );
        let Item::Array(axes) = self.item()? else {
            bail!("has no shape")
        };
        ensure!(axes <= MAX_AXES, "has {axes} axes");
        let mut shape = Vec::with_capacity(axes);
        for _ in 0..axes {
            let Item::Int(axis) = self.item()? else {
                bail!("has an axis that is no number")
            };
            shape.push(usize::try_from(axis)?);
        }
        let kind = match self.text()?.as_str() {
            "float32" => Kind::F32,
            "float16" => Kind::F16,
            "bfloat16" => Kind::Bf16,
            "float64" => Kind::F64,
            "int64" | "uint64" => Kind::Other(8),
            "int32" | "uint32" => Kind::Other(4),
            "int8" | "uint8" | "bool" => Kind::Other(1),
            other => bail!("has elements of type {other}"),
        };
        let Item::Binary(bytes) = self.item()? else {
            bail!("has no elements")
        };
        let stored = Stored::row_major(kind, self.at, shape);
        ensure!(
            stored.extent_bytes()? == bytes && self.at.checked_add(bytes as u64) == Some(end),
            "has {bytes} bytes of elements, which is not what its shape {:?} needs",
            stored.shape
        );
        self.file.seek_relative(i64::try_from(bytes)?)?;
        self.at = end;
        Ok(stored)
    }
}

/// A dense layer's `kernel [in, out]` is PyTorch's `weight [out, in]`, a convolution's
/// `[h, w, in, out]` is `[out, in, h, w]`.
fn renamed(path: &str, stored: Stored) -> Result<(String, Stored)> {
    let path = path.strip_prefix("params.").unwrap_or(path);
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let weight = || format!("{parent}.weight");
    Ok(match last {
        "kernel" => match stored.shape.len() {
            2 => (weight(), stored.transposed()),
            4 => (weight(), stored.permuted(&[3, 2, 0, 1])),
            other => bail!("is a kernel with {other} axes"),
        },
        "scale" | "embedding" => (weight(), stored),
        _ => (path.to_owned(), stored),
    })
}
