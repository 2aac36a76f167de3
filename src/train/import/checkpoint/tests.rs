use std::path::Path;

use proptest::prelude::*;

use super::*;

/// A safetensors file with this header and `data`.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn good() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},
        "b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]},
        "c":{"dtype":"F16","shape":[],"data_offsets":[10,12]},
        "ids":{"dtype":"I64","shape":[1,1],"data_offsets":[12,20]}}"#;
    let mut data = Vec::new();
    data.extend_from_slice(&1.5_f32.to_le_bytes());
    data.extend_from_slice(&(-2.0_f32).to_le_bytes());
    data.extend_from_slice(&[0x40, 0x40, 0x00, 0x38]);
    data.extend_from_slice(&[0; 8]);
    file(header, &data)
}

fn open(folder: &Path, name: &str, bytes: &[u8]) -> Result<Checkpoint> {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

/// Opens and reads everything that can be read.
fn read_all(checkpoint: &Checkpoint) -> Vec<Result<Vec<f32>>> {
    let tensors = checkpoint.tensors().values();
    tensors.map(|stored| checkpoint.read(stored)).collect()
}

fn refused(header: &str, data: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path(), "model.safetensors", &file(header, data)).unwrap_err();
    format!("{error:#}")
}

#[test]
fn every_float_type_is_read_and_integers_only_listed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = open(folder.path(), "model.safetensors", &good()).unwrap();
    let read = |name: &str| checkpoint.read(&checkpoint.tensors()[name]);
    assert_eq!(read("a").unwrap(), [1.5, -2.0]);
    assert_eq!(read("b").unwrap(), [3.0]);
    assert_eq!(read("c").unwrap(), [0.5]);
    assert!(read("ids").is_err());
}

#[test]
fn what_does_not_fit_is_refused_with_the_tensors_name() {
    let one = |info: &str| format!(r#"{{"weight":{info}}}"#);
    for (info, data) in [
        (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#, 4),
        (r#"{"dtype":"F32","shape":[1],"data_offsets":[0,8]}"#, 4),
        (r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#, 4),
        (r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#, 8),
        (r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, 4),
        (
            r#"{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}"#,
            0,
        ),
        (r#"{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}"#, 4),
        (
            r#"{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,4]}"#,
            4,
        ),
    ] {
        let message = refused(&one(info), &vec![0; data]);
        assert!(message.contains("tensor weight"), "{info}: {message}");
    }
    let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    assert!(refused(overlap, &[0; 12]).contains("overlap"));
    let short = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(refused(short, &[0; 6]).contains("behind the last"));
}

#[test]
fn a_header_longer_than_the_file_or_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for length in [u64::MAX, 1 << 40, 200_000_000, 9] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        let error = open(folder.path(), "model.safetensors", &bytes).unwrap_err();
        assert!(format!("{error:#}").contains("header"), "{error:#}");
    }
    assert!(open(folder.path(), "model.safetensors", b"{}").is_err());
}

#[test]
fn shards_are_one_checkpoint_and_none_may_be_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let header =
        |name: &str| format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("1.safetensors", &file(&header("a"), &1_f32.to_le_bytes()));
    write("2.safetensors", &file(&header("b"), &2_f32.to_le_bytes()));
    let index = |map: &str| {
        open(
            folder.path(),
            "model.safetensors.index.json",
            map.as_bytes(),
        )
    };
    let good = index(r#"{"metadata":{},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#);
    let good = good.unwrap();
    assert_eq!(good.read(&good.tensors()["b"]).unwrap(), [2.0]);
    assert_eq!(good.files().count(), 2);
    for (map, named) in [
        (
            r#"{"weight_map":{"a":"../1.safetensors"}}"#,
            "../1.safetensors",
        ),
        (r#"{"weight_map":{"a":"/etc/1.safetensors"}}"#, "/etc"),
        (r#"{"weight_map":{"a":"2.safetensors"}}"#, "tensor b"),
        (
            r#"{"weight_map":{"a":"1.safetensors","c":"1.safetensors"}}"#,
            "tensor c",
        ),
        (r#"{"weight_map":{"a":"3.safetensors"}}"#, "3.safetensors"),
    ] {
        let error = index(map).unwrap_err();
        assert!(format!("{error:#}").contains(named), "{map}: {error:#}");
    }
}

#[test]
fn axes_are_read_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"m":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let data: Vec<u8> = (0_u8..6).flat_map(|v| f32::from(v).to_le_bytes()).collect();
    let checkpoint = open(folder.path(), "model.safetensors", &file(header, &data)).unwrap();
    let stored = checkpoint.tensors()["m"].clone();
    let transposed = stored.clone().transposed();
    assert_eq!(transposed.shape, [3, 2]);
    assert_eq!(
        checkpoint.read(&transposed).unwrap(),
        [0., 3., 1., 4., 2., 5.]
    );
    let second = stored.clone().rows(1..2).unwrap();
    assert_eq!(checkpoint.read(&second).unwrap(), [3., 4., 5.]);
    assert!(stored.rows(1..3).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_damaged_file_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = good();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        if let Ok(checkpoint) = open(folder.path(), "model.safetensors", &bytes) {
            read_all(&checkpoint);
        }
    }
}
