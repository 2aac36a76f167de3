#!/usr/bin/env bash
# Instructions that an image costs on 64-bit Arm, counted under qemu and set beside those that its
# products need at least: the ground for estimates where there is no board.
#
#   tests/perf/instructions.sh VEDETTA BUNDLE MILLIONS
#
# VEDETTA is an aarch64 binary (cross/build), BUNDLE an int8 one, MILLIONS the multiplications that an
# image takes, which `vedetta bench --json` calls mmacs.
#
# One photo is scored three times and seven times; a quarter of the difference is decoding, preprocessing
# and encoding one. What a thread does beside the first images, it moves the weights to huge pages, is in
# both.
# Needs qemu-user (not the static one, which takes no plugins), gcc, jq and
# libc6-dev-arm64-cross.
set -euo pipefail
here=$(dirname "$0")
vedetta=$1 bundle=$2 multiplications=$(($3 * 1000000))
photo=$here/../../models/photos/01-banana.jpg
qemu=${QEMU:-qemu-aarch64}
for tool in "$qemu" gcc jq; do
    command -v "$tool" >/dev/null || { echo "instructions: SKIPPED: needs $tool"; exit 0; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -shared -fPIC -O2 "$here/instructions.c" -o "$work/instructions.so"

# Prints all instructions, dot products and matrix products.
count() {
    local cpu=$1
    shift
    "$qemu" -cpu "$cpu" -L /usr/aarch64-linux-gnu -plugin "$work/instructions.so" -d plugin \
        "$vedetta" score "$@" --threads 1 --bundle "$bundle" --label "una banana" --json \
        2>&1 >/dev/null | sed -n 's/^instructions: //p'
}

printf '| cpu | kernel | instructions | dot products | matrix products | at least | ratio |\n'
printf '|---|---|---:|---:|---:|---:|---:|\n'
for cpu in cortex-a57 cortex-a76 max; do
    read -r few few_dot few_matrix < <(count "$cpu" "$photo" "$photo" "$photo")
    read -r many many_dot many_matrix < <(count "$cpu" "$photo"{,,,,,,})
    dot=$(((many_dot - few_dot) / 4)) matrix=$(((many_matrix - few_matrix) / 4))
    # One instruction multiplies 32 pairs (matrix products), 16 (dot products) or 8 (smull, smlal).
    if [ "$matrix" -gt 0 ]; then
        kernel=neon-i8mm pairs=32
    elif [ "$dot" -gt 0 ]; then
        kernel=neon-dotprod pairs=16
    else
        kernel=neon pairs=8
    fi
    all=$(((many - few) / 4)) least=$((multiplications / pairs))
    printf '| %s | %s | %s M | %s M | %s M | %s M | %s.%02d |\n' "$cpu" "$kernel" $((all / 1000000)) \
        $((dot / 1000000)) $((matrix / 1000000)) $((least / 1000000)) \
        $((all / least)) $((all * 100 / least % 100))
done
