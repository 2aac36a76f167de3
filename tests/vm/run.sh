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
cache=${CARGO_TARGET_DIR:-target}/vm
mkdir -p "$cache"
cache=$(realpath "$cache")

skip() {
    echo "vm: SKIPPED: $1"
    echo "vm: 0 passed, 0 failed, 1 skipped"
    exit 0
}

declare -A package=(
    [qemu-system-x86_64]=qemu-system-x86 [cpio]=cpio [modinfo]=kmod [dpkg]=dpkg
    [apt-cache]=apt [mosquitto]=mosquitto [mosquitto_sub]=mosquitto-clients
    [gcc-12]=gcc-12 [make]=make [busybox]=busybox-static
)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ "$(uname -m)" = x86_64 ] || skip "the virtual machine is x86-64 and so must this one be"
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "vm: installing ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends "${missing[@]}"; } >"$cache/apt.log" 2>&1 \
            || skip "apt-get could not install ${missing[*]}: see $cache/apt.log"
    else
        skip "missing tools; install them with: sudo apt-get install ${missing[*]}"
    fi
fi

# The kernel, its headers and the loopback module's source: unpacked, never installed.
release=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: linux-image-\(.*-amd64\)$/\1/p' | head -n 1)
[ -n "$release" ] || skip "this distribution has no linux-image-amd64 package"
kernel=$cache/$release
if [ ! -e "$kernel/ready" ]; then
    echo "vm: fetching the kernel $release"
    rm -rf "$kernel" && mkdir -p "$kernel/debs" "$kernel/root"
    kbuild=$(apt-cache depends "linux-headers-$release" | sed -n 's/.*Depends: \(linux-kbuild-.*\)$/\1/p' | head -n 1)
    (cd "$kernel/debs" && apt-get download -q "linux-image-$release" "linux-headers-$release" \
        "linux-headers-${release%-amd64}-common" "$kbuild" v4l2loopback-dkms) >"$cache/fetch.log" 2>&1 \
        || skip "apt-get could not fetch the kernel: see $cache/fetch.log"
    for deb in "$kernel"/debs/*.deb; do dpkg -x "$deb" "$kernel/root"; done
    headers=$kernel/root/usr/src/linux-headers-$release
    sed -i "s#/usr/src/#$kernel/root/usr/src/#" "$headers/Makefile"
    cp -r "$kernel"/root/usr/src/v4l2loopback-* "$kernel/v4l2loopback"
    make -s -C "$headers" M="$kernel/v4l2loopback" KERNELRELEASE="$release" modules >"$cache/module.log" 2>&1 \
        || skip "v4l2loopback did not build: see $cache/module.log"
    rm -rf "$kernel/debs"
    touch "$kernel/ready"
fi

# The same features as the tests were built with, where .ci/run says so: one build serves both.
cargo build --quiet ${VM_FEATURES:+--features "$VM_FEATURES"} --bin vedetta --example vmtool
binaries=${CARGO_TARGET_DIR:-target}/debug

# The root file system is an initramfs.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,dev,etc,lib,lib64,modules,proc,sys,tmp,usr,var/lib/vedetta,photos}
cp "$(command -v busybox)" "$root/bin/busybox"
copy_program() {
    install -D "$1" "$root/bin/$(basename "$1")"
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D "$library" "$root$library"
    done
}
for program in "$(command -v mosquitto)" "$(command -v mosquitto_sub)" "$(command -v mosquitto_pub)" \
    "$binaries/vedetta" "$binaries/examples/vmtool"; do
    copy_program "$program"
done
strip "$root/bin/vedetta" "$root/bin/vmtool"
modules=$kernel/root/lib/modules/$release/kernel
add_module() {
    local file
    file=$(find "$modules" -name "$1.ko" | head -n 1)
    [ -n "$file" ] || file=$(find "$modules" -name "${1//_/-}.ko" | head -n 1)
    [ -n "$file" ] || { echo "vm: no module $1 in $release" >&2; return 1; }
    grep -qxF "$(basename "$file")" "$root/modules/order" 2>/dev/null && return
    local dependency
    for dependency in $(modinfo -F depends "$file" | tr ',' ' '); do add_module "$dependency"; done
    cp "$file" "$root/modules/"
    basename "$file" >>"$root/modules/order"
}
touch "$root/modules/order"
add_module vivid
cp "$kernel/v4l2loopback/v4l2loopback.ko" "$root/modules/"
cp -r models/demo "$root/models"
cp models/photos/0[123]-*.jpg "$root/photos/"
cp tests/vm/guest.sh "$root/init"
cp tests/vm/*.toml "$root/etc/"
echo "$*" >"$root/etc/scenarios"
echo "root:x:0:0::/:/bin/sh" >"$root/etc/passwd"
echo "mosquitto:x:100:100::/:/bin/sh" >>"$root/etc/passwd"
echo "root:x:0:" >"$root/etc/group"
echo "mosquitto:x:100:" >>"$root/etc/group"
echo "127.0.0.1 localhost" >"$root/etc/hosts"
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$cache/initramfs.gz"

log=$cache/console.log
echo "vm: booting (emulated, a few minutes); console in $log"
timeout --foreground 2400 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -M q35 \
    -nographic -no-reboot -nic none -device isa-debug-exit,iobase=0x501,iosize=1 \
    -kernel "$kernel/root/boot/vmlinuz-$release" -initrd "$cache/initramfs.gz" \
    -append "console=ttyS0 panic=-1 quiet" </dev/null >"$log" 2>&1 || true
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
