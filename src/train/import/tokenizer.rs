//! `tokenizer.json` for the bundle: as it is beside the checkpoint, or made from the older files.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::checkpoint::{MAX_JSON_BYTES, read_text};

/// Largest vocabulary.
const MAX_TOKENS: usize = 1_000_000;

/// What splits texts for OpenAI's CLIP, before byte pairs are merged.
const CLIP_PATTERN: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// A tokenizer that goes into a bundle.
pub struct Ready {
    /// `tokenizer.json`.
    pub json: String,
    /// The token that fills up, where the tokenizer's files name one.
    pub pad_id: Option<u32>,
    /// What the user should know.
    pub note: Option<String>,
}

/// Finds the tokenizer in `folder` (or in `folder` itself, when it is a `tokenizer.json`) for a
/// table of `vocabulary` rows. Without `tokenizer.json` it is made from `vocab.txt` (BERT) or from
/// `vocab.json` and `merges.txt` (CLIP).
///
/// # Errors
/// No tokenizer, one that cannot be read, or one with more tokens than the table has rows.
pub fn read(folder: &Path, vocabulary: usize) -> Result<Ready> {
    let (parent, file) = if folder.is_dir() {
        (folder, folder.join("tokenizer.json"))
    } else {
        (folder.parent().unwrap_or(folder), folder.to_owned())
    };
    let (json, note) = if file.exists() {
        (read_text(&file, MAX_JSON_BYTES)?, None)
    } else if parent.join("vocab.txt").exists() {
        let note = "tokenizer.json is missing: made from vocab.txt";
        (word_pieces(parent)?, Some(note.to_owned()))
    } else if parent.join("vocab.json").exists() && parent.join("merges.txt").exists() {
        let note = "tokenizer.json is missing: made from vocab.json and merges.txt";
        (byte_pairs(parent)?, Some(note.to_owned()))
    } else {
        bail!(
            "{} has no tokenizer.json, no vocab.txt and no vocab.json with merges.txt; name one with --tokenizer \
             (AutoTokenizer.from_pretrained(…).save_pretrained(…) writes tokenizer.json)",
            folder.display()
        );
    };
    let lower = match trained_on_lower_case(parent)? {
        true => lower_casing(&json)?,
        false => None,
    };
    let (json, note) = match lower {
        Some(json) => (
            json,
            Some("the tokenizer lower-cases now, as SigLIP 2 was trained".to_owned()),
        ),
        None => (json, note),
    };
    let tokenizer =
        Tokenizer::from_bytes(&json).map_err(|error| anyhow!("tokenizer.json: {error}"))?;
    let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
    ensure!(
        usize::try_from(largest)? < vocabulary,
        "the tokenizer has tokens up to {largest}, the text tower's table {vocabulary} rows; \
         it is another model's tokenizer"
    );
    let named = pad_token(parent)?.and_then(|token| tokenizer.token_to_id(&token));
    let padding = tokenizer.get_padding().map(|padding| padding.pad_id);
    Ok(Ready {
        json,
        pad_id: named.or(padding),
        note,
    })
}

/// A value of `tokenizer_config.json`.
fn configured(folder: &Path, key: &str) -> Result<Option<Value>> {
    let path = folder.join("tokenizer_config.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(&path, MAX_JSON_BYTES)?;
    let value: Value = serde_json::from_str(&text).context("tokenizer_config.json")?;
    Ok(value.get(key).cloned())
}

fn pad_token(folder: &Path) -> Result<Option<String>> {
    let value = configured(folder, "pad_token")?;
    let text = value
        .as_ref()
        .and_then(|v| v.as_str().or_else(|| v.get("content")?.as_str()));
    Ok(text.map(str::to_owned))
}

/// SigLIP 2 was trained on lower-cased texts, which its tokenizer, Gemma's, leaves to the caller
/// (huggingface/transformers#43101).
fn trained_on_lower_case(folder: &Path) -> Result<bool> {
    let class = configured(folder, "tokenizer_class")?;
    let name = class.as_ref().and_then(Value::as_str).unwrap_or_default();
    Ok(name.starts_with("Gemma") || name.starts_with("Siglip2"))
}

/// The tokenizer with lower-casing before everything else; `None` when it lower-cases already.
fn lower_casing(json: &str) -> Result<Option<String>> {
    let mut tokenizer: Value = serde_json::from_str(json).context("tokenizer.json")?;
    let object = tokenizer
        .as_object_mut()
        .context("tokenizer.json is no object")?;
    let normalizer = object.entry("normalizer").or_insert(Value::Null);
    if normalizer.to_string().contains("\"Lowercase\"") {
        return Ok(None);
    }
    let mut steps = vec![json!({"type": "Lowercase"})];
    if !normalizer.is_null() {
        steps.push(normalizer.take());
    }
    *normalizer = json!({"type": "Sequence", "normalizers": steps});
    Ok(Some(tokenizer.to_string()))
}

/// Places a special token must have in the vocabulary.
fn id_of(vocabulary: &serde_json::Map<String, Value>, token: &str) -> Result<u64> {
    vocabulary
        .get(token)
        .and_then(Value::as_u64)
        .with_context(|| format!("the vocabulary has no {token}"))
}

fn special(id: u64, content: &str) -> Value {
    json!({
        "id": id, "content": content, "special": true, "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false
    })
}

/// BERT's tokenizer from `vocab.txt`, one token a line.
fn word_pieces(folder: &Path) -> Result<String> {
    let text = read_text(&folder.join("vocab.txt"), MAX_JSON_BYTES)?;
    let mut vocabulary = serde_json::Map::new();
    for (id, token) in text.lines().enumerate() {
        ensure!(
            id < MAX_TOKENS,
            "vocab.txt has more than {MAX_TOKENS} lines"
        );
        vocabulary.insert(token.trim_end().to_owned(), json!(id));
    }
    let flag = |key| -> Result<Option<bool>> {
        Ok(configured(folder, key)?.and_then(|value| value.as_bool()))
    };
    let (cls, sep) = ("[CLS]", "[SEP]");
    let (cls_id, sep_id) = (id_of(&vocabulary, cls)?, id_of(&vocabulary, sep)?);
    let mut added = Vec::new();
    for token in ["[PAD]", "[UNK]", cls, sep] {
        added.push((id_of(&vocabulary, token)?, token));
    }
    if let Ok(mask) = id_of(&vocabulary, "[MASK]") {
        added.push((mask, "[MASK]"));
    }
    added.sort_unstable();
    let added: Vec<Value> = added.into_iter().map(|(id, t)| special(id, t)).collect();
    let one = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": flag("strip_accents")?,
            "lowercase": flag("do_lower_case")?.unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [one(cls), sequence("A"), one(sep)],
            "pair": [one(cls), sequence("A"), one(sep), sequence("B"), one(sep)],
            "special_tokens": {
                cls: {"id": cls, "ids": [cls_id], "tokens": [cls]},
                sep: {"id": sep, "ids": [sep_id], "tokens": [sep]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    })
    .to_string())
}

