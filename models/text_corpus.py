#!/usr/bin/env python3
"""Writes the Italian texts the demo bundle's text tower learns from: WORK/texts.tsv.

    python3 models/text_corpus.py DATA WORK

DATA holds `grocery/` and `text/`. The tower is later taught to repeat what a multilingual sentence
encoder says about these texts (models/teacher.py), so they need no labels; class ids are there for
the image tower. Only texts whose licence lets a derived model be shipped are read: see
models/data/TEXT_LICENSES.md. Deterministic: every draw comes from one seeded generator.

texts.tsv has a header and the columns `kind fine coarse imagenet text`; ids are -1 where a text
names no single class. A text occurs once; the first use wins.
"""

import csv
import hashlib
import json
import os
import random
import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent / "data"
ARTICLE = re.compile(r"^(un'|uno |una |un |dei |degli |delle |del |della |dello |dell'|il |lo |la |l'|i |gli |le )", re.I)


def listed(text):
    return [part.strip() for part in text.split(";") if part.strip()]


def bare(noun_phrase):
    return ARTICLE.sub("", noun_phrase)


def agreement(noun_phrase):
    """Column of a four-form adjective: 0 m, 1 f, 2 mp, 3 fp; None where the article is mute."""
    first = noun_phrase.lower()
    for prefix, column in (("un'", 1), ("una ", 1), ("uno ", 0), ("un ", 0), ("dei ", 2), ("degli ", 2),
                           ("delle ", 3), ("del ", 0), ("dello ", 0), ("della ", 1), ("il ", 0), ("la ", 1)):
        if first.startswith(prefix):
            return column
    return None


def guessed_article(lemma):
    """The indefinite article of a singular Italian noun by its ending; None where only a dictionary knows."""
    word = lemma.split(" ")[0]
    if word.endswith("a") and not word.endswith(("ma", "ista", "ta")):
        return f"un'{lemma}" if word[0] in "aeiou" else f"una {lemma}"
    if word.endswith("o") and word.islower():
        impure = re.match(r"(s[^aeiou]|z|gn|ps|pn|x|y)", word)
        return f"uno {lemma}" if impure else f"un {lemma}"
    return None


class Corpus:
    def __init__(self, held_out):
        self.rows = {}
        self.held_out = {self.key(text) for text in held_out}

    @staticmethod
    def key(text):
        return re.sub(r"\s+", " ", text.replace("’", "'")).strip().lower()

    def add(self, kind, text, fine=-1, coarse=-1, imagenet=-1):
        text = re.sub(r"\s+", " ", text.replace("’", "'").replace("\t", " ")).strip()
        key = self.key(text)
        if not 1 < len(text) <= 160 or not re.search(r"[a-zà-ù]", key):
            return
        if any(held in key for held in self.held_out if len(held) > 8):
            return
        row = self.rows.get(key)
        if row is None:
            self.rows[key] = [kind, fine, coarse, imagenet, text]
        elif imagenet >= 0 and row[3] < 0 and row[0] != "corpus":
            row[3] = imagenet

    def write(self, path):
        temporary = path.with_suffix(".tsv.tmp")
        with open(temporary, "w", encoding="utf-8", newline="") as out:
            out.write("kind\tfine\tcoarse\timagenet\ttext\n")
            for row in self.rows.values():
                out.write("\t".join(map(str, row)) + "\n")
        os.replace(temporary, path)


def read_tsv(path):
    with open(path, encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE))


