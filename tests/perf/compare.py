"""vedetta beside ONNX Runtime and OpenVINO: the same weights, one run, turn by turn.

    compare.py --vedetta BIN --case NAME FLOAT_BUNDLE INT8_BUNDLE [--case …] [options]

Every round runs each engine once, in a process of its own, one after the other (A B C A B C …), so
that a machine whose speed drifts slows all of them alike. Printed are medians over the rounds, and
the median over the rounds of each engine's ratio to vedetta in the same round. Writes bench.svg
when asked.
"""

import argparse
import json
import statistics
import subprocess
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).parent


def command_json(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nfailed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def vedetta(binary: str, bundle: str, threads: int, seconds: float) -> dict:
    flags = ["--threads", str(threads), "--seconds", str(seconds), "--json"]
    report = command_json([binary, "bench", "--bundle", bundle, *flags])
    return {
        "ms_p50": report["encode_ms_p50"],
        "text_ms_p50": report["text_ms_p50"],
        "batch8_ms": report["batch8_ms_per_image"],
        "limit_ms": report["limit_ms"],
        "load_ms": report["load_ms"],
        "rss_mb": report["rss_mb"],
        "peak_mb": report["peak_mb"],
        "kernel": report["kernel"],
    }


def peer(engine: str, model: Path, tower: str, threads: int, seconds: float) -> dict:
    flags = ["--threads", str(threads), "--seconds", str(seconds)]
    return command_json([sys.executable, str(HERE / "peer.py"), engine, str(model), tower, *flags])


def measure(arguments, name: str, float_bundle: str, int8_bundle: str, threads: int) -> list[dict]:
    """One row per engine: label, medians, ratio to vedetta's int8."""
    prepared = Path(arguments.work) / name
    model = Path(float_bundle) / "image.onnx"
    if not (prepared / "openvino-int8.xml").exists():
        print(f"{name}: quantizing for the peers …", file=sys.stderr)
        script = [sys.executable, str(HERE / "quantize.py")]
        subprocess.run([*script, model, "image", arguments.photos, prepared], check=True)
    seconds = arguments.seconds
    engines = {
        "vedetta int8": lambda: vedetta(arguments.vedetta, int8_bundle, threads, seconds),
        "OpenVINO int8": lambda: peer(
            "openvino", prepared / "openvino-int8.xml", "image", threads, seconds
        ),
        "ONNX Runtime int8": lambda: peer(
            "ort", prepared / "ort-int8.onnx", "image", threads, seconds
        ),
        "vedetta float": lambda: vedetta(arguments.vedetta, float_bundle, threads, seconds),
        "OpenVINO float": lambda: peer("openvino", model, "image", threads, seconds),
        "ONNX Runtime float": lambda: peer("ort", model, "image", threads, seconds),
    }
    rounds: dict[str, list[dict]] = {label: [] for label in engines}
    for n in range(arguments.rounds):
        for label, run in engines.items():
            print(f"{name}, {threads} threads, round {n + 1}: {label}", file=sys.stderr)
            rounds[label].append(run())
    ours = [r["ms_p50"] for r in rounds["vedetta int8"]]
    rows = []
    for label, results in rounds.items():
        middle = {
            key: statistics.median(r[key] for r in results)
            for key in results[0]
            if not isinstance(results[0][key], str)
        }
        ratios = [mine / r["ms_p50"] for mine, r in zip(ours, results)]
        rows.append(
            {
                "case": name,
                "threads": threads,
                "engine": label,
                "ratio": statistics.median(ratios),
                "kernel": results[0].get("kernel", ""),
                **middle,
            }
        )
    return rows


def table(rows: list[dict]) -> str:
    head = "| case | threads | engine | ms (median) | vedetta int8 / this | load ms | resident MB | peak MB |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(
            f"| {r['case']} | {r['threads']} | {r['engine']} | {r['ms_p50']:.2f} | {r['ratio']:.2f} "
            f"| {r['load_ms']:.0f} | {r['rss_mb']:.0f} | {r['peak_mb']:.0f} |"
        )
        if r["engine"] == "vedetta int8":
            lines.append(
                f"| {r['case']} | {r['threads']} | arithmetic limit ({r['kernel']}) "
                f"| {r['limit_ms']:.2f} | {r['ms_p50'] / r['limit_ms']:.2f} | | | |"
            )
    return "\n".join(lines)


def picture(rows: list[dict]) -> str:
    """Horizontal bars, a group per case and thread count, shorter is better."""
    left, width, bar, gap = 190, 420, 18, 30
    longest = max(r["ms_p50"] for r in rows)
    y, parts, group = 40, [], None
    for r in rows:
        if (r["case"], r["threads"]) != group:
            group = (r["case"], r["threads"])
            y += gap
            title = f"{r['case']}, {r['threads']} thread{'s' if r['threads'] > 1 else ''}"
            parts.append(f'<text x="12" y="{y - 8}" class="t">{escape(title)}</text>')
        length = max(1.0, r["ms_p50"] / longest * width)
        ours = "v" if r["engine"].startswith("vedetta") else "p"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" class="e">{escape(r["engine"])}</text>')
        parts.append(
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 4}" rx="2" class="{ours}"/>'
        )
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 12}">{r["ms_p50"]:.1f} ms</text>')
        y += bar
    style = (
        "text{font:12px system-ui,sans-serif;fill:#333}.t{font-weight:600}.e{text-anchor:end}"
        ".v{fill:#d1495b}.p{fill:#9aa5b1}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    )
    title = '<text x="12" y="24" class="t">one image, median; shorter is better</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{y + 16}" role="img">'
        f"<style>{style}</style>{title}{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vedetta", required=True)
    parser.add_argument("--case", nargs=3, action="append", required=True)
    parser.add_argument("--photos", default=HERE.parent.parent / "models" / "photos")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--work", default="target/perf")
    parser.add_argument("--json")
    parser.add_argument("--svg")
    arguments = parser.parse_args()

    rows = []
    for case in arguments.case:
        for threads in arguments.threads:
            rows += measure(arguments, *case, threads)
    print(table(rows))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.svg:
        Path(arguments.svg).write_text(picture(rows))


if __name__ == "__main__":
    main()