/// CLIP's tokenizer from `vocab.json` and `merges.txt`.
fn byte_pairs(folder: &Path) -> Result<String> {
    let text = read_text(&folder.join("vocab.json"), MAX_JSON_BYTES)?;
    let vocabulary: serde_json::Map<String, Value> =
        serde_json::from_str(&text).context("vocab.json")?;
    let merges = read_text(&folder.join("merges.txt"), MAX_JSON_BYTES)?;
    let merges: Vec<&str> = merges
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.trim().is_empty())
        .collect();
    ensure!(
        vocabulary.len() <= MAX_TOKENS && merges.len() <= MAX_TOKENS,
        "vocab.json or merges.txt have more than {MAX_TOKENS} entries"
    );
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let (start_id, end_id) = (id_of(&vocabulary, start)?, id_of(&vocabulary, end)?);
    Ok(json!({
        "version": "1.0",
        "added_tokens": [special(start_id, start), special(end_id, end)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": CLIP_PATTERN}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end, end_id],
            "cls": [start, start_id],
            "trim_offsets": false,
            "add_prefix_space": false,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "unk_token": end,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    })
    .to_string())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TEXTS: [&str; 4] = [
        "Perché c'è un gatto sul divano?",
        "L'ALBERO di Natale è già acceso: che bello!",
        "3 mele, 20 euro  e   un caffè",
        "città \u{1f34e} naïve",
    ];

    fn fixture(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/import")
            .join(name)
    }

    fn ids(json: &str) -> Vec<Vec<u32>> {
        let tokenizer = Tokenizer::from_bytes(json).unwrap();
        let encode = |text: &&str| tokenizer.encode(*text, true).unwrap().get_ids().to_vec();
        TEXTS.iter().map(encode).collect()
    }

    #[test]
    fn a_tokenizer_made_from_vocab_txt_is_the_one_it_was_taken_from() {
        let fast = read(&fixture("dual-encoder"), 10_000).unwrap();
        let tokenizer: Value = serde_json::from_str(&fast.json).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let mut tokens: Vec<(&String, u64)> = vocabulary
            .iter()
            .map(|(token, id)| (token, id.as_u64().unwrap()))
            .collect();
        tokens.sort_by_key(|(_, id)| *id);
        let lines: String = tokens
            .iter()
            .map(|(token, _)| format!("{token}\n"))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vocab.txt"), lines).unwrap();
        let made = read(folder.path(), 10_000).unwrap();
        assert!(made.note.is_some());
        assert_eq!(ids(&made.json), ids(&fast.json));
    }

    #[test]
    fn a_tokenizer_made_from_byte_pairs_is_the_one_transformers_makes() {
        let fast = read(&fixture("clip-new"), 10_000).unwrap();
        let tokenizer: Value = serde_json::from_str(&fast.json).unwrap();
        let model = &tokenizer["model"];
        let merges: String = model["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| {
                format!(
                    "{} {}\n",
                    pair[0].as_str().unwrap(),
                    pair[1].as_str().unwrap()
                )
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("vocab.json", &model["vocab"].to_string());
        write("merges.txt", &format!("#version: 0.2\n{merges}"));
        let made = read(folder.path(), 10_000).unwrap();
        assert!(made.note.is_some() && fast.note.is_none());
        assert_eq!(ids(&made.json), ids(&fast.json));
    }

    #[test]
    fn siglip_2s_tokenizer_lower_cases_once() {
        let ready = read(&fixture("siglip2"), 10_000).unwrap();
        let tokenizer = Tokenizer::from_bytes(&ready.json).unwrap();
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("UNA MELA"), ids("una mela"));
        assert!(lower_casing(&ready.json).unwrap().is_none());
        assert!(lower_casing("[]").is_err());
    }

    #[test]
    fn a_folder_without_a_tokenizer_is_refused_with_advice() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path(), 10).err().unwrap();
        assert!(format!("{error:#}").contains("--tokenizer"), "{error:#}");
        fs::write(folder.path().join("vocab.txt"), "una\n").unwrap();
        let error = read(folder.path(), 10).err().unwrap();
        assert!(format!("{error:#}").contains("[CLS]"), "{error:#}");
    }
}
