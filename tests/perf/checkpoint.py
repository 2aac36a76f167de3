"""Makes a CLIP checkpoint of a real model's shape with random weights, as `transformers` saves it.

    checkpoint.py vit-b-32|vit-b-16|tinyclip-8m-16 FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

# Shapes: openai/clip-vit-base-patch32 and -patch16 (config.json), and
# wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M (config.json).
SHAPES = {
    "vit-b-32": ((768, 12, 12, 3072, 32), (512, 12, 8, 2048), 512),
    "vit-b-16": ((768, 12, 12, 3072, 16), (512, 12, 8, 2048), 512),
    "tinyclip-8m-16": ((256, 10, 4, 1024, 16), (256, 3, 4, 1024), 512),
}
# A byte-level vocabulary that is enough for the tokenizer to load; the embedding keeps the size
# that the model really has.
VOCABULARY = 49408


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    (width, layers, heads, mlp, patch), text, dim = SHAPES[name]
    torch.manual_seed(7)
    config = CLIPConfig(
        vision_config={
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": mlp,
            "patch_size": patch,
            "image_size": 224,
        },
        text_config={
            "hidden_size": text[0],
            "num_hidden_layers": text[1],
            "num_attention_heads": text[2],
            "intermediate_size": text[3],
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 77,
            "bos_token_id": VOCABULARY - 2,
            "eos_token_id": VOCABULARY - 1,
            "pad_token_id": VOCABULARY - 1,
        },
        projection_dim=dim,
    )
    model = CLIPModel(config).eval()
    # transformers starts LayerNorm at 1 and 0 and biases at 0; trained towers are not like that.
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "norm" in key or key.endswith("bias"):
                value.add_(torch.randn_like(value) * 0.1)
    model.save_pretrained(folder)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {symbol: n for n, symbol in enumerate(alphabet)}
    start, end = "<|startoftext|>", "<|endoftext|>"
    for n in range(len(words), VOCABULARY - 2):
        words[f"<unused{n}>"] = n
    words[start], words[end] = VOCABULARY - 2, VOCABULARY - 1
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, VOCABULARY - 2), (end, VOCABULARY - 1)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
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
