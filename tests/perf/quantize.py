"""Makes the int8 forms of a float ONNX tower that the peers run best.

    quantize.py MODEL TOWER PHOTOS OUT TOKENS

writes OUT/ort-int8.onnx (dynamic, u8 activations, s8 weights: ONNX Runtime's fastest here) and
OUT/openvino-int8.xml (NNCF post-training quantization, transformer preset, calibrated on PHOTOS or on
random ids, TOKENS of them).
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 224


def samples(tower: str, photos: Path, tokens: int, count: int = 32):
    random = np.random.default_rng(2)
    paths = sorted(photos.rglob("*.jpg"))[:count]
    for n in range(count):
        if tower == "text":
            ids = random.integers(5, 1000, (1, tokens))
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        else:
            picture = Image.open(paths[n % len(paths)]).convert("RGB").resize((SIZE, SIZE))
            pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
            yield {"pixel_values": pixels}


def main() -> None:
    model, tower, photos, out, tokens = sys.argv[1:]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(model, out / "ort-int8.onnx", weight_type=QuantType.QInt8, per_channel=True)

    import nncf
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    data = list(samples(tower, Path(photos), int(tokens)))
    graph.reshape({name: list(value.shape) for name, value in data[0].items()})
    quantized = nncf.quantize(
        graph, nncf.Dataset(data), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(data)
    )
    openvino.save_model(quantized, out / "openvino-int8.xml")


if __name__ == "__main__":
    main()
