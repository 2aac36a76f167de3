"""Times one peer engine on one ONNX model, in a process of its own, and prints one JSON object.

    peer.py ENGINE MODEL TOWER --threads N --seconds S [--tokens T]

ENGINE is ort or openvino; MODEL is an .onnx file (ort) or an .onnx or .xml file (openvino); TOWER
is image or text. Batch 1 unless --batch is given; the input is fixed, its values do not matter to
the time.
"""

import argparse
import json
import time

import numpy as np


def inputs(tower: str, batch: int, tokens: int, size: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    if tower == "image":
        pixels = random.standard_normal((batch, 3, size, size)).astype(np.float32)
        return {"pixel_values": pixels}
    ids = random.integers(5, 1000, (batch, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def ort(model: str, feed: dict, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def openvino(model: str, feed: dict, threads: int):
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape({name: list(value.shape) for name, value in feed.items()})
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(graph, "CPU", hints).create_infer_request()
    return lambda: request.infer(feed)


def memory_mb(key: str) -> float:
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["ort", "openvino"])
    parser.add_argument("model")
    parser.add_argument("tower", choices=["image", "text"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()

    feed = inputs(arguments.tower, arguments.batch, arguments.tokens, arguments.size)
    make = {"ort": ort, "openvino": openvino}[arguments.engine]
    started = time.perf_counter()
    run = make(arguments.model, feed, arguments.threads)
    run()
    load = time.perf_counter() - started
    rss, peak = memory_mb("VmRSS"), memory_mb("VmHWM")
    times = []
    until = time.perf_counter() + arguments.seconds
    while not times or time.perf_counter() < until:
        begun = time.perf_counter()
        run()
        times.append((time.perf_counter() - begun) * 1e3)
    p50, p95 = np.quantile(times, [0.5, 0.95])
    print(
        json.dumps(
            {
                "ms_p50": p50 / arguments.batch,
                "ms_p95": p95 / arguments.batch,
                "load_ms": load * 1e3,
                "rss_mb": rss,
                "peak_mb": peak,
            }
        )
    )


if __name__ == "__main__":
    main()
