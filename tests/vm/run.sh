#!/usr/bin/env bash
# Boots a virtual machine with real V4L2 device nodes (vivid, v4l2loopback), a real mosquitto and
# vedetta, and checks what a subscriber in it sees. Prints one line per check and a line of counts.
#
#   tests/vm/run.sh            everything
#   tests/vm/run.sh NAME…      only these scenarios (see guest.sh)
#
# Where the tools cannot be had it prints that it skipped, and why, and exits 0.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh

[ "$arch" = amd64 ] || skip "VM_ARCH=$arch: these scenarios are only made for amd64"
need "${machine_tools[@]}"
fetch_kernel "$arch"
build_programs

begin_root "$(command -v mosquitto)" "$(command -v mosquitto_sub)" "$(command -v mosquitto_pub)"
copy_module vivid "$root/modules"
cp "$kernel/v4l2loopback/v4l2loopback.ko" "$root/modules/"
cp -r models/demo "$root/models"
cp models/photos/0[123]-*.jpg "$root/photos/"
cp tests/vm/guest.sh "$root/init"
cp tests/vm/*.toml "$root/etc/"
echo "$*" >"$root/etc/scenarios"
pack_root "$cache/initramfs.gz"

log=$cache/console.log
echo "vm: booting (emulated, a few minutes); console in $log"
machine "$cache/initramfs.gz" "" -nographic -nic none
timeout --foreground 2400 "${machine_command[@]}" </dev/null >"$log" 2>&1 || true
sed -n 's/\r$//; /^vm: /p' "$log"
passed=$(grep -c '^vm: ok ' "$log" || true)
failed=$(grep -c '^vm: FAIL ' "$log" || true)
if ! grep -q '^vm: done' "$log"; then
    echo "vm: FAIL the machine did not finish; the end of its console:"
    tail -n 40 "$log"
    failed=$((failed + 1))
fi
echo "vm: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
