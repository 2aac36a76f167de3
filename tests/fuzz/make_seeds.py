"""Writes the seeds that need no library: checkpoints, frames without JPEG, messages, configurations.

    python3 tests/fuzz/make_seeds.py

`write_seeds` in main.rs (ignored) makes those of bundles. The JPEGs are cjpeg's (libjpeg-turbo), the
signature is minisign's.
"""

import collections
import io
import json
import pickle
import pickletools
import struct
import sys
import tarfile
import types
import zipfile
import zlib
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"


def write(parser, name, content):
    folder = SEEDS / parser
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def safetensors(tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def msgpack(value):
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(msgpack(k) + msgpack(v) for k, v in value.items())
    if isinstance(value, list):
        return bytes([0x90 | len(value)]) + b"".join(map(msgpack, value))
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    if isinstance(value, int):
        return bytes([value])
    return b"\xc4" + bytes([len(value)]) + value


def flax_array(shape, kind, content):
    body = msgpack([list(shape), kind, content])
    return b"\xc7" + bytes([len(body), 1]) + body



def flax(tree):
    if isinstance(tree, dict):
        return bytes([0x80 | len(tree)]) + b"".join(msgpack(k) + flax(v) for k, v in tree.items())
    return tree


def torch_pickle():
    """`torch.save` of two tensors, without PyTorch: stand-ins of the same names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    sys.modules["torch"], sys.modules["torch._utils"] = torch, utils

    def named(module, name, thing):
        thing.__module__, thing.__qualname__, thing.__name__ = module, name, name
        setattr(sys.modules[module], name, thing)
        return thing

    rebuild = named("torch._utils", "_rebuild_tensor_v2", lambda *_: None)
    storage_type = named("torch", "FloatStorage", type("FloatStorage", (), {}))

    class Storage:
        pass

    class Tensor:
        def __init__(self, first, shape, strides):
            self.arguments = (Storage(), first, shape, strides, False, collections.OrderedDict())

        def __reduce__(self):
            return rebuild, self.arguments

    class Pickler(pickle._Pickler):
        def persistent_id(self, thing):
            return ("storage", storage_type, "0", "cpu", 2) if isinstance(thing, Storage) else None

    out = io.BytesIO()
    state = collections.OrderedDict(a=Tensor(0, (2,), (1,)), b=Tensor(1, (1, 1), (1, 1)))
    Pickler(out, protocol=2).dump({"state_dict": state, "epoch": 3, "rate": 0.5})
    pickletools.dis(out.getvalue(), out=io.StringIO())
    return out.getvalue()


def torch_zip(content):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in (("a/data.pkl", content), ("a/byteorder", b"little"), ("a/data/0", bytes(8))):
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def checkpoints():
    tensors = {
        "text.weight": ("F32", [2, 3], bytes(24)),
        "logit_scale": ("F16", [], bytes(2)),
        "position_ids": ("I64", [1, 2], bytes(16)),
    }
    write("checkpoint", "safetensors", b"\0" + safetensors(tensors))
    kernel = flax_array([2, 2], "float32", bytes(16))
    tree = {"params": {"dense": {"kernel": kernel, "bias": flax_array([2], "bfloat16", bytes(4))}}}
    write("checkpoint", "flax", b"\1" + flax(tree))
    content = torch_pickle()
    write("checkpoint", "pickle", b"\2" + content)
    write("checkpoint", "torch", b"\2" + torch_zip(content))


def frames():
    def frame(kind, bits, width, height, stride, data):
        return bytes([kind, bits]) + struct.pack("<HH", width, height) + bytes([stride]) + data

    for kind, name, size in ((0, "yuyv", 2), (2, "nv12", 1.5), (4, "rgb24", 3), (6, "grey", 1)):
        write("frame", name, frame(kind, 0, 16, 8, 0, bytes(int(16 * 8 * size))))
    write("frame", "bayer8", frame(7, 0, 16, 8, 0, bytes(128)))
    write("frame", "bayer10", frame(7, 1, 16, 8, 0, bytes(256)))
    write("frame", "stride", frame(4, 0, 5, 4, 1, bytes(64)))


def messages():
    base = "vedetta/negozio-1"
    sha256 = "ab" * 32
    event = {
        "schema": 1, "type": "confirmed", "id": "01JB", "sequence": 8841, "boot": "7f3a",
        "time": "2026-10-02T09:14:05.120Z", "clock": "synced", "camera": "corsia4", "zone": "r2-f07",
        "label": "scaffale-vuoto", "prompt": "uno scaffale vuoto", "probability": 0.83, "margin": 0.31,
        "threshold": 0.7, "frames": [6, 8], "since": "2026-10-02T09:13:20Z",
        "bundle": "clip-italian@sha256:ab12", "evidence": None, "delayed": False,
    }
    for name, topic, payload in (
        ("snapshot", "command/snapshot", {"id": 1, "camera": "corsia4"}),
        ("set", "command/set", {"id": "a", "label": "mela", "threshold": 0.8}),
        ("labels", "command/set", {"id": 2, "labels": [{"id": "mela", "noun": "mela"}]}),
        ("pause", "command/pause", {"id": 3, "seconds": 60}),
        ("install", "command/install-bundle", {"id": 4, "url": "https://esempio.it/b.tar.zst", "sha256": sha256}),
        ("event", "event", event),
        ("attributes", "zone/banco/mela/attributes", {"probability": 0.8, "margin": 0.3, "since": "2026-10-02T09:13:20Z"}),
        ("info", "info", {"version": "0.1.0", "bundle": "demo@sha256:ab12", "backend": "cpu", "boot": "7f3a"}),
    ):
        write("message", name, f"{base}/{topic}\n{json.dumps(payload)}")
    write("message", "threshold", f"{base}/config/mela/threshold/set\n0.75")
    write("message", "state", f"{base}/zone/banco/mela/state\nON")


def configurations():
    write("config", "short", '[[camera]]\ndevice = "/dev/video0"\n\n[[label]]\nnoun = "mela"\n')
    write("config", "rich", """device = "negozio"
log_level = "warn"

[model]
threads = 2

[update]
require_signature = false
trial_s = 30

[mqtt]
host = "192.168.1.10"
version = "3.1.1"
username = "vedetta"
password = "x"
commands = ["snapshot", "set"]
health_every_s = 10.5

[mqtt.tls]
ca_file = "ca.pem"

[outbox]
max_events = 500

[negatives]
extra = ["un muro"]

[[label]]
id = "pieno"
prompts = ["uno scaffale pieno"]
group = "scaffale"
enter = 0.8
dwell_s = 2

[[label]]
noun = "scaffale vuoto"
group = "scaffale"

[[camera]]
id = "corsia4"
replay = "photos"
rate_fps = 5

[camera.gate]
threshold = 0.05

[[camera.zone]]
id = "banco"
polygon = [[0.1, 0.2], [0.6, 0.2], [0.5, 0.8]]
labels = ["pieno"]
""")
    pointer = {
        "schema": 1, "current": "0007-clip-italian-0123456789ab", "previous": None, "trial_starts": 1,
        "failed": {"bundle": "clip-italian@sha256:ab", "reason": "prova"},
    }
    write("state", "pointer", json.dumps(pointer))
    write("state", "settings", json.dumps({"labels": [{"id": "mela", "noun": "mela"}], "thresholds": {"mela": 0.8}, "prompts": {}}))


def tokenizers():
    """The fixtures' with a few words left, and a Unigram one."""
    fixtures = Path(__file__).parents[1] / "fixtures/import"
    for name, folder in (("bpe", "clip-new"), ("wordpiece", "dual-encoder")):
        tokenizer = json.loads((fixtures / folder / "tokenizer.json").read_text())
        model = tokenizer["model"]
        special = [token["content"] for token in tokenizer["added_tokens"]]
        kept = [word for word in model["vocab"] if word in special or model["vocab"][word] < 60]
        model["vocab"] = {word: number for number, word in enumerate(kept)}
        for token in tokenizer["added_tokens"]:
            token["id"] = model["vocab"][token["content"]]
        if "merges" in model:
            model["merges"] = [["a", "b"]]
            model["vocab"].setdefault("ab", len(kept))
        write("tokenizer", name, json.dumps(tokenizer, separators=(",", ":")))
    unigram = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": [["<unk>", 0.0], ["\u2581", -2.0], ["ros", -3.0], ["so", -3.5], ["a", -4.0]]},
    }
    write("tokenizer", "unigram", json.dumps(unigram, separators=(",", ":")))


