//! From the names in a checkpoint to those the towers ask for.

use anyhow::{Context, Result};

use super::checkpoint::Stored;
use super::weights::{Fate, Renamed};

/// Prefixes in `transformers`' checkpoints, the longer first: the vision tower nests once or twice.
const PREFIXES: [(&str, &str); 3] = [
    ("vision_model.vision_model.", "vision."),
    ("vision_model.", "vision."),
    ("text_model.", "text."),
];

fn one(name: String, stored: &Stored) -> Fate {
    Fate::Renamed(vec![Renamed {
        name,
        stored: stored.clone(),
    }])
}

/// `at.weight` or `at.bias` with query, key and value one below the other, as PyTorch's
/// `MultiheadAttention` keeps them.
fn thirds(at: &str, end: &str, stored: &Stored) -> Result<Fate> {
    let rows = stored.shape.first().copied().unwrap_or(0) / 3;
    let part = |(index, name): (usize, &str)| -> Result<Renamed> {
        Ok(Renamed {
            name: format!("{at}.{name}.{end}"),
            stored: stored.clone().rows(index * rows..(index + 1) * rows)?,
        })
    };
    let names = ["q_proj", "k_proj", "v_proj"];
    let parts: Result<Vec<Renamed>> = names.into_iter().enumerate().map(part).collect();
    Ok(Fate::Renamed(parts?))
}

/// A buffer that can be computed.
fn buffer(name: &str) -> bool {
    name.ends_with("position_ids") || name.ends_with("token_type_ids")
}

/// Names as `transformers` writes them.
pub fn transformers(name: &str, stored: &Stored) -> Result<Fate> {
    if buffer(name) {
        return Ok(Fate::Ignored);
    }
    let found = PREFIXES
        .iter()
        .find_map(|(prefix, tower)| Some(format!("{tower}{}", name.strip_prefix(prefix)?)));
    let name = found.unwrap_or_else(|| name.to_owned());
    if let Some(end) = name.strip_prefix("vision.head.attention.in_proj_") {
        return thirds("vision.head.attention", end, stored);
    }
    let name = name.replace("vision.pre_layernorm.", "vision.pre_layrnorm.");
    Ok(one(name, stored))
}

/// As [`transformers`], without the text tower.
pub fn images_only(name: &str, stored: &Stored) -> Result<Fate> {
    if name.starts_with("text_model.") || name.starts_with("text_projection.") {
        return Ok(Fate::Ignored);
    }
    transformers(name, stored)
}

/// M-CLIP: `transformer.…` and `LinearTransformation`. The pooler comes along and is not used.
pub fn multilingual_clip(name: &str, stored: &Stored) -> Result<Fate> {
    if buffer(name) || name.starts_with("transformer.pooler.") {
        return Ok(Fate::Ignored);
    }
    let name = match name.strip_prefix("transformer.") {
        Some(rest) => format!("text.{rest}"),
        None => name.replace("LinearTransformation.", "text_projection."),
    };
    Ok(one(name, stored))
}

/// open_clip's image tower, and its text tower out of `transformers`.
pub fn open_clip(name: &str, stored: &Stored) -> Result<Fate> {
    if buffer(name) || name.starts_with("text.transformer.pooler.") {
        return Ok(Fate::Ignored);
    }
    if let Some(rest) = name.strip_prefix("text.transformer.") {
        return Ok(one(format!("text.{rest}"), stored));
    }
    if let Some(rest) = name.strip_prefix("text.proj.") {
        return Ok(one(format!("text_projection.{rest}"), stored));
    }
    let Some(rest) = name.strip_prefix("visual.") else {
        return Ok(one(name.to_owned(), stored));
    };
    if let Some(layer) = rest.strip_prefix("transformer.resblocks.") {
        return layer_of(layer, stored);
    }
    Ok(match rest {
        "class_embedding" => one("vision.embeddings.class_embedding".to_owned(), stored),
        "positional_embedding" => one(
            "vision.embeddings.position_embedding.weight".to_owned(),
            stored,
        ),
        "conv1.weight" => one(
            "vision.embeddings.patch_embedding.weight".to_owned(),
            stored,
        ),
        // A parameter that stands right in the product, not a layer.
        "proj" => one(
            "visual_projection.weight".to_owned(),
            &stored.clone().transposed(),
        ),
        _ => match rest.split_once('.') {
            Some(("ln_pre", end)) => one(format!("vision.pre_layrnorm.{end}"), stored),
            Some(("ln_post", end)) => one(format!("vision.post_layernorm.{end}"), stored),
            _ => one(name.to_owned(), stored),
        },
    })
}

/// One of open_clip's residual blocks: `3.attn.in_proj_weight`, `3.mlp.c_fc.bias`, ….
fn layer_of(name: &str, stored: &Stored) -> Result<Fate> {
    let (layer, part) = name.split_once('.').context("is no part of a layer")?;
    let at = format!("vision.encoder.layers.{layer}");
    if let Some(end) = part.strip_prefix("attn.in_proj_") {
        return thirds(&format!("{at}.self_attn"), end, stored);
    }
    let renamed = [
        ("attn.out_proj.", "self_attn.out_proj."),
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ]
    .iter()
    .find_map(|(theirs, ours)| Some(format!("{at}.{ours}{}", part.strip_prefix(theirs)?)));
    let unknown = || format!("visual.transformer.resblocks.{name}");
    Ok(one(renamed.unwrap_or_else(unknown), stored))
}
