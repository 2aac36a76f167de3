#!/usr/bin/env python3
"""Reference token ids for tests/vision/tokenizer.rs, from Hugging Face's transformers.

    python3 -m venv venv && venv/bin/pip install transformers
    venv/bin/python tests/golden/tokenizer.py         # rewrites tests/golden/tokenizer.json

The sentences go through `PreTrainedTokenizerFast` on the demo bundle's tokenizer.json, cut at the
manifest's `max_tokens`. Ids and tokens are kept, and the file's SHA-256: a new tokenizer needs new
numbers.
"""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parents[1] / "models" / "demo"

SENTENCES = [
    "una mela",
    "una foto di una banana matura",
    "UNA MELA VERDE",
    # Elisions, with the typewriter's and the printer's apostrophe.
    "l'uva nera sull'asse, un'arancia dell'orto",
    "l\u2019uva nera sull\u2019asse, un\u2019arancia dell\u2019orto",
    "c'è un po' d'acqua",
    # Accents: composed, decomposed, capital.
    "perché è più caffè, tè e città così",
    "perche\u0301 e\u0300 piu\u0300 caffe\u0300",
    "È QUALITÀ",
    # What NFKC folds: ligature, full width, circled number, non-breaking space.
    "\ufb01chi \uff2d\uff25\uff2c\uff21 \u2460 uno\u00a0scaffale",
    # Signs and numbers.
    "latte al 3,5% (1 l) a 1,99 \u20ac!",
    "scaffale-vuoto: corsia 4/B",
    # Not in any vocabulary.
    "una mela \U0001f34e e una banana \U0001f34c\U0001f34c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "日本語 и кириллица",
    "qwxzjkvbp" * 15,
    "precipitevolissimevolmente",
    # White space and invisible marks.
    "  una \t mela\n\nrossa  ",
    "una\u200bmela\ufeff",
    # Special tokens are recognised in what a user writes.
    "[CLS] una mela [SEP] [PAD] [MASK]",
    # Cut.
    "una bottiglia o un cartone di latte intero accanto a " * 8,
    "mela " * 40,
]


def main() -> None:
    manifest = tomllib.loads((BUNDLE / "bundle.toml").read_text())
    max_tokens = manifest["text"]["max_tokens"]
    path = BUNDLE / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    cases = []
    for text in SENTENCES:
        ids = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        cases.append({"text": text, "ids": ids, "tokens": " ".join(tokenizer.convert_ids_to_tokens(ids))})
    golden = {
        "made_with": f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}",
        "tokenizer_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "max_tokens": max_tokens,
        "cases": cases,
    }
    text = json.dumps(golden, ensure_ascii=True, indent=1)
    # Ids on one line each.
    text = re.sub(r"\[\s+(\d+(?:,\s+\d+)*)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    (HERE / "tokenizer.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
