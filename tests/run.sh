#!/usr/bin/env bash
# Passes the tests: installs the system packages they need where it may, then runs the whole suite.
# A test that lacks something (a broker, the training photos) prints that it skipped, and why.
set -euo pipefail
cd "$(dirname "$0")/.."

# libclang: bindings of the V4L2 headers; mosquitto: the real broker the MQTT tests talk to.
needed=()
ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || needed+=(libclang-dev)
command -v cc >/dev/null || needed+=(gcc libc6-dev)
PATH=$PATH:/usr/sbin
command -v mosquitto >/dev/null || needed+=(mosquitto)
command -v mosquitto_sub >/dev/null || needed+=(mosquitto-clients)
if [ ${#needed[@]} -gt 0 ]; then
    install="apt-get install -y --no-install-recommends ${needed[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "tests: $install"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
    else
        echo "tests: first run: sudo $install" >&2
        exit 1
    fi
fi

exec cargo test --features train,cuda "$@"
