//! The differentiable towers against the daemon's engine, and the proofs of their gradients.

mod gradients;

use std::num::NonZeroUsize;
use std::path::Path;

use indicatif::ProgressBar;

use super::*;
use crate::bundle::{Bundle, Limits};
use crate::config::Shape;
use crate::encoder::{self, Embedding, TextInput};
use crate::photo;
use crate::preprocess::Preprocessor;
use crate::train::import::{self, import};
use crate::train::onnx::Store;

const SENTENCES: [&str; 5] = [
    "uno scaffale vuoto",
    "una foto di un gatto che dorme sul divano",
    "mele",
    "L'albero è più alto della casa, però!",
    "due persone al mercato",
];

/// Every family of the importer; M-CLIP has no image tower of its own.
const FAMILIES: [(&str, Option<&str>); 6] = [
    ("dual-encoder", None),
    ("clip-old", None),
    ("clip-new", None),
    ("multilingual-clip", Some("clip-new")),
    ("open-clip", None),
    ("siglip2", None),
];

struct Imported {
    _folder: tempfile::TempDir,
    bundle: Bundle,
}

impl Imported {
    fn new((name, vision): (&str, Option<&str>), store: Store) -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("bundle");
        let options = import::Options {
            name: Some("tower".to_owned()),
            command: "a test".to_owned(),
            vision: vision.map(|vision| fixtures.join(vision)),
            store,
            ..import::Options::default()
        };
        let source = fixtures.join(name);
        import(&source, &out, &options, &ProgressBar::hidden()).unwrap_or_else(|e| panic!("{e:#}"));
        Self {
            bundle: Bundle::open(&out, &Limits::default()).unwrap(),
            _folder: folder,
        }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.bundle.read(name, 1 << 30).unwrap()
    }

    fn tower(&self, name: &str, kind: DType) -> Tower {
        let bytes = self.bytes(name);
        Tower::read(bytes, &Device::Cpu, kind).unwrap_or_else(|e| panic!("{name}: {e:#}"))
    }

    fn photos(&self) -> Vec<ModelInput> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/photos");
        let preprocessor = Preprocessor::new(&self.bundle.manifest().image);
        let prepare = |name: &str| {
            let photo = photo::read(&root.join(name)).unwrap();
            preprocessor.prepare(&photo, &Shape::Full).unwrap()
        };
        ["arance.jpg", "banane.jpg", "latte.jpg"]
            .map(prepare)
            .into()
    }

    /// All padded to the longest.
    fn sentences(&self) -> Vec<Padded> {
        let input = TextInput::load(&self.bundle).unwrap();
        let tokens = SENTENCES.map(|text| input.tokenize(text).unwrap());
        let longest = tokens.iter().map(|t| t.ids().len()).max().unwrap();
        tokens
            .iter()
            .map(|t| input.padded_beside(t, longest))
            .collect()
    }

    fn images(&self, tower: &Tower, track: Track) -> Tensor {
        let photos = self.photos();
        let inputs: Vec<&ModelInput> = photos.iter().collect();
        tower
            .images(&inputs, track)
            .unwrap_or_else(|e| panic!("{e:#}"))
    }

    fn texts(&self, tower: &Tower, track: Track) -> Tensor {
        let texts = self.sentences();
        tower
            .texts(&texts, track)
            .unwrap_or_else(|e| panic!("{e:#}"))
    }
}

fn assert_same(what: &str, ours: &Tensor, theirs: &[Embedding], least: f32) {
    for (ours, theirs) in ours.to_vec2::<f32>().unwrap().into_iter().zip(theirs) {
        let ours = Embedding::from_unit(ours).unwrap();
        let cosine = ours.dot(theirs);
        println!("{what}: cosine {cosine}");
        assert!(cosine >= least, "{what}: {cosine}");
    }
}

#[test]
fn every_familys_towers_agree_with_the_daemons_engine() {
    for family in FAMILIES {
        for store in [Store::Float, Store::Half] {
            let imported = Imported::new(family, store);
            let mut engine = encoder::load_image(&imported.bundle, NonZeroUsize::MIN).unwrap();
            let theirs = engine.encode_images(&imported.photos()).unwrap();
            let tower = imported.tower("image.onnx", DType::F32);
            let what = format!("{} {store:?} image", family.0);
            assert_same(
                &what,
                &imported.images(&tower, Track::Nothing),
                &theirs,
                0.99999,
            );

            let mut engine = encoder::load_text(&imported.bundle).unwrap();
            let theirs = engine.encode_texts(&SENTENCES).unwrap();
            let tower = imported.tower("text.onnx", DType::F32);
            let what = format!("{} {store:?} text", family.0);
            assert_same(
                &what,
                &imported.texts(&tower, Track::Nothing),
                &theirs,
                0.99999,
            );
        }
    }
}

fn embeddings(rows: &Tensor) -> Vec<Embedding> {
    let rows = rows.to_vec2::<f32>().unwrap().into_iter();
    rows.map(|row| Embedding::from_unit(row).unwrap()).collect()
}

