"""Makes a checkpoint of a real model's shape with random weights, as `transformers` saves it.

    checkpoint.py vit-b-32|vit-b-16|tinyclip-8m-16 FOLDER

vit-b-32 is CLIP-Italian: its image tower, and BERT-base for the text.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

# Width, layers, heads, hidden values and patch of the image tower; width, layers, heads and hidden
# values of CLIP's text tower, nothing for BERT-base; the shared space. From clip-italian/clip-italian,
# openai/clip-vit-base-patch16 and wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M (config.json).
SHAPES = {
    "vit-b-32": ((768, 12, 12, 3072, 32), None, 512),
    "vit-b-16": ((768, 12, 12, 3072, 16), (512, 12, 8, 2048), 512),
    "tinyclip-8m-16": ((256, 10, 4, 1024, 16), (256, 3, 4, 1024), 512),
}
# Vocabularies that are enough for the tokenizer to load; the tables keep the sizes that the models
# really have.
CLIP_VOCABULARY = 49408
BERT_VOCABULARY = 31102


def vision(width: int, layers: int, heads: int, mlp: int, patch: int) -> dict:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "patch_size": patch,
        "image_size": 224,
        "hidden_act": "quick_gelu",
    }


def dual_encoder(image: tuple, dim: int) -> VisionTextDualEncoderModel:
    config = VisionTextDualEncoderConfig(
        vision_config=CLIPVisionConfig(**vision(*image)).to_dict(),
        text_config=BertConfig(vocab_size=BERT_VOCABULARY).to_dict(),
        projection_dim=dim,
    )
    return VisionTextDualEncoderModel(config)


def clip(image: tuple, text: tuple, dim: int) -> CLIPModel:
    config = CLIPConfig(
        vision_config=vision(*image),
        text_config={
            "hidden_size": text[0],
            "num_hidden_layers": text[1],
            "num_attention_heads": text[2],
            "intermediate_size": text[3],
            "vocab_size": CLIP_VOCABULARY,
            "max_position_embeddings": 77,
            "bos_token_id": CLIP_VOCABULARY - 2,
            "eos_token_id": CLIP_VOCABULARY - 1,
            "pad_token_id": CLIP_VOCABULARY - 1,
        },
        projection_dim=dim,
    )
    return CLIPModel(config)


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    image, text, dim = SHAPES[name]
    torch.manual_seed(7)
    model = (clip(image, text, dim) if text else dual_encoder(image, dim)).eval()
    # transformers starts LayerNorm at 1 and 0 and biases at 0; trained towers are not like that.
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" in key.lower() or key.endswith("bias"):
                value.add_(torch.randn_like(value) * 0.1)
    model.save_pretrained(folder)
    if text:
        write_byte_pairs(folder)
    else:
        write_word_pieces(folder)
    write_preprocessor(folder)


def write_byte_pairs(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {symbol: n for n, symbol in enumerate(alphabet)}
    start, end = "<|startoftext|>", "<|endoftext|>"
    for n in range(len(words), CLIP_VOCABULARY - 2):
        words[f"<unused{n}>"] = n
    words[start], words[end] = CLIP_VOCABULARY - 2, CLIP_VOCABULARY - 1
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, CLIP_VOCABULARY - 2), (end, CLIP_VOCABULARY - 1)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_word_pieces(folder: Path) -> None:
    """Whole words only, a token each: `parola1`, `parola2` and so on."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [f"parola{n}" for n in range(len(special), BERT_VOCABULARY)]
    vocabulary = {word: n for n, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_preprocessor(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "crop_size": {"height": 224, "width": 224},
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_processor_type": "CLIPImageProcessor",
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "resample": 3,
                "size": {"shortest_edge": 224},
            }
        )
    )


if __name__ == "__main__":
    main()
