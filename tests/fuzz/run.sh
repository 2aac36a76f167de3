#!/usr/bin/env bash
# Runs every fuzz target for a bounded time. Needs a nightly toolchain and cargo-fuzz
# (`cargo install --locked cargo-fuzz`).
#
#   tests/fuzz/run.sh [SECONDS_EACH]     default 60
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
if ! cargo +nightly --version >/dev/null 2>&1 || ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: SKIPPED: needs a nightly toolchain and cargo-fuzz"
    exit 0
fi
for target in frame manifest config message packed calibration; do
    cargo +nightly fuzz run --fuzz-dir . "$target" -- -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048
done