/// Mixed precision, on the processor: products in bf16 are right to their eight bits.
#[test]
fn products_in_bf16_change_little() {
    for family in FAMILIES {
        let imported = Imported::new(family, Store::Float);
        let mixed = |name: &str| {
            let mut tower = imported.tower(name, DType::BF16);
            tower.learn(Learn::Everything, 1).unwrap();
            tower
        };
        let exact = imported.images(&imported.tower("image.onnx", DType::F32), Track::Nothing);
        let images = imported.images(&mixed("image.onnx"), Track::Gradients);
        let what = format!("{} image in bf16", family.0);
        assert_same(&what, &images, &embeddings(&exact), 0.999);

        let exact = imported.texts(&imported.tower("text.onnx", DType::F32), Track::Nothing);
        let tower = mixed("text.onnx");
        let texts = imported.texts(&tower, Track::Gradients);
        let what = format!("{} text in bf16", family.0);
        assert_same(&what, &texts, &embeddings(&exact), 0.999);
        let sum = texts.narrow(1, 0, 3).unwrap().sum_all().unwrap();
        let gradients = sum.backward().unwrap();
        for learnable in tower.learnables("") {
            let gradient = gradients.get(&learnable.var).unwrap();
            assert_eq!(gradient.dtype(), DType::F32, "{}", learnable.name);
        }
    }
}

/// Where OpenAI's CLIPs begin and end a text.
const OPENAI_IDS: [i64; 2] = [49406, 49407];

/// The text tower of `clip-old` with as many tokens as OpenAI's CLIPs have; the new rows repeat the old.
fn with_all_tokens(imported: &Imported) -> Vec<u8> {
    let mut model = ModelProto::decode(&imported.bytes("text.onnx")[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let mut tables = graph.initializer.iter_mut();
    let table = tables.find(|tensor| tensor.name == "text.words").unwrap();
    assert_eq!(table.dims, [500, 16]);
    let rows = usize::try_from(OPENAI_IDS[1] + 1).unwrap();
    let length = rows * 4 * usize::try_from(table.dims[1]).unwrap();
    table.raw_data = table
        .raw_data
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect();
    table.dims[0] = OPENAI_IDS[1] + 1;
    model.encode_to_vec()
}

/// bf16 knows neither of the two ids that begin and end a text: both would be 49408.
#[test]
fn the_end_of_a_text_is_found_in_bf16_too() {
    let imported = Imported::new(FAMILIES[1], Store::Float);
    let bytes = with_all_tokens(&imported);
    let text = |words: [i64; 3]| Padded {
        ids: [&OPENAI_IDS[..1], &words, &OPENAI_IDS[1..]].concat(),
        mask: vec![1; 5],
    };
    let texts = [text([1, 30, 40_000]), text([7, 49_000, 2]), text([9, 8, 7])];
    let tower = |kind| Tower::read(bytes.clone(), &Device::Cpu, kind).unwrap();
    let run = |tower: &Tower| tower.texts(&texts, Track::Nothing).unwrap();
    let exact = embeddings(&run(&tower(DType::F32)));
    assert_same("bf16", &run(&tower(DType::BF16)), &exact, 0.999);

    let mut rounded = tower(DType::BF16);
    let ids = Some(rounded.plan.places["input_ids"]);
    let mut steps = rounded.plan.steps.iter_mut();
    let kept = steps.find(|step| step.op == Op::Identity && step.inputs == [ids]);
    kept.unwrap().op = Op::Cast { float: true };
    for (ours, exact) in embeddings(&run(&rounded)).iter().zip(&exact) {
        assert!(ours.dot(exact) < 0.99, "the ids were told apart as numbers");
    }
}

#[test]
fn what_is_not_learnt_is_written_back_byte_by_byte() {
    for (family, store) in [(FAMILIES[0], Store::Half), (FAMILIES[5], Store::Float)] {
        let imported = Imported::new(family, store);
        for name in ["image.onnx", "text.onnx"] {
            let mut tower = imported.tower(name, DType::F32);
            tower.learn(Learn::Adapters(RANK), 1).unwrap();
            let written = tower.into_model().unwrap().into_bytes();
            assert!(written == imported.bytes(name), "{} {name}", family.0);
        }
    }
}

const RANK: Rank = Rank {
    rank: 2,
    alpha: 4.0,
};

#[test]
fn the_projection_is_the_last_product_alone() {
    for (family, image, text) in [
        (
            FAMILIES[0],
            vec!["embedding.weight"],
            vec!["embedding.weight"],
        ),
        (
            FAMILIES[3],
            vec!["embedding.weight"],
            vec!["embedding.weight", "embedding.bias"],
        ),
        (
            FAMILIES[5],
            vec!["vision.head.mlp.fc2.weight", "vision.head.mlp.fc2.bias"],
            vec!["embedding.weight", "embedding.bias"],
        ),
    ] {
        let imported = Imported::new(family, Store::Float);
        for (name, expected) in [("image.onnx", image), ("text.onnx", text)] {
            let mut tower = imported.tower(name, DType::F32);
            tower.learn(Learn::Projection, 1).unwrap();
            let mut names: Vec<String> = tower.learnables("").into_iter().map(|l| l.name).collect();
            names.sort_unstable();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(names, expected, "{} {name}", family.0);
        }
    }
}

#[test]
fn a_graph_that_cannot_be_learnt_through_is_refused_with_its_node() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/image.onnx");
    let bytes = std::fs::read(demo).unwrap();
    let error = Tower::read(bytes, &Device::Cpu, DType::F32).err().unwrap();
    assert!(format!("{error:#}").contains("Conv"), "{error:#}");
    assert!(Tower::read(b"no graph".to_vec(), &Device::Cpu, DType::F32).is_err());
}
