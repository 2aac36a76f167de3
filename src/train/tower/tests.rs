//! The differentiable towers against the daemon's engine, and the proofs of their gradients.

use std::num::NonZeroUsize;
use std::path::Path;

use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::bundle::{Bundle, Limits};
use crate::config::Shape;
use crate::encoder::{self, Embedding, TextInput};
use crate::photo;
use crate::preprocess::Preprocessor;
use crate::train::descent::{Descent, Rule};
use crate::train::fit::loss::{Loss, Relation, Targets};
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

/// Mixed precision, on the processor: products in bf16 are right to their eight bits.
#[test]
fn products_in_bf16_change_little() {
    let imported = Imported::new(FAMILIES[0], Store::Float);
    let exact = imported.texts(&imported.tower("text.onnx", DType::F32), Track::Nothing);
    let exact: Vec<Embedding> = exact
        .to_vec2::<f32>()
        .unwrap()
        .into_iter()
        .map(|row| Embedding::from_unit(row).unwrap())
        .collect();
    let mut tower = imported.tower("text.onnx", DType::BF16);
    tower.learn(Learn::Everything, 1).unwrap();
    let mixed = imported.texts(&tower, Track::Gradients);
    assert_same("bf16", &mixed, &exact, 0.999);
    let gradients = mixed
        .narrow(1, 0, 3)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    for learnable in tower.learnables("") {
        let gradient = gradients.get(&learnable.var).unwrap();
        assert_eq!(gradient.dtype(), DType::F32, "{}", learnable.name);
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

/// A number that depends on every value of the embeddings: their product with fixed noise.
fn probe(embeddings: &Tensor) -> Tensor {
    let mut rng = StdRng::seed_from_u64(3);
    let count = embeddings.elem_count();
    let noise: Vec<f64> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
    let noise = Tensor::from_vec(noise, embeddings.dims(), &Device::Cpu).unwrap();
    (embeddings * noise).unwrap().sum_all().unwrap()
}

/// A bias of the keys adds the same to all scores of a query, which a softmax does not see.
fn without_effect(name: &str) -> bool {
    name.ends_with("k_proj.bias") || name.ends_with("key.bias")
}

/// Moves one value by about `h` both ways; what the probe changes by, per unit.
fn difference(var: &candle_core::Var, at: usize, run: &dyn Fn() -> f64) -> f64 {
    let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut results = Vec::new();
    for step in [2e-3_f32, -2e-3] {
        let mut moved = values.clone();
        moved[at] += step * moved[at].abs().max(0.1);
        let tensor = Tensor::from_slice(&moved, var.dims(), &Device::Cpu).unwrap();
        var.set(&tensor).unwrap();
        results.push((f64::from(moved[at]), run()));
    }
    let tensor = Tensor::from_slice(&values, var.dims(), &Device::Cpu).unwrap();
    var.set(&tensor).unwrap();
    (results[0].1 - results[1].1) / (results[0].0 - results[1].0)
}

/// Every parameter's largest gradient and another one against finite differences, in f64.
fn gradients_are_right(what: &str, tower: &Tower, run: &dyn Fn(&Tower, Track) -> Tensor) {
    let gradients = probe(&run(tower, Track::Gradients)).backward().unwrap();
    let value = || {
        probe(&run(tower, Track::Nothing))
            .to_scalar::<f64>()
            .unwrap()
    };
    let learnables = tower.learnables("");
    assert!(learnables.len() > 10, "{what}");
    let found = |var: &candle_core::Var| {
        let gradient = gradients.get(var)?;
        Some(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let largest = |values: &[f32]| values.iter().fold(0f32, |a, v| a.max(v.abs()));
    let scale = learnables.iter().filter_map(|l| found(&l.var));
    let scale = scale.map(|g| largest(&g)).fold(0f32, f32::max);
    for learnable in learnables {
        let name = format!("{what} {}", learnable.name);
        let gradient = found(&learnable.var).unwrap_or_else(|| panic!("{name} got no gradient"));
        let most = largest(&gradient);
        if without_effect(&name) {
            assert!(most < 1e-9 * scale.max(1.0), "{name}: {most}");
            continue;
        }
        assert!(most > 0.0, "{name}");
        let steepest = gradient.iter().position(|g| g.abs() == most).unwrap();
        for at in [steepest, gradient.len() / 2] {
            let expected = difference(&learnable.var, at, &value);
            let error = (f64::from(gradient[at]) - expected).abs();
            let allowed = 2e-3 * expected.abs() + 1e-5 * f64::from(most) + 1e-9;
            assert!(
                error <= allowed,
                "{name}[{at}]: {} {expected}",
                gradient[at]
            );
        }
    }
}

#[test]
fn every_parameter_of_every_family_has_the_gradient_that_finite_differences_have() {
    for family in FAMILIES {
        let imported = Imported::new(family, Store::Float);
        for (name, image) in [("image.onnx", true), ("text.onnx", false)] {
            let mut tower = imported.tower(name, DType::F64);
            tower.learn(Learn::Everything, 1).unwrap();
            gradients_are_right(family.0, &tower, &|tower, track| {
                if image {
                    imported.images(tower, track)
                } else {
                    imported.texts(tower, track)
                }
            });
        }
    }
}

#[test]
fn adapters_have_the_gradient_that_finite_differences_have_and_merge_into_the_weights() {
    let imported = Imported::new(FAMILIES[0], Store::Float);
    let mut tower = imported.tower("text.onnx", DType::F64);
    tower.learn(Learn::Adapters(RANK), 1).unwrap();
    let before = imported.texts(&imported.tower("text.onnx", DType::F64), Track::Nothing);
    let distance = |a: &Tensor, b: &Tensor| {
        let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
        difference.to_scalar::<f64>().unwrap()
    };
    assert!(
        distance(&imported.texts(&tower, Track::Nothing), &before) < 1e-12,
        "at first nothing"
    );
    let layers = tower
        .parameters
        .iter()
        .filter(|p| p.adapter.is_some())
        .count();
    assert_eq!(
        layers % 6,
        0,
        "query, key, value, output, up and down of each layer"
    );
    let mut rng = StdRng::seed_from_u64(9);
    for learnable in tower.learnables("") {
        let count = learnable.var.elem_count();
        let values: Vec<f32> = (0..count).map(|_| rng.random_range(-0.3..0.3)).collect();
        let values = Tensor::from_vec(values, learnable.var.dims(), &Device::Cpu).unwrap();
        learnable.var.set(&values).unwrap();
    }
    gradients_are_right("adapters", &tower, &|tower, track| {
        imported.texts(tower, track)
    });

    let beside = imported.texts(&tower, Track::Nothing);
    assert!(distance(&beside, &before) > 1e-3);
    tower.settle().unwrap();
    assert!(tower.learnables("").is_empty());
    let merged = imported.texts(&tower, Track::Nothing);
    assert!(
        distance(&merged, &beside) < 1e-6,
        "{}",
        distance(&merged, &beside)
    );
}

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

/// 16 pictures of noise and 16 texts of random tokens, at random who belongs to whom.
#[test]
fn sixteen_pairs_are_learnt_by_heart() {
    let imported = Imported::new(FAMILIES[0], Store::Float);
    let mut rng = StdRng::seed_from_u64(4);
    let edge = imported.bundle.manifest().image.size_px;
    let pictures: Vec<ModelInput> = (0..16)
        .map(|_| ModelInput {
            size_px: edge,
            values: (0..3 * edge * edge)
                .map(|_| rng.random_range(-2.0..2.0))
                .collect(),
        })
        .collect();
    let pictures: Vec<&ModelInput> = pictures.iter().collect();
    let texts: Vec<Padded> = (0..16)
        .map(|_| Padded {
            ids: (0..8).map(|_| rng.random_range(5..40)).collect(),
            mask: vec![1; 8],
        })
        .collect();
    let same = |photo, text| {
        if photo == text {
            Relation::Same
        } else {
            Relation::Other
        }
    };
    let targets = Targets::new((16, 16), same).unwrap();
    let bias = Tensor::new(&[0f32], &Device::Cpu).unwrap();
    let adapters = Learn::Adapters(Rank {
        rank: 8,
        alpha: 16.0,
    });
    for (learn, rule, clip, rate) in [
        (Learn::Everything, Rule::AdamW { decay: 0.0 }, None, 1e-3),
        (Learn::Everything, Rule::AdaBelief, Some(0.01), 1e-3),
        (adapters, Rule::AdamW { decay: 0.0 }, None, 3e-3),
    ] {
        let mut towers = ["image.onnx", "text.onnx"].map(|name| imported.tower(name, DType::F32));
        for tower in &mut towers {
            tower.learn(learn, 1).unwrap();
        }
        let learnables = [
            towers[0].learnables("image/"),
            towers[1].learnables("text/"),
        ];
        let mut descent = Descent::new(&learnables.concat(), rule, clip).unwrap();
        let mut loss = f32::MAX;
        let mut steps = 0;
        while loss > 0.01 && steps < 400 {
            let images = towers[0].images(&pictures, Track::Gradients).unwrap();
            let texts = towers[1].texts(&texts, Track::Gradients).unwrap();
            let cosines = images.matmul(&texts.t().unwrap()).unwrap();
            let value = targets.loss(Loss::InfoNce, &cosines, 20.0, &bias).unwrap();
            loss = value.to_scalar().unwrap();
            descent.step(&value.backward().unwrap(), rate).unwrap();
            steps += 1;
        }
        println!("{learn:?} {rule:?}: {loss} after {steps} steps");
        assert!(loss <= 0.01, "{learn:?} {rule:?}: {loss}");
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
