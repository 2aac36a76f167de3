#!/usr/bin/env python3
"""Writes the Italian texts the demo bundle's text tower learns from: WORK/texts.tsv.

    python3 models/text_corpus.py DATA WORK [--hold-out PERCENT] [--general PERCENT]

DATA holds `grocery/` and `text/`. The tower is later taught to repeat what a multilingual sentence
encoder says about these texts (models/teacher.py), so they need no labels; class ids are there for
the image tower. Only texts whose licence lets a derived model be shipped are read: see
models/data/LICENSES.md. Deterministic: every draw comes from one seeded generator.

texts.tsv has a header and the columns `kind fine coarse imagenet text`; ids are -1 where a text
names no class, and several with commas where it fits several. A text occurs once; the first use wins.

Held-out descriptions (models/data/paraphrases_heldout.tsv) stay out, and with them every text that
has all their content words, in whatever form and order. `--hold-out` takes a share of the
descriptions out in the same way and writes it as WORK/paraphrases_dev.tsv, to choose settings with.
`--general` keeps a share of the texts that name no class: a tower that goes on learning knows them.
"""

import argparse
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


def stems(text):
    """What a phrase speaks of: the first four letters of its words of four and more."""
    return frozenset(word[:4] for word in re.findall(r"[a-zà-ù]+", text.lower()) if len(word) > 3)


class HeldOut:
    """Descriptions kept out of training, found again whatever the form and order of their words."""

    def __init__(self, texts):
        self.by_stem = {}
        for text in texts:
            wanted = stems(text)
            self.by_stem.setdefault(min(wanted), []).append(wanted)

    def __contains__(self, text):
        present = stems(text)
        return any(wanted <= present for stem in present for wanted in self.by_stem.get(stem, ()))


class Corpus:
    def __init__(self, held_out, dev):
        self.rows = {}
        self.held_out, self.dev = HeldOut(held_out), HeldOut(dev)

    @staticmethod
    def key(text):
        return re.sub(r"\s+", " ", text.replace("’", "'")).strip().lower()

    def add(self, kind, text, fine=-1, coarse=-1, imagenet=-1):
        text = re.sub(r"\s+", " ", text.replace("’", "'").replace("\t", " ")).strip()
        key = self.key(text)
        if not 1 < len(text) <= 160 or not re.search(r"[a-zà-ù]", key):
            return
        if kind not in ("prompt", "name") and text in self.held_out:
            return
        if kind in ("caption", "corpus") and text in self.dev:
            return
        row = self.rows.get(key)
        if row is None:
            self.rows[key] = [kind, fine, coarse, imagenet, text]
        elif imagenet >= 0 and row[3] == -1 and row[0] != "corpus":
            row[3] = imagenet

    def add_basic(self, text, classes):
        """A short name of several ImageNet classes; the same text may name one of them alone, too."""
        self.rows["basic " + text] = ["basic", -1, -1, ",".join(map(str, classes)), text]

    def thin(self, percent, rng):
        """Keeps this share of the texts that name no class."""
        self.rows = {key: row for key, row in self.rows.items() if row[0] != "corpus" or rng.random() * 100 < percent}

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


# What "una foto di" cannot stand before: definite articles, pronouns, sentences.
NO_FRAME = re.compile(r"^(il|lo|la|l'|i|gli|le|si|mi|ha|fa|è|se|per|con|senza|alla?|né|que(llo|lla|lli|lle)|rifornire)\b", re.I)


def descriptions(coarse_of, coarse_names):
    """(text, fine ids, coarse ids) of paraphrases.tsv; a text of several rows fits the classes of all."""
    found = {}
    for row in read_tsv(HERE / "paraphrases.tsv"):
        targets = [target.strip() for target in row["targets"].split(",")]
        fine = [int(target) for target in targets] if row["level"] == "fine" else []
        coarse = [coarse_of[id] for id in fine] or [coarse_names[target] for target in targets]
        entry = found.setdefault(Corpus.key(row["text"]), (row["text"], [], [], []))
        entry[1].append(row["level"])
        entry[2].extend(fine)
        entry[3].extend(coarse)
    for text, levels, fine, coarse in found.values():
        # Asked for at both levels, only the coarse answer is sure.
        fine = sorted(set(fine)) if set(levels) == {"fine"} else []
        yield text, fine, sorted(set(coarse))


