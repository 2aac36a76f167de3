#!/usr/bin/env python3
"""Photos of everyday things that nothing here was trained on: the photographed stamps of Tux Paint.

  apt-get download tuxpaint-stamps-default
  python3 models/everyday.py tuxpaint-stamps-default_*.deb OUT
  vedetta-train evaluate --zero-shot --images OUT/photos --names OUT/names.tsv --templates OUT/templates.txt

Takes the photos that data/everyday_photos.tsv names out of the Debian package, puts each on white,
a quarter wider than the thing itself, and writes one folder per name, the names and the template.
Needs dpkg-deb and Pillow.
"""

import csv
import io
import pathlib
import re
import subprocess
import sys
import tarfile

from PIL import Image

STAMPS = "./usr/share/tuxpaint/stamps/"
MARGIN = 1.25


def folder(name: str) -> str:
    return re.sub("[^a-z]+", "-", name.lower())


def on_white(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    side = round(max(picture.size) * MARGIN)
    whole = Image.new("RGBA", (side, side), "white")
    whole.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return whole.convert("RGB")


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    package, out = sys.argv[1], pathlib.Path(sys.argv[2])
    table = pathlib.Path(__file__).parent / "data" / "everyday_photos.tsv"
    with table.open(encoding="utf-8") as lines:
        wanted = {row["photo"]: row["name"] for row in csv.DictReader(lines, delimiter="\t")}
    out.mkdir(parents=True, exist_ok=True)
    found = set()
    packed = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=packed.stdout, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix(STAMPS)
            if path not in wanted or not member.isfile():
                continue
            file = out / "photos" / folder(wanted[path]) / path.replace("/", "-")
            file.parent.mkdir(parents=True, exist_ok=True)
            on_white(Image.open(io.BytesIO(archive.extractfile(member).read()))).save(file)
            found.add(path)
    if packed.wait() != 0 or found != wanted.keys():
        sys.exit(f"{package} lacks {', '.join(sorted(wanted.keys() - found)) or 'an end'}")
    names = {folder(name): name for name in wanted.values()}
    (out / "names.tsv").write_text("".join(f"{f}\t{n}\n" for f, n in sorted(names.items())), encoding="utf-8")
    (out / "templates.txt").write_text("una foto di {}\n", encoding="utf-8")
    print(f"{len(found)} photos of {len(names)} things in {out}")


if __name__ == "__main__":
    main()
