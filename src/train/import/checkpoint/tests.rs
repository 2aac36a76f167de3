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

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import/dual-encoder");
    std::fs::read(folder.join(name)).unwrap()
}

/// A pickle in a zip archive of one member, as `torch.save` would write it.
fn torch(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_pickle_that_would_run_something_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (pickle, named) in [
        (
            &b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R."[..],
            "posix.system",
        ),
        (b"\x80\x02c__builtin__\neval\n.", "__builtin__.eval"),
        (b"\x80\x02ctorch\nload\n.", "torch.load"),
        (b"\x80\x02(iposix\nsystem\n.", "opcode 0x69"),
        (b"\x80\x02\x8c\x05posix\x8c\x06system\x93.", "opcode 0x8c"),
        (b"\x80\x04N.", "protocol 4"),
        (b"\x80\x02}K\x01R.", "tuple"),
        (b"\x80\x02N)R.", "calls something"),
        (b"\x80\x02NNb.", "attributes"),
        (b"\x80\x02h\x07.", "slot 7"),
        (b"\x80\x02Nq\x07.", "skips a slot"),
        (b"\x80\x02.", "takes more"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02}X\x01\0\0\0aNs.", "a is no tensor"),
        (b"\x80\x02]N.", "dictionary of tensors"),
        (b"\x80\x02X\xff\xff\xff\xffa", "ends in the middle"),
    ] {
        let error = open(folder.path(), "pytorch_model.bin", &torch(pickle)).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn a_pickle_nested_a_million_times_is_only_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut pickle = b"\x80\x02N".to_vec();
    pickle.extend(std::iter::repeat_n(0x85, 1_000_000));
    pickle.push(b'.');
    assert!(open(folder.path(), "pytorch_model.bin", &torch(&pickle)).is_err());
}

/// Every byte makes an empty tuple, which is remembered.
#[test]
fn a_pickle_far_longer_than_any_known_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let pickle = vec![b')'; 5 << 20];
    let error = open(folder.path(), "pytorch_model.bin", &torch(&pickle)).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("5242880 bytes"), "{error}");
}

#[test]
fn a_pickle_that_makes_much_out_of_little_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // A storage of no bytes, a tensor of 2³⁰ × 2³⁰ elements with strides of 0.
    let pickle = b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage\
        ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0\
        J\0\0\0\x40J\0\0\0\x40\x86K\0K\0\x86\x89N\x85tRs.";
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("m/data.pkl", &pickle[..]), ("m/data/0", &[0; 4])] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(content).unwrap();
    }
    let bytes = zip.finish().unwrap().into_inner();
    let error = format!(
        "{:#}",
        open(folder.path(), "pytorch_model.bin", &bytes).unwrap_err()
    );
    assert!(
        error.contains("tensor a") && error.contains("twice"),
        "{error}"
    );
}

#[test]
fn an_old_or_foreign_pytorch_file_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(folder.path(), "pytorch_model.bin", b"\x80\x02\x8a\x0a").unwrap_err();
    assert!(format!("{error:#}").contains("safetensors"), "{error:#}");
    let error = open(folder.path(), "weights.h5", b"").unwrap_err();
    assert!(format!("{error:#}").contains("no weight file"), "{error:#}");
}

#[test]
fn flax_names_and_axes_become_pytorchs() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes =
        b"\x81\xa1d\x82\xa6kernel\xc7\x26\x01\x93\x92\x02\x03\xa7float32\xc4\x18".to_vec();
    for value in 0_u8..6 {
        bytes.extend_from_slice(&f32::from(value).to_le_bytes());
    }
    bytes.extend_from_slice(b"\xa5scale\xc7\x0f\x01\x93\x91\x01\xa7float16\xc4\x02\x00\x3c");
    let error = open(folder.path(), "flax_model.msgpack", &bytes).unwrap_err();
    assert!(
        format!("{error:#}").contains("tensor d.weight is there twice"),
        "{error:#}"
    );
    let position = bytes.windows(5).position(|w| w == b"scale").unwrap();
    bytes[position..position + 5].copy_from_slice(b"other");
    let checkpoint = open(folder.path(), "flax_model.msgpack", &bytes).unwrap();
    let kernel = &checkpoint.tensors()["d.weight"];
    assert_eq!(kernel.shape, [3, 2]);
    assert_eq!(checkpoint.read(kernel).unwrap(), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(
        checkpoint.read(&checkpoint.tensors()["d.other"]).unwrap(),
        [1.0]
    );
}

#[test]
fn a_map_nested_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = std::iter::repeat_n(*b"\x81\xa1a", 100_000)
        .flatten()
        .collect();
    let error = open(folder.path(), "flax_model.msgpack", &bytes).unwrap_err();
    assert!(format!("{error:#}").contains("nests deeper"), "{error:#}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    /// Most changes hit elements; half of them are therefore aimed at the parts that say where the
    /// elements are.
    #[test]
    fn a_damaged_real_checkpoint_never_panics(
        which in 0..3_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let name = ["flax_model.msgpack", "pytorch_model.bin", "model.safetensors"][which];
        let mut bytes = fixture(name);
        // Structure lies at the beginning, in a zip archive also at the end.
        let head = 12_000.min(bytes.len());
        for (at, value, aimed) in changes {
            let at = match (aimed, name) {
                (true, "pytorch_model.bin") if value % 2 == 0 => bytes.len() - 1 - at.index(head / 2),
                (true, _) => at.index(head),
                (false, _) => at.index(bytes.len()),
            };
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        if let Ok(checkpoint) = open(folder.path(), name, &bytes) {
            read_all(&checkpoint);
        }
    }

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
