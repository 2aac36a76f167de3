#!/usr/bin/env python3
"""Prints the licences of everything that the device binary is linked from, as a Debian copyright file.

    cross/licences.py [--target TRIPLE]

Fails when a crate's licence expression cannot be met with the licences in ALLOWED, or when the text of
a licence that has to be passed on is nowhere to be found. Reads `cargo metadata` and the crates'
sources, nothing else.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Permissive licences only, a part of .deny.toml's list, in the order in which a choice is made ("MIT OR
# Apache-2.0" is used under the first of these): a static binary passes them on with their text.
ALLOWED = [
    "MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC", "BSD-2-Clause", "BSD-3-Clause",
    "Zlib", "0BSD", "Unicode-3.0",
]  # fmt: skip

# The text on every Debian system; Apache-2.0 asks for no more than a copy and the NOTICE files.
COMMON = {"Apache-2.0": "/usr/share/common-licenses/Apache-2.0"}

MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN
NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY,
WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

# A file of a crate and the licence that it holds, told from its words.
GRANT = "Permission to use, copy, modify,? and(?:/or)? distribute this software for any purpose with or without fee is hereby granted"
MARKS = [
    ("Apache-2.0 WITH LLVM-exception", "LLVM Exceptions to the Apache"),
    ("Apache-2.0", "Apache License Version 2.0"),
    ("MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy"),
    ("BSL-1.0", "Boost Software License"),
    ("Unlicense", "This is free and unencumbered software"),
    ("BSD-3-Clause", "Redistribution and use in source and binary forms.*[Nn]either the names?"),
    ("BSD-2-Clause", "Redistribution and use in source and binary forms"),
    ("Zlib", "This software is provided 'as-is', without any express or implied"),
    ("ISC", GRANT + ", provided"),
    ("0BSD", GRANT + "\\."),
    ("Unicode-3.0", "UNICODE LICENSE V3"),
    ("BlueOak-1.0.0", "Blue Oak Model License"),
]
APACHE = re.compile(
    r"[^\n]*Apache License\s+Version 2\.0, January 2004.*?END OF TERMS AND CONDITIONS",
    re.DOTALL | re.IGNORECASE,
)
NAMES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def features(target):
    """What the binary for `target` is built with, from the list that cross/build reads, too."""
    for line in (ROOT / "cross/features").read_text().splitlines():
        if line.split()[0] == target:
            return ["--no-default-features", "--features", line.split()[1]]
    sys.exit(f"licences: {target} is not in cross/features")


def dependencies(target):
    """Packages linked into the binary: normal dependencies, without procedural macros."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", *features(target)]
    printed = subprocess.run(
        [*command, "--filter-platform", target], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    metadata = json.loads(printed.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, left = set(), [root]
    while left:
        this = left.pop()
        kinds = {kind for one in packages[this]["targets"] for kind in one["kind"]}
        if this in found or "proc-macro" in kinds:
            continue
        found.add(this)
        for edge in nodes[this]["deps"]:
            if any(kind["kind"] is None for kind in edge["dep_kinds"]):
                left.append(edge["pkg"])
    found.remove(root)
    return packages[root], sorted(
        (packages[one] for one in found), key=lambda one: (one["name"], one["version"])
    )


def choose(expression):
    """Licences that meet an SPDX expression, all from ALLOWED; None when nothing does."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives():
        options = [conjunction()]
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            options.append(conjunction())
        legal = [option for option in options if option is not None]
        return min(legal, key=lambda option: [ALLOWED.index(one) for one in option], default=None)

    def conjunction():
        parts = [term()]
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            parts.append(term())
        return None if None in parts else [one for part in parts for one in part]

    def term():
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            inside = alternatives()
            if tokens.pop(0) != ")":
                raise ValueError(f"not an SPDX expression: {expression}")
            return inside
        if tokens[:1] == ["WITH"]:
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return [token] if token in ALLOWED else None

    chosen = alternatives()
    if tokens:
        raise ValueError(f"not an SPDX expression: {expression}")
    return chosen


def texts(package):
    """Licence files of a package: (licence or None for a notice, text)."""
    folder = pathlib.Path(package["manifest_path"]).parent
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts[:-1]
        if not NAMES.match(path.name) or path.suffix in {".rs", ".html", ".toml", ".py"}:
            continue
        if not path.is_file() or {"tests", "benches", "examples", "fuzz"} & set(inside):
            continue
        text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        held = licences_in(text)
        if is_common(text):
            text = ""
        text = APACHE.sub(f"Apache License 2.0: {COMMON['Apache-2.0']}", text)
        found.append((held, "\n".join(line.rstrip() for line in text.strip().split("\n")) + "\n"))
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--target", default="aarch64-unknown-linux-gnu")
    root, packages = dependencies(arguments.parse_args().target)

    table, blocks, owners, problems = [], {}, collections.defaultdict(list), []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        expression = package["license"] or ""
        chosen = choose(expression) if expression else None
        if chosen is None:
            problems.append(f"{name}: the licence {expression or '(none)'!r} is not allowed")
            continue
        table.append(f"    {name}: {' AND '.join(chosen)}")
        files = texts(package)
        # A file with several licences in it is passed on whole.
        passed_on = [text for held, text in files if not held or set(held) & set(chosen)]
        held = {licence for licences, _ in files for licence in licences}
        for licence in chosen:
            if licence in held or licence in COMMON:
                continue
            if licence != "MIT":
                problems.append(f"{name}: has no text of {licence}")
                continue
            holders = ", ".join(package["authors"]) or f"the authors of {package['name']}"
            passed_on.append(f"Copyright (c) {holders}\n\n{MIT}")
        for text in passed_on:
            if not text.strip():
                continue
            key = hashlib.sha256(words(text).encode()).hexdigest()
            blocks.setdefault(key, text)
            if name not in owners[key]:
                owners[key].append(name)

    if problems:
        for problem in problems:
            print(f"licences: {problem}", file=sys.stderr)
        print("licences: choose another crate, or allow it in cross/licences.py", file=sys.stderr)
        return 1

    out = sys.stdout
    out.write(f"vedetta {root['version']}\n\nCopyright (c) the vedetta developers\n")
    out.write("Licence: MIT OR Apache-2.0, at your choice. Apache-2.0: ")
    out.write(f"{COMMON['Apache-2.0']}; MIT:\n\n")
    out.write(indent((ROOT / "LICENSE-MIT").read_text(encoding="utf-8")))
    out.write("\nThe model under /usr/share/vedetta/models/demo:\n\n")
    out.write(indent((ROOT / "models/demo/LICENSES.md").read_text(encoding="utf-8")))
    out.write("\nThe binary holds the Rust standard library (MIT OR Apache-2.0, copyright The Rust\n")
    out.write(f"Project Developers) and the following {len(packages)} crates, each used under the\n")
    out.write("licence named behind it:\n\n")
    out.write("\n".join(table) + "\n\n")
    out.write(f"The text of Apache-2.0 is {COMMON['Apache-2.0']}. The other texts and notices:\n")
    for key in sorted(blocks, key=lambda key: owners[key]):
        out.write("\n" + "-" * 78 + "\n" + wrapped(owners[key]) + "\n\n" + indent(blocks[key]))
    print(f"licences: {len(packages)} crates, {len(blocks)} texts", file=sys.stderr)
    return 0


def words(text):
    return " ".join(re.sub(r"(?m)^\s*(//|#|\*)", "", text).split())


def licences_in(text):
    return [licence for licence, mark in MARKS if re.search(mark, words(text), re.IGNORECASE)]


def is_common(text):
    """Nothing but the text of Apache-2.0, its appendix filled in or not."""
    return licences_in(text) == ["Apache-2.0"] and 9000 < len(words(text)) < 11500


def indent(text):
    return "".join(f"    {line}".rstrip() + "\n" for line in text.rstrip().split("\n"))


def wrapped(names):
    lines, line = [], ""
    for name in names:
        piece = name if not line else f"{line}, {name}"
        if len(piece) > 96:
            lines.append(line + ",")
            piece = name
        line = piece
    return "\n".join([*lines, line])


if __name__ == "__main__":
    sys.exit(main())