def calibrations():
    hexed = struct.pack("<4f", 0.5, 0.5, 0.5, 0.5).hex()
    write("calibration", "example", f"""schema = 1
bundle = "tiny@sha256:0123456789ab"
model_sha256 = "{'ab' * 32}"
precision = 0.95
negatives = ["una foto"]

[few_shot]
alpha = 2.0
beta = 5.5

[[label]]
id = "mela"
prompts = ["una mela", "una foto di una mela"]
group = "frutta"
platt = {{ a = 1.5, b = -0.25 }}
enter = 0.6
leave = 0.4
measured = {{ frames = 20, shown = 5, found = 4, mistaken = 0 }}

[[label]]
id = "pera"
prompts = ["una pera"]

[[frame]]
label = "mela"
embedding = "{hexed}"

[[frame]]
embedding = "{hexed}"
""")


def photos():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(bits, colour, row, *more):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 3, bits, colour, 0, 0, 0))
        data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for _ in range(3))))
        return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + data + chunk(b"IEND", b"")

    palette = chunk(b"PLTE", bytes([250, 0, 0, 0, 0, 250]))
    turned = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    write("photo", "rgb", png(8, 2, bytes(range(12))))
    write("photo", "deep", png(16, 6, bytes(range(32)), chunk(b"eXIf", turned)))
    write("photo", "palette", png(1, 3, b"\x50", palette, chunk(b"tRNS", b"\x80\xff")))
    # The frame's, without what says its format.
    jpeg = (SEEDS / "frame/jpeg-base").read_bytes()[7:]
    exif = b"Exif\0\0" + turned
    write("photo", "jpeg", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])


