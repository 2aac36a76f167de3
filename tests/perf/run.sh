#!/usr/bin/env bash
# vedetta beside ONNX Runtime and OpenVINO on this machine, with the same weights: a table, and
# bench.svg.
#
#   tests/perf/run.sh [compare.py options]     for example --rounds 3 --threads 1
#
# Makes checkpoints of real shapes with random weights (the values do not change the speed), imports
# and quantizes them, installs the peers into a virtual environment, and runs all of them in turn.
# Needs python3 with venv, PyPI, 6 GB of disk and half an hour.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
work=$target/perf
mkdir -p "$work"

cargo build --release --quiet --features train --bins
if [ ! -x "$work/venv/bin/python" ]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet -r tests/perf/requirements.txt
fi
python=$work/venv/bin/python
train=$target/release/vedetta-train

cases=()
for name in vit-b-32 vit-b-16 tinyclip-8m-16; do
    if [ ! -d "$work/$name" ]; then
        "$python" tests/perf/checkpoint.py "$name" "$work/$name-checkpoint"
        "$train" import "$work/$name-checkpoint" -o "$work/$name" --licence none
        rm -r "$work/$name-checkpoint"
    fi
    rm -rf "$work/$name-int8"
    "$train" quantize "$work/$name" -o "$work/$name-int8" --force
    cases+=(--case "$name" "$work/$name" "$work/$name-int8")
done
# The text tower of vit-b-32 is BERT-base.
for tokens in 16 96; do
    cases+=(--text-case "bert-base-$tokens" "$tokens" "$work/vit-b-32" "$work/vit-b-32-int8")
done
"$python" tests/perf/compare.py --vedetta "$target/release/vedetta" --work "$work" \
    "${cases[@]}" --svg "$work/bench.svg" --json "$work/bench.json" "$@"
echo "picture: $work/bench.svg"
