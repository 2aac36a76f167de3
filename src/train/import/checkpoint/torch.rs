//! `pytorch_model.bin` as `torch.save` has written it since PyTorch 1.6: a zip archive of stored
//! (not compressed) members, a pickle that names the tensors, and a member for each storage.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, MAX_PICKLE_BYTES};
use super::pickled::Pickled;
use super::{Source, Stored};

/// What a zip archive starts with.
const MAGIC: [u8; 4] = *b"PK\x03\x04";

/// Longest member that is read besides the pickle, bytes.
const MAX_BYTE_ORDER_BYTES: u64 = 16;

pub(super) fn index(source: &Source) -> Result<Vec<(String, Stored)>> {
    let mut magic = [0; 4];
    ensure!(source.bytes >= 4, "is empty");
    source.read(0, &mut magic)?;
    if magic != MAGIC {
        bail!(
            "is no archive as torch.save writes it since PyTorch 1.6; load it with torch.load(…, \
             weights_only=True) and save it as safetensors"
        );
    }
    let mut archive = ZipArchive::new(&source.file).context("is no zip archive")?;
    let members = members(&mut archive, source.bytes)?;
    let root = members
        .keys()
        .find_map(|name| name.strip_suffix("data.pkl"))
        .context("has no data.pkl; it is no checkpoint of PyTorch")?
        .to_owned();
    if let Some(range) = members.get(&format!("{root}byteorder")) {
        let order = member(source, range, MAX_BYTE_ORDER_BYTES)?;
        ensure!(order == b"little", "was written on a big-endian machine");
    }
    let range = &members[&format!("{root}data.pkl")];
    let pickle = member(source, range, MAX_PICKLE_BYTES)?;
    let tensors = pickle::tensors(&pickle).context("its pickle")?;
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let place = members.get(&format!("{root}data/{}", tensor.key));
            let stored = place
                .context("its storage is missing")
                .and_then(|place| stored(&tensor, place))
                .with_context(|| format!("tensor {name}"))?;
            Ok((name, stored))
        })
        .collect()
}

/// Where each member's bytes lie.
fn members<R: Read + std::io::Seek>(
    archive: &mut ZipArchive<R>,
    bytes: u64,
) -> Result<BTreeMap<String, Range<u64>>> {
    let mut members = BTreeMap::new();
    for index in 0..archive.len() {
        let member = archive.by_index_raw(index)?;
        let name = member.name()?.into_owned();
        ensure!(
            member.compression() == CompressionMethod::Stored && !member.encrypted(),
            "its member {name} is compressed or encrypted; torch.save does neither"
        );
        let start = member.data_start().context("has a member without data")?;
        let end = start.checked_add(member.size());
        let end = end.filter(|end| *end <= bytes);
        let end = end.with_context(|| format!("its member {name} is cut off"))?;
        ensure!(
            members.insert(name.clone(), start..end).is_none(),
            "its member {name} is there twice"
        );
    }
    Ok(members)
}

fn member(source: &Source, range: &Range<u64>, most: u64) -> Result<Vec<u8>> {
    let length = range.end - range.start;
    ensure!(
        length <= most,
        "has a member of {length} bytes where {most} are allowed"
    );
    let mut bytes = vec![0; usize::try_from(length)?];
    source.read(range.start, &mut bytes)?;
    Ok(bytes)
}

fn stored(tensor: &Pickled, place: &Range<u64>) -> Result<Stored> {
    let width = tensor.kind.bytes();
    let room = usize::try_from(place.end - place.start)?;
    ensure!(
        tensor.length.checked_mul(width) == Some(room),
        "its storage has {room} bytes, {} elements of {width} are expected",
        tensor.length
    );
    let stored = Stored {
        source: 0,
        kind: tensor.kind,
        offset: place.start,
        shape: tensor.shape.clone(),
        strides: tensor.strides.clone(),
    };
    ensure!(
        stored.shape.len() == stored.strides.len(),
        "has {} axes and {} strides",
        stored.shape.len(),
        stored.strides.len()
    );
    let first = tensor.first.checked_mul(width).context("is too large")?;
    let end = first.checked_add(stored.extent_bytes()?);
    ensure!(
        end.is_some_and(|end| end <= room),
        "lies behind the end of its storage"
    );
    Ok(Stored {
        offset: place.start + first as u64,
        ..stored
    })
}