def grocery(corpus, data, phrases):
    with open(data / "grocery/classes.csv", encoding="utf-8") as source:
        coarse_of = {int(row[1]): int(row[3]) for row in list(csv.reader(source))[1:]}
    italian = read_tsv(data / "grocery/italian.tsv")
    members = {}
    for row in italian:
        members.setdefault(coarse_of[int(row["class_id"])], []).append(row)
    plural = dict(pair.split("=") for pair in listed(phrases["grocery"]["plurals"]))
    frames = listed(phrases["grocery"]["frames"])
    fruit, shelf = listed(phrases["grocery"]["fruit_frames"]), listed(phrases["grocery"]["shelf_frames"])

    articles = {"mela": "una mela", "melone": "un melone", "pera": "una pera", "succo di frutta": "un succo di frutta",
                "latte": "del latte", "yogurt": "uno yogurt", "peperone": "un peperone", "patata": "una patata",
                "pomodoro": "un pomodoro", "panna acida": "della panna acida", "latte di soia": "del latte di soia",
                "yogurt di soia": "uno yogurt di soia", "latte di avena": "del latte di avena", "aglio": "dell'aglio",
                "yogurt di avena": "uno yogurt di avena", "latte fermentato": "del latte fermentato",
                "cipolla": "una cipolla", "cavolo": "un cavolo", "funghi": "dei funghi", "asparagi": "degli asparagi",
                "zenzero": "dello zenzero", "barbabietola": "una barbabietola", "mandarino": "un mandarino"}
    fine_names = [(row["nome"], int(row["class_id"])) for row in italian]
    coarse_names, only = {}, {}
    for coarse, rows in members.items():
        name = rows[0]["coarse"]
        coarse_names[name] = coarse
        only[coarse] = int(rows[0]["class_id"]) if len(rows) == 1 else -1

    def ids(fine=-1, coarse=-1):
        if fine >= 0:
            return {"fine": fine, "coarse": coarse_of[fine]}
        return {"fine": only[coarse], "coarse": coarse}

    for name, fine in fine_names:
        corpus.add("prompt", f"una foto di {name}", **ids(fine))
    for name, coarse in coarse_names.items():
        corpus.add("prompt", f"una foto di {articles.get(name) or guessed_phrase(name, italian)}", **ids(coarse=coarse))
        corpus.add("prompt", f"una foto di {name}", **ids(coarse=coarse))
    for name, fine in fine_names:
        corpus.add("name", name, **ids(fine))
        corpus.add("name", bare(name), **ids(fine))
    for name, coarse in coarse_names.items():
        corpus.add("name", articles.get(name) or guessed_phrase(name, italian), **ids(coarse=coarse))
        corpus.add("name", name, **ids(coarse=coarse))
    for row in italian:
        corpus.add("caption", row["caption"], **ids(int(row["class_id"])))
        corpus.add("caption", f"una foto di {row['caption']}", **ids(int(row["class_id"])))
    for row in read_tsv(HERE / "paraphrases.tsv"):
        where = ids(int(row["targets"])) if row["level"] == "fine" else ids(coarse=coarse_names[row["targets"]])
        corpus.add("caption", row["text"], **where)
        corpus.add("caption", f"una foto di {row['text']}", **where)
        for frame in frames[4:12:3]:
            corpus.add("caption", frame.format(np=row["text"], n=bare(row["text"])), **where)
    packaged = set(range(28, 59))
    for names, level in ((fine_names, "fine"), (list(coarse_names.items()), "coarse")):
        for name, number in names:
            phrase = name if level == "fine" else articles.get(name) or guessed_phrase(name, italian)
            where = ids(number) if level == "fine" else ids(coarse=number)
            is_packaged = (number in packaged) if level == "fine" else int(members[number][0]["class_id"]) in packaged
            for frame in frames + (shelf if is_packaged else fruit):
                corpus.add("template", frame.format(np=phrase, n=bare(phrase)), **where)
    for name, many in plural.items():
        for frame in listed(phrases["grocery"]["plural_frames"]):
            corpus.add("template", frame.format(pl=many), **ids(coarse=coarse_names[name]))


def guessed_phrase(coarse_name, italian):
    """A coarse name with the article of its first fine class (`arancia`, `un'arancia`)."""
    for row in italian:
        if row["coarse"] == coarse_name and bare(row["nome"]).startswith(coarse_name):
            return row["nome"][: len(row["nome"]) - len(bare(row["nome"]))] + coarse_name
    return guessed_article(coarse_name) or coarse_name


def everyday_classes(corpus):
    path = HERE / "imagenet_it.tsv"
    if not path.exists():
        print(f"text_corpus: {path.name} is not there yet; its 1000 everyday names are left out", file=sys.stderr)
        return
    frames = ["una foto di {np}", "{np}", "{n}", "un'immagine di {np}", "si vede {np}"]
    more = ["una foto sfocata di {np}", "in questa foto c'è {np}", "un primo piano di {np}", "{np} in primo piano"]
    rows = read_tsv(path)
    for row in rows:
        for frame in frames:
            corpus.add("everyday", frame.format(np=row["nome"], n=bare(row["nome"])), imagenet=int(row["index"]))
    for row in rows:
        for synonym in listed(row["sinonimi"] or ""):
            for frame in frames[:3]:
                corpus.add("everyday", frame.format(np=synonym, n=bare(synonym)), imagenet=int(row["index"]))
        for frame in more:
            corpus.add("everyday", frame.format(np=row["nome"], n=bare(row["nome"])), imagenet=int(row["index"]))
    for row in read_tsv(HERE / "everyday_it.tsv") if (HERE / "everyday_it.tsv").exists() else []:
        indices = row["indici"].split(",")
        only = int(indices[0]) if len(indices) == 1 else -1
        for frame in frames:
            corpus.add("everyday" if only >= 0 else "corpus", frame.format(np=row["nome"], n=bare(row["nome"])), imagenet=only)