def held_out_descriptions(rows, percent):
    """A share of the descriptions, chosen by a hash of each text."""
    for row in rows:
        if int.from_bytes(hashlib.sha256(row["text"].encode()).digest()[:4], "big") % 100 < percent:
            yield row


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
    joined = lambda values: ",".join(map(str, values)) or -1
    for number, (text, fine, coarse) in enumerate(descriptions(coarse_of, coarse_names)):
        if not fine and len(coarse) == 1 and only[coarse[0]] >= 0:
            fine = [only[coarse[0]]]
        where = {"fine": joined(fine), "coarse": joined(coarse)}
        corpus.add("caption", text, **where)
        if not NO_FRAME.match(text):
            corpus.add("caption", f"una foto di {text}", **where)
            corpus.add("caption", frames[4 + number % 8].format(np=text, n=bare(text)), **where)
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
    for row in read_tsv(HERE / "basic_it.tsv"):
        for frame in frames:
            corpus.add("corpus", frame.format(np=row["nome"], n=bare(row["nome"])))
        for frame in frames[:3]:
            corpus.add_basic(frame.format(np=row["nome"], n=bare(row["nome"])), row["indici"].split(","))


def definite(noun_phrase):
    """`uno scaffale` with its definite article: `lo scaffale`."""
    article, noun = ARTICLE.match(noun_phrase).group(1), bare(noun_phrase)
    if noun[0].lower() in "aeiou":
        return f"l'{noun}"
    return {"una ": "la ", "uno ": "lo "}.get(article, "il ") + noun


def watched(corpus, phrases):
    """What cameras watch in every state it can be in."""
    for group, things in phrases["watched"].items():
        states = [[form.replace("_", " ") for form in pair.split(" ")] for pair in listed(phrases["watched_states"][group])]
        for thing in listed(things):
            for state in states:
                form = state[agreement(thing) % 2]
                corpus.add("corpus", f"{thing} {form}")
                corpus.add("corpus", f"{definite(thing)} {form}" if form.startswith("che ") else f"{definite(thing)} è {form}")
                corpus.add("corpus", f"una foto di {thing} {form}")


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
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--hold-out", type=int, default=0, metavar="PERCENT")
    arguments.add_argument("--general", type=int, default=100, metavar="PERCENT")
    options = arguments.parse_args()
    data, work = options.data, options.work
    with open(HERE / "everyday_phrases.toml", "rb") as source:
        phrases = tomllib.load(source)
    held_out = [row["text"] for row in read_tsv(HERE / "paraphrases_heldout.tsv")]
    dev = list(held_out_descriptions(read_tsv(HERE / "paraphrases.tsv"), options.hold_out))
    if dev:
        with open(work / "paraphrases_dev.tsv", "w", encoding="utf-8") as out:
            out.write("level\ttargets\ttext\n")
            out.writelines(f"{row['level']}\t{row['targets']}\t{row['text']}\n" for row in dev)
    # One word alone would take its class with it.
    corpus = Corpus(held_out, [row["text"] for row in dev if len(stems(row["text"])) > 1])
    rng = random.Random(int.from_bytes(hashlib.sha256(b"vedetta text corpus 1").digest()[:8], "big"))
    grocery(corpus, data, phrases)
    everyday_classes(corpus)
    marks = [("classes", len(corpus.rows))]
    watched(corpus, phrases)
    everyday_phrases(corpus, phrases, rng, 24_000)
    marks.append(("phrases", len(corpus.rows)))
    emoji(corpus, data)
    marks.append(("emoji", len(corpus.rows)))
    wordnet(corpus, data, rng)
    marks.append(("wordnet", len(corpus.rows)))
    if options.general < 100:
        corpus.thin(options.general, rng)
    corpus.write(work / "texts.tsv")
    print("text_corpus:", ", ".join(f"{name} up to row {count}" for name, count in marks))


if __name__ == "__main__":
    main()
