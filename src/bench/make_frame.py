"""Makes frame.jpg: a 1920x1080 4:2:2 JPEG, as a USB camera's MJPEG, of 15 shop photos side by side.

    python3 src/bench/make_frame.py PATH/TO/grocery src/bench/frame.jpg

The photos are validation photos of the Grocery Store Dataset (Klasson, Zhang, Kjellström, WACV
2019; MIT, see models/photos/LICENSE). Needs Pillow.
"""

import sys
from pathlib import Path

from PIL import Image

ROWS, COLUMNS, TILE = 3, 5, (384, 360)

folder, output = Path(sys.argv[1]), sys.argv[2]
photos = sorted((folder / "val").rglob("*.jpg"))[:: max(1, 296 // (ROWS * COLUMNS))]
frame = Image.new("RGB", (COLUMNS * TILE[0], ROWS * TILE[1]))
for n, path in enumerate(photos[: ROWS * COLUMNS]):
    tile = Image.open(path).convert("RGB").resize(TILE, Image.Resampling.BICUBIC)
    frame.paste(tile, (n % COLUMNS * TILE[0], n // COLUMNS * TILE[1]))
frame.save(output, quality=85, subsampling="4:2:2")