def everyday_phrases(corpus, phrases, rng, count):
    frames, places = listed(phrases["frames"]["all"]), listed(phrases["places"]["all"])
    states = {name: [[form.replace("_", " ") for form in four.split(" ")] for four in listed(value)]
              for name, value in phrases["states"].items()}
    fitting = {"people": ["alive", "size"], "animals": ["alive", "colour", "size"],
               "vehicles": ["vehicle_state", "colour"], "food": ["food_state", "colour"]}
    general = ["colour", "size", "condition"]
    things = [(group, thing) for group, value in phrases["things"].items() for thing in listed(value)]
    for scene in listed(phrases["scenes"]["all"]):
        corpus.add("corpus", scene)
        corpus.add("corpus", f"una foto di {scene}")
    for _, thing in things:
        for text in (thing, bare(thing), f"una foto di {thing}"):
            corpus.add("corpus", text)
    target = len(corpus.rows) + count
    while len(corpus.rows) < target:
        group, thing = rng.choice(things)
        text, column = thing, agreement(thing)
        if column is not None and rng.random() < 0.6:
            four = rng.choice(states[rng.choice(fitting.get(group, general))])
            text = f"{text} {four[column]}"
        draw = rng.random()
        if draw < 0.6:
            text = f"{text} {rng.choice(places)}"
        elif draw < 0.7:
            text = f"{text} e {rng.choice(things)[1]}"
        elif draw < 0.8:
            text = f"{text} {rng.choice(['accanto a', 'vicino a', 'con', 'senza', 'sopra', 'dietro a'])} {rng.choice(things)[1]}"
        if rng.random() < 0.3:
            text = rng.choice(frames).format(np=text)
        corpus.add("corpus", text)


def emoji(corpus, data):
    with open(data / "text/cldr48-annotations-it.json", encoding="utf-8") as source:
        entries = json.load(source)["annotations"]["annotations"]
    for entry in entries.values():
        for name in entry.get("tts", []):
            corpus.add("corpus", name)
    for entry in entries.values():
        for name in entry.get("default", []):
            corpus.add("corpus", name)


def wordnet(corpus, data, rng):
    nouns, others, sentences = {}, {}, {}
    for file in ("omw-multiwordnet-ita.tab", "omw-italwordnet-ita.tab"):
        for line in open(data / "text" / file, encoding="utf-8"):
            parts = line.rstrip("\n").split("\t")
            if line.startswith("#") or len(parts) < 3:
                continue
            if parts[1] == "ita:lemma":
                lemma = parts[2].replace("-", " ") if parts[2].count("-") > 1 else parts[2]
                (nouns if parts[0].endswith("-n") else others)[lemma.replace("GAP!", "").strip()] = None
            elif parts[1] in ("ita:def", "ita:exe") and len(parts) > 3:
                sentences[parts[3].strip(" \"'")] = None
    texts = [*nouns, *others, *sentences]
    for noun in nouns:
        phrase = guessed_article(noun)
        if phrase and rng.random() < 0.4:
            texts.append(f"una foto di {phrase}" if rng.random() < 0.5 else phrase)
    rng.shuffle(texts)
    for text in texts:
        corpus.add("corpus", text)


def main():
    data, work = Path(sys.argv[1]), Path(sys.argv[2])
    with open(HERE / "everyday_phrases.toml", "rb") as source:
        phrases = tomllib.load(source)
    held_out = [row["text"] for row in read_tsv(HERE / "paraphrases_heldout.tsv")]
    corpus = Corpus(held_out)
    rng = random.Random(int.from_bytes(hashlib.sha256(b"vedetta text corpus 1").digest()[:8], "big"))
    grocery(corpus, data, phrases)
    everyday_classes(corpus)
    marks = [("classes", len(corpus.rows))]
    everyday_phrases(corpus, phrases, rng, 24_000)
    marks.append(("phrases", len(corpus.rows)))
    emoji(corpus, data)
    marks.append(("emoji", len(corpus.rows)))
    wordnet(corpus, data, rng)
    marks.append(("wordnet", len(corpus.rows)))
    corpus.write(work / "texts.tsv")
    print("text_corpus:", ", ".join(f"{name} up to row {count}" for name, count in marks))


if __name__ == "__main__":
    main()
