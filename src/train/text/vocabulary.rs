//! Trains the tokenizer: lower-casing WordPiece over the corpus, accents kept (*pésca* is not *pèsca*,
//! and *è* is not *e*).

use anyhow::{Context, Result, anyhow};
use tokenizers::decoders::wordpiece::WordPiece as Decoder;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainerBuilder};
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::{Lowercase, NFKC, Sequence};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, TokenizerBuilder, TruncationParams};

use super::corpus::read_texts;
use super::{MAX_TOKENS, Work};

/// Special tokens; their place is their id.
pub const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];

/// Id of `[PAD]`.
pub const PAD_ID: u32 = 0;

/// Tokens in the vocabulary: what the budget of the bundle allows at one byte a weight.
pub const VOCABULARY: usize = 14_000;

/// Trains a tokenizer of at most `size` tokens on `texts` and returns its JSON.
///
/// Not repeatable to the byte: the trainer breaks ties between equally frequent pieces in the order
/// of a seeded hash map, so two runs number some tokens differently. A tower and its tokenizer belong together.
///
/// # Errors
/// Too few texts to fill the special tokens and the alphabet.
pub fn tokenizer_json<'a>(
    texts: impl Iterator<Item = &'a str> + Send,
    size: usize,
) -> Result<String> {
    let failed = |error: tokenizers::Error| anyhow!("the tokenizer cannot be trained: {error}");
    let model = WordPiece::builder()
        .unk_token(SPECIAL[1].to_owned())
        .build()
        .map_err(failed)?;
    let normalizer = Sequence::new(vec![
        NFKC.into(),
        Replace::new("’", "'").map_err(failed)?.into(),
        Lowercase.into(),
    ]);
    let specials = |ids: [usize; 2]| {
        ids.map(|id| {
            (
                SPECIAL[id].to_owned(),
                u32::try_from(id).unwrap_or(u32::MAX),
            )
        })
    };
    let template = TemplateProcessing::builder()
        .try_single("[CLS] $A [SEP]")
        .map_err(|error| anyhow!(error))?
        .special_tokens(specials([2, 3]).to_vec())
        .build()
        .context("post-processor")?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(normalizer))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(template))
        .with_decoder(Some(Decoder::default()))
        .build()
        .map_err(failed)?;
    let mut trainer = WordPieceTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(size)
        .min_frequency(2)
        .limit_alphabet(120)
        .initial_alphabet(
            "abcdefghijklmnopqrstuvwxyzàèéìòóù0123456789'"
                .chars()
                .collect(),
        )
        .special_tokens(
            SPECIAL
                .iter()
                .map(|token| AddedToken::from(*token, true))
                .collect(),
        )
        .build();
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    tokenizer
        .with_truncation(Some(TruncationParams {
            max_length: MAX_TOKENS,
            ..TruncationParams::default()
        }))
        .map_err(failed)?;
    tokenizer.to_string(false).map_err(failed)
}

/// Step `tokenizer`: trains on `texts.tsv`, writes `text/tokenizer.json`. Texts that name a class
/// count four times, so that their words stay whole.
///
/// # Errors
/// `texts.tsv` is missing or cannot be read, or the result cannot be written.
pub fn train_tokenizer(work: &Work) -> Result<()> {
    let texts = read_texts(&work.texts())?;
    let fed = texts.iter().flat_map(|row| {
        let times = if row.kind == "corpus" { 1 } else { 4 };
        std::iter::repeat_n(row.text.as_str(), times)
    });
    let fed: Vec<&str> = fed.collect();
    let json = tokenizer_json(fed.into_iter(), VOCABULARY)?;
    let path = work.tokenizer();
    std::fs::create_dir_all(path.parent().context("work folder")?)?;
    super::write_atomically(&path, json.as_bytes())?;
    log::info!("tokenizer: {} bytes", json.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::Tokenizer;

    fn trained() -> Tokenizer {
        let texts = [
            "una foto di una mela",
            "un'anguria è verde",
            "perché",
            "una mela verde",
            "città",
            "una città",
        ];
        let json = tokenizer_json(texts.iter().copied().cycle().take(60), 200).unwrap();
        json.parse().unwrap()
    }

    #[test]
    fn special_tokens_have_the_ids_the_manifest_promises() {
        let tokenizer = trained();
        for (id, token) in SPECIAL.iter().enumerate() {
            assert_eq!(
                tokenizer.token_to_id(token),
                Some(u32::try_from(id).unwrap())
            );
        }
        let ids = tokenizer
            .encode("una mela", true)
            .unwrap()
            .get_ids()
            .to_vec();
        assert_eq!((ids[0], *ids.last().unwrap()), (2, 3));
    }

    #[test]
    fn case_and_kind_of_apostrophe_do_not_matter_but_accents_do() {
        let tokenizer = trained();
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("Un’Anguria È verde"), ids("un'anguria è verde"));
        assert_eq!(ids("perche\u{301}"), ids("perché"));
        assert_ne!(ids("perche"), ids("perché"));
    }

    #[test]
    fn a_long_text_is_truncated_and_still_ends_in_sep() {
        let tokenizer = trained();
        let encoding = tokenizer
            .encode("una mela verde ".repeat(40), true)
            .unwrap();
        assert_eq!(encoding.get_ids().len(), MAX_TOKENS);
        assert_eq!(encoding.get_ids()[MAX_TOKENS - 1], 3);
    }

    #[test]
    fn a_word_that_is_often_seen_stays_whole_and_a_new_one_is_spelled() {
        let tokenizer = trained();
        let tokens = |text: &str| tokenizer.encode(text, false).unwrap().get_tokens().to_vec();
        assert_eq!(tokens("una mela"), ["una", "mela"]);
        let spelled = tokens("melacittà");
        assert!(
            spelled.len() > 1 && !spelled.contains(&SPECIAL[1].to_owned()),
            "{spelled:?}"
        );
    }
}