def surroundings():
    """What a broker, a server and a kernel say."""
    announced = {"cmps": {"image_porta": {"p": "image", "name": "porta"}, "other": {"p": "light"}}}
    write("discovery", "before", json.dumps(announced))
    write("range", "part", "bytes 600-999/1000")
    write("range", "whole", "bytes */1000")
    write("heat", "jetson", "\n".join([
        "cpu-thermal", "61250", "passive", "99000", "tboard", "40000", "passive", "55000", "cpu-throttle-alert",
        "1", "ina3221", "VDD_IN", "5000", "1500", "soctherm_oc", "2", "1", "", "pmode:0002 fmode:quiet", "active",
    ]))
    write("heat", "raspberry", "\n".join(["cpu-thermal", "48500"] + [""] * 15 + ["50005"]))


def datasets():
    tar = io.BytesIO()
    files = (("a.jpg", b"x"), ("a.txt", b"una mela"), ("b.jpg", b"y"), ("b.json", b'{"class": "pera"}'))
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    # Without the padding that a tape would want.
    write("dataset", "shard", b"\0" + tar.getvalue()[:10 * 512])
    rows = [("image", "caption", "class"), ("a.jpg", "una mela", "mela"), ("b.jpg", "una pera", "pera")]
    write("dataset", "tsv", "\1" + "\n".join(map("\t".join, rows)))
    write("dataset", "csv", "\2" + "\n".join(map(",".join, rows)).replace("una mela", '"una mela, rossa"'))
    write("dataset", "jsonl", "\3" + "\n".join(json.dumps(dict(zip(rows[0], row))) for row in rows[1:]))
    coco = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "una mela"}]}
    write("dataset", "coco", "\4" + json.dumps(coco))
    write("dataset", "names-tsv", "\5cartella\tnome\napple\tmela\nfruit/pear\tpera\n")
    write("dataset", "names-csv", '\6apple,mela\n"pear, green","pera, verde"\n')


def imports():
    fixtures = Path(__file__).parents[1] / "fixtures/import"
    for name, folder in (("clip", "clip-new"), ("dual-encoder", "dual-encoder"), ("siglip", "siglip2")):
        config = json.loads((fixtures / folder / "config.json").read_text())
        write("import", f"config-{name}", "\0" + json.dumps(config, separators=(",", ":")))
    write("import", "preparation", "\1" + (fixtures / "clip-new/preprocessor_config.json").read_text())
    write("import", "tokenizer", b"\2" + (SEEDS / "tokenizer/wordpiece").read_bytes())
    write("import", "vocabulary", "\3[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nmela\n##e\n")
    write("import", "card", "\4---\nlicense: mit\nlanguage:\n- it\n---\n# Prova\n")
    write("import", "index", '\5{"metadata": {}, "weight_map": {"w": "a.safetensors"}}')


calibrations()
checkpoints()
frames()
messages()
configurations()
tokenizers()
photos()
surroundings()
datasets()
imports()
