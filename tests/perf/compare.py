"""vedetta beside ONNX Runtime and OpenVINO: the same weights, one run, turn by turn.

    compare.py --vedetta BIN --case NAME FLOAT_BUNDLE INT8_BUNDLE [--case …]
               [--text-case NAME TOKENS FLOAT_BUNDLE INT8_BUNDLE …] [options]

A text case times the text tower on one text of so many tokens (the tokenizer of `checkpoint.py`
makes a token of a word); memory is not read then.

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
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).parent


def command_json(command: list[str]) -> dict:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nfailed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass
class Case:
    name: str
    float_bundle: Path
    int8_bundle: Path
    # Of the text; an image tower otherwise.
    tokens: int | None = None

    @property
    def tower(self) -> str:
        return "text" if self.tokens else "image"


def vedetta(binary: str, bundle: Path, case: Case, threads: int, seconds: float) -> dict:
    flags = ["--threads", str(threads), "--seconds", str(seconds), "--json"]
    if case.tokens:
        # Two tokens are the ones at the ends. Images are not looked at.
        words = " ".join(f"parola{n + 5}" for n in range(case.tokens - 2))
        flags += ["--text", words]
    report = command_json([binary, "bench", "--bundle", str(bundle), *flags])
    if case.tokens:
        return {"ms_p50": report["text_ms_p50"], "load_ms": report["text_load_ms"]}
    return {
        "ms_p50": report["encode_ms_p50"],
        "batch8_ms": report["batch8_ms_per_image"],
        "limit_ms": report["limit_ms"],
        "load_ms": report["load_ms"],
        "verify_ms": report["verify_ms"],
        "rss_mb": report["rss_mb"],
        "peak_mb": report["peak_mb"],
        "kernel": report["kernel"],
    }


def peer(engine: str, model: Path, case: Case, threads: int, seconds: float) -> dict:
    flags = ["--threads", str(threads), "--seconds", str(seconds)]
    if case.tokens:
        flags += ["--tokens", str(case.tokens)]
    script = [sys.executable, str(HERE / "peer.py")]
    result = command_json([*script, engine, str(model), case.tower, *flags])
    if case.tokens:
        del result["rss_mb"], result["peak_mb"]
    return result


def measure(arguments, case: Case, threads: int) -> list[dict]:
    """One row per engine: label, medians, ratio to vedetta's int8."""
    name, seconds = case.name, arguments.seconds
    prepared = Path(arguments.work) / name
    model = case.float_bundle / f"{case.tower}.onnx"
    if not (prepared / "openvino-int8.xml").exists():
        print(f"{name}: quantizing for the peers …", file=sys.stderr)
        script = [sys.executable, str(HERE / "quantize.py")]
        options = [model, case.tower, arguments.photos, prepared, str(case.tokens or 0)]
        subprocess.run([*script, *options], check=True)

    def ours(bundle: Path):
        return lambda: vedetta(arguments.vedetta, bundle, case, threads, seconds)

    def theirs(engine: str, graph: Path):
        return lambda: peer(engine, graph, case, threads, seconds)

    engines = {
        "vedetta int8": ours(case.int8_bundle),
        "OpenVINO int8": theirs("openvino", prepared / "openvino-int8.xml"),
        "ONNX Runtime int8": theirs("ort", prepared / "ort-int8.onnx"),
        "vedetta float": ours(case.float_bundle),
        "OpenVINO float": theirs("openvino", model),
        "ONNX Runtime float": theirs("ort", model),
    }
    if arguments.int8_only:
        engines = {label: run for label, run in engines.items() if "int8" in label}
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
        start = f"| {r['case']} | {r['threads']} |"
        memory = [f"{r[key]:.0f}" if key in r else "" for key in ("rss_mb", "peak_mb")]
        lines.append(
            f"{start} {r['engine']} | {r['ms_p50']:.2f} | {r['ratio']:.2f} | {r['load_ms']:.0f} "
            f"| {memory[0]} | {memory[1]} |"
        )
        if r["engine"] == "vedetta int8" and "limit_ms" in r:
            ms, batch, limit = r["ms_p50"], r["batch8_ms"], r["limit_ms"]
            lines.append(
                f"{start} arithmetic limit ({r['kernel']}) | {limit:.2f} | {ms / limit:.2f} | | | |"
            )
            lines.append(
                f"{start} vedetta int8, one of eight | {batch:.2f} | {ms / batch:.2f} | | | |"
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
    title = '<text x="12" y="24" class="t">one image or text, median; shorter is better</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{y + 16}" role="img">'
        f"<style>{style}</style>{title}{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vedetta", required=True)
    parser.add_argument("--case", nargs=3, action="append", default=[])
    parser.add_argument("--text-case", nargs=4, action="append", default=[])
    parser.add_argument("--int8-only", action="store_true")
    parser.add_argument("--photos", default=HERE.parent.parent / "models" / "photos")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--work", default="target/perf")
    parser.add_argument("--json")
    parser.add_argument("--svg")
    arguments = parser.parse_args()

    cases = [Case(name, Path(f), Path(i)) for name, f, i in arguments.case]
    for name, tokens, float_bundle, int8_bundle in arguments.text_case:
        cases.append(Case(name, Path(float_bundle), Path(int8_bundle), int(tokens)))
    rows = []
    for case in cases:
        for threads in arguments.threads:
            rows += measure(arguments, case, threads)
    print(table(rows))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.svg:
        Path(arguments.svg).write_text(picture(rows))


if __name__ == "__main__":
    main()
