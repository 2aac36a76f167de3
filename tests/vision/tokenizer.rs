//! Token ids against Hugging Face's, for every kind of text people write.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use vedetta::bundle::{Bundle, Limits};
use vedetta::encoder::tract::TractTextEncoder;

#[derive(Deserialize)]
struct Golden {
    tokenizer_sha256: String,
    max_tokens: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn token_ids_are_those_of_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    if !path.join("bundle.toml").exists() {
        println!("skipped: {} is not there", path.display());
        return;
    }
    let golden: Golden = serde_json::from_str(include_str!("../golden/tokenizer.json")).unwrap();
    let file = std::fs::read(path.join("tokenizer.json")).unwrap();
    let hash: String = Sha256::digest(&file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hash, golden.tokenizer_sha256,
        "another tokenizer: run tests/golden/tokenizer.py"
    );
    let bundle = Bundle::open(&path, &Limits::default()).unwrap();
    assert_eq!(bundle.manifest().text.max_tokens, golden.max_tokens);
    let encoder = TractTextEncoder::load(&bundle).unwrap();
    assert!(golden.cases.len() > 20);
    for case in &golden.cases {
        let tokens = encoder.tokenize(&case.text).unwrap();
        assert_eq!(tokens.ids(), case.ids, "{:?}", case.text);
    }
    let longest = golden.cases.iter().map(|case| case.ids.len()).max();
    assert_eq!(longest, Some(golden.max_tokens), "one of them is cut");
}
