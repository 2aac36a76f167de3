#!/usr/bin/env bash
# The tests of the int8 kernels under AddressSanitizer: every unsafe block of theirs on this CPU's
# instruction sets. They need nothing but the standard library, so they are built as a crate of their
# own, in seconds instead of with 400 dependencies.
#
#   tests/asan.sh [names of tests]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "asan: SKIPPED: needs a nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
work=${CARGO_TARGET_DIR:-$root/target}/asan
mkdir -p "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "kernels"
version = "0.0.0"
edition = "2024"

[workspace]
TOML
cat >"$work/src/lib.rs" <<RUST
#[path = "$root/src/encoder/int8/kernels/mod.rs"]
pub mod kernels;
RUST
host=$(rustc -vV | sed -n 's/^host: //p')
cd "$work"
CARGO_TARGET_DIR=$work/target RUSTFLAGS="-Zsanitizer=address" \
    cargo +nightly test --quiet --release --lib --target "$host" -- "$@"
