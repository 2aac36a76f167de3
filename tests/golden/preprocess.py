#!/usr/bin/env python3
"""Reference numbers for tests/preprocess.rs, from Hugging Face's CLIP image processor and Pillow.

    python3 -m venv venv && venv/bin/pip install pillow numpy transformers
    venv/bin/python tests/golden/preprocess.py        # rewrites tests/golden/preprocess.json

`center` cases go through `CLIPImageProcessor` as it is (its Pillow version: torch is not needed);
`squash` cases through `Image.resize`, rescaled and normalised with the same numpy functions. Each
case keeps the SHA-256 of the fitted RGB bytes, some of its pixels, and some normalised values.
Sources are lossless photos, JPEG photos (decoders differ by a few units: only the pixels are
compared, with a tolerance) and noise from a generator that both languages can run.
"""

import hashlib
import json
from pathlib import Path

import numpy
import PIL
import transformers
from PIL import Image
from transformers import CLIPImageProcessor

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parent / "fixtures" / "photos"

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
LITE_MEAN, LITE_STD = [127 / 255] * 3, [128 / 255] * 3


def noise(width: int, height: int, seed: int) -> Image.Image:
    """Numerical Recipes' LCG, top byte of each state."""
    state, samples = seed, bytearray()
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) % 2**32
        samples.append(state >> 24)
    return Image.frombytes("RGB", (width, height), bytes(samples))


def fit(image: Image.Image, case: dict, normalize: bool) -> numpy.ndarray:
    """`[S, S, 3]` bytes, or `[3, S, S]` normalised floats."""
    size = case["size_px"]
    bicubic = case["resize"] == "bicubic"
    filter_ = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    resize_here = case["crop"] == "squash"
    if resize_here:
        image = image.resize((size, size), filter_)
    processor = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=filter_,
        do_resize=not resize_here,
        do_center_crop=not resize_here,
        image_mean=case["mean"],
        image_std=case["std"],
    )
    if normalize:
        return numpy.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    raw = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")
    return numpy.asarray(raw["pixel_values"][0]).transpose(1, 2, 0).astype(numpy.uint8)


def measure(case: dict) -> dict:
    source = case["source"]
    image = Image.open(PHOTOS / source).convert("RGB") if isinstance(source, str) else noise(*source)
    if case["region"]:
        x, y, width, height = case["region"]
        image = image.crop((x, y, x + width, y + height))
    size = case["size_px"]
    fitted = fit(image, case, normalize=False)
    values = fit(image, case, normalize=True)
    assert fitted.shape == (size, size, 3) and values.shape == (3, size, size)
    spots = [((i * 37) % size, (i * 101 + 11) % size) for i in range(24)]
    return case | {
        "sha256": hashlib.sha256(fitted.tobytes()).hexdigest(),
        "pixels": [[x, y, *(int(v) for v in fitted[y, x])] for x, y in spots],
        "values": [[c, x, y, float(values[c, y, x])] for c, (x, y) in zip([0, 1, 2] * 4, spots)],
    }


def main() -> None:
    clip = {"size_px": 224, "resize": "bicubic", "crop": "center", "mean": CLIP_MEAN, "std": CLIP_STD}
    lite = clip | {"mean": LITE_MEAN, "std": LITE_STD}
    bilinear = clip | {"size_px": 160, "resize": "bilinear"}
    squash = lite | {"size_px": 192, "crop": "squash"}
    cases = []
    for source in ["latte.png", "arance.png", "arance.jpg", "latte.jpg", "limoni.jpg", "banane.jpg"]:
        cases.append(clip | {"source": source, "region": None})
    for source in ["latte.png", "arance.png"]:
        for rule in [lite, bilinear, squash, squash | {"resize": "bilinear"}]:
            cases.append(rule | {"source": source, "region": None})
        cases.append(clip | {"source": source, "region": [31, 17, 120, 155]})
    for width, height in [(1280, 720), (641, 1023), (224, 224), (225, 224), (37, 53), (700, 5), (1, 1)]:
        for rule in [clip, squash]:
            cases.append(rule | {"source": [width, height, width * 7919 + height], "region": None})
    made_with = f"Pillow {PIL.__version__}, transformers {transformers.__version__}, numpy {numpy.__version__}"
    lines = ",\n".join(json.dumps(measure(case)) for case in cases)
    (HERE / "preprocess.json").write_text(f'{{"made_with": "{made_with}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
