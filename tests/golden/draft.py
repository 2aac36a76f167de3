#!/usr/bin/env python3
"""Reference planes for src/decode/baseline: libjpeg-turbo's reduced sizes, by Pillow's `draft`.

    python3 -m venv venv && venv/bin/pip install pillow
    venv/bin/python tests/golden/draft.py        # rewrites tests/golden/draft.json

Each case keeps a part of luma in hexadecimal, row by row, of a photo at 1, 1/2 or 1/4 of its size. At
1/2 it keeps Cb and Cr, too: of 4:2:0 libjpeg then leaves chroma as it is coded.
"""

import json
from pathlib import Path

import PIL.features
from PIL import Image

HERE = Path(__file__).resolve().parent
PHOTOS = HERE.parent / "fixtures" / "photos"
PART = (48, 32)


def measure(name: str, divisor: int) -> dict:
    image = Image.open(PHOTOS / name)
    size = image.size
    if divisor > 1:
        image.draft("YCbCr", (size[0] // divisor, size[1] // divisor))
    else:
        image.draft("YCbCr", size)
    assert image.mode == "YCbCr" and image.size == tuple(-(-edge // divisor) for edge in size), image
    x, y = 16, 16
    part = image.crop((x, y, x + PART[0], y + PART[1]))
    bands = part.split() if divisor == 2 else part.split()[:1]
    planes = [band.tobytes().hex() for band in bands]
    return {"photo": name, "divisor": divisor, "region": [x, y, *PART], "planes": planes}


def main() -> None:
    names = ["arance.jpg", "banane.jpg", "latte.jpg", "limoni.jpg"]
    cases = [measure(name, divisor) for name in names for divisor in (1, 2, 4)]
    version = PIL.features.version("libjpeg_turbo")
    made_with = f"Pillow {PIL.__version__}, libjpeg-turbo {version}"
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "draft.json").write_text(f'{{"made_with": "{made_with}", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
