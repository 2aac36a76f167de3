#!/usr/bin/env bash
# Runs every fuzz target for a bounded time. Needs a nightly toolchain and cargo-fuzz
# (`cargo install --locked cargo-fuzz`).
#
#   tests/fuzz/run.sh [SECONDS_EACH [TARGET…]]     default 60, all targets
#
# TRAIN=1 adds the trainer's parsers, which takes longer to build. What is found lies under
# tests/fuzz/artifacts; look at it with
#   VEDETTA_FUZZ_INPUT=TARGET:FILE cargo test --features train --test fuzz outside
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: SKIPPED: needs a nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: SKIPPED: needs cargo-fuzz (cargo install --locked cargo-fuzz)"
    exit 0
fi
# The versions that the daemon is built with.
[ -f Cargo.lock ] || cp ../../Cargo.lock Cargo.lock
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for folder in seeds/*/; do
        name=$(basename "$folder")
        case $name in checkpoint | dataset | import) [ -n "${TRAIN:-}" ] || continue ;; esac
        targets+=("$name")
    done
fi
features=()
[ -n "${TRAIN:-}" ] && features=(--features train)
failed=()
for target in "${targets[@]}"; do
    echo "== $target, $seconds s"
    mkdir -p "corpus/$target"
    cargo +nightly fuzz run --fuzz-dir . "${features[@]}" "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="$seconds" -max_len=131072 -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=30 \
        || failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: found something in: ${failed[*]}"
    exit 1
fi
echo "fuzz: ${#targets[@]} targets, $seconds s each, nothing found"
