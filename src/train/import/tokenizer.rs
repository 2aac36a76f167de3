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
