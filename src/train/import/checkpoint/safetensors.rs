//! The index of a `.safetensors` file: 8 bytes with the header's length, the header as JSON, the
//! tensors without gaps (<https://github.com/huggingface/safetensors>).

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{Kind, Source, Stored};

/// Longest header, bytes; the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Length of the header's length.
const PREFIX_BYTES: u64 = 8;

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

pub(super) fn index(source: &Source) -> Result<Vec<(String, Stored)>> {
    let mut prefix = [0; 8];
    ensure!(source.bytes >= PREFIX_BYTES, "has no header");
    source.read(0, &mut prefix)?;
    let length = u64::from_le_bytes(prefix);
    ensure!(
        length <= MAX_HEADER_BYTES && length <= source.bytes - PREFIX_BYTES,
        "its header says it is {length} bytes long; the file is damaged, or not safetensors"
    );
    let mut header = vec![0; usize::try_from(length)?];
    source.read(PREFIX_BYTES, &mut header)?;
    let header: BTreeMap<String, Value> =
        serde_json::from_slice(&header).context("its header is no JSON object")?;

    let start = PREFIX_BYTES + length;
    let room = source.bytes - start;
    let mut tensors = Vec::with_capacity(header.len());
    let mut ranges = Vec::with_capacity(header.len());
    for (name, value) in header {
        if name == "__metadata__" {
            continue;
        }
        let context = || format!("tensor {name}");
        let info: Info = serde_json::from_value(value).with_context(context)?;
        let [from, to] = info.data_offsets;
        ensure!(
            from <= to && to <= room,
            "tensor {name} lies at {from}–{to} of {room} bytes; the file is cut off or damaged"
        );
        let kind = kind(&info.dtype).with_context(context)?;
        let stored = Stored::row_major(kind, start + from, info.shape);
        let bytes = stored.extent_bytes().with_context(context)? as u64;
        ensure!(
            bytes == to - from,
            "tensor {name} of shape {:?} needs {bytes} bytes, its offsets hold {}",
            stored.shape,
            to - from
        );
        ranges.push((from, to, name.clone()));
        tensors.push((name, stored));
    }
    ranges.sort_unstable();
    let mut end = 0;
    for (from, to, name) in &ranges {
        ensure!(
            *from == end,
            "tensor {name} starts at byte {from} where {end} is expected; tensors overlap or leave a gap"
        );
        end = *to;
    }
    ensure!(end == room, "{} bytes behind the last tensor", room - end);
    Ok(tensors)
}

fn kind(dtype: &str) -> Result<Kind> {
    Ok(match dtype {
        "F32" => Kind::F32,
        "F16" => Kind::F16,
        "BF16" => Kind::Bf16,
        "F64" => Kind::F64,
        "BOOL" | "U8" | "I8" => Kind::Other(1),
        "U16" | "I16" => Kind::Other(2),
        "U32" | "I32" => Kind::Other(4),
        "U64" | "I64" => Kind::Other(8),
        _ => bail!("has elements of type {dtype}; legal: F32, F16, BF16, F64"),
    })
}
