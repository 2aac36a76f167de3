#!/usr/bin/env bash
# Boots Debian with its real systemd in a virtual machine, installs the package there and checks what
# an owner of a board would: it starts, detects, survives, is upgraded and removed. Prints one line
# per check and a line of counts.
#
#   tests/vm/board.sh [--arch amd64|arm64] [--deb FILE] [SCENARIO…]
#
# Without SCENARIO all of board/guest.sh are run; without --deb a package of the development build is
# made. arm64 needs --deb of such a package (cross/build, cross/deb). The root file system is kept
# under target/vm and never written to. Where tools cannot be had it prints that it skipped, and why,
# and exits 0.
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

arch=amd64 deb='' scenarios=()
while [ $# -gt 0 ]; do
    case $1 in
    --arch) arch=$2; shift 2 ;;
    --deb) deb=$(realpath "$2"); shift 2 ;;
    --*) echo "board: unknown option $1; see the top of $0" >&2; exit 2 ;;
    *) scenarios+=("$1"); shift ;;
    esac
done
[ "$arch" = amd64 ] || [ -n "$deb" ] || skip "--arch $arch needs --deb FILE, which cross/build and cross/deb make"

declare -A package=(
    [cpio]=cpio [modinfo]=kmod [dpkg-deb]=dpkg [apt-cache]=apt [mmdebstrap]=mmdebstrap [mke2fs]=e2fsprogs
    [gcc-12]=gcc-12 [make]=make [zstd]=zstd
)
if [ "$arch" = arm64 ]; then
    package+=([qemu-system-aarch64]=qemu-system-arm [aarch64-linux-gnu-gcc-12]=gcc-12-aarch64-linux-gnu
        [qemu-aarch64-static]=qemu-user-static)
else
    package+=([qemu-system-x86_64]=qemu-system-x86)
fi
PATH=$PATH:/usr/sbin:/sbin
missing=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ "$(uname -m)" = x86_64 ] || skip "this script has only been made for x86-64 machines"
[ "$(id -u)" = 0 ] || skip "the root file system is made as root: sudo tests/vm/board.sh"
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || skip "missing tools: ${missing[*]}"
    echo "vm: installing ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends "${missing[@]}"; } >"$cache/apt.log" 2>&1 \
        || skip "apt-get could not install ${missing[*]}: see $cache/apt.log"
fi
# shellcheck source=tests/vm/kernel.sh
source tests/vm/kernel.sh
fetch_kernel "$arch"

# Debian as it comes: the smallest root, systemd, and the broker that stands for the one in the shop.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
disk=$cache/debian-$codename-$arch.ext4
if [ ! -e "$disk" ]; then
    echo "vm: making a Debian root ($codename, $arch)"
    mmdebstrap --quiet --variant=minbase --mode=root --architectures="$arch" \
        --include=systemd,systemd-sysv,udev,kmod,dbus,mosquitto,mosquitto-clients \
        --customize-hook='rm -f "$1"/etc/machine-id && systemd-id128 new >"$1"/etc/machine-id' \
        --customize-hook='chroot "$1" systemctl disable --quiet mosquitto.service' \
        --customize-hook='echo vm >"$1"/etc/hostname && echo "127.0.0.1 localhost vm" >"$1"/etc/hosts' \
        "$codename" "$cache/root.tar" >"$cache/mmdebstrap.log" 2>&1 \
        || skip "mmdebstrap could not make a root: see $cache/mmdebstrap.log"
    unpacked=$(mktemp -d -p "$cache")
    tar -x -C "$unpacked" -f "$cache/root.tar"
    mke2fs -q -t ext4 -E lazy_itable_init=1 -d "$unpacked" "$disk.new" 1500M
    rm -rf "$unpacked" "$cache/root.tar"
    mv "$disk.new" "$disk"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
payload=$work/payload
mkdir -p "$payload"/{modules,photos}
binaries=${CARGO_TARGET_DIR:-target}/debug
if [ "$arch" = amd64 ]; then
    cargo build --quiet ${VM_FEATURES:+--features "$VM_FEATURES"} --example vmtool
    cp "$binaries/examples/vmtool" "$payload/"
    # With the command that hangs a thread; only the scenarios that need it run this binary.
    cargo build --quiet --features "${VM_FEATURES:+$VM_FEATURES,}faults" --bin vedetta
    cp "$binaries/vedetta" "$payload/vedetta-faults"
    if [ -z "$deb" ]; then
        cargo build --quiet ${VM_FEATURES:+--features "$VM_FEATURES"} --bin vedetta
        cross/deb --binary "$binaries/vedetta" ${VM_FEATURES:+--generator "$binaries/vedetta"} -o "$work" >"$cache/deb.log" 2>&1 \
            || { cat "$cache/deb.log"; echo "vm: FAIL cross/deb"; exit 1; }
        deb=$(echo "$work"/*.deb)
    fi
    strip "$payload/vmtool" "$payload/vedetta-faults"
fi
cp "$deb" "$payload/vedetta.deb"
# The next version: another binary's bytes do not matter, another example and version do.
dpkg-deb -R "$deb" "$work/next"
sed -i 's/^Version: \(.*\)/Version: \1+next/' "$work/next/DEBIAN/control"
echo '# Of the next version.' >>"$work/next/etc/vedetta/vedetta.toml"
dpkg-deb --root-owner-group -Zgzip -z1 -b "$work/next" "$payload/next.deb" >/dev/null
# Another bundle: the demo under another version.
cp -r models/demo "$work/bundle"
sed -i 's/^version = .*/version = "9.9.9"/' "$work/bundle/bundle.toml"
tar -C "$work/bundle" --use-compress-program='zstd -q -1' -cf "$payload/bundle.tar.zst" bundle.toml LICENSES.md tokenizer.json image.onnx text.onnx
cp models/photos/0[12]-*.jpg "$payload/photos/"
cp tests/vm/board/*.{sh,toml} "$payload/"
chmod +x "$payload"/*.sh
[ ${#scenarios[@]} = 0 ] || echo "${scenarios[*]}" >"$payload/scenarios"
copy_module videodev "$payload/modules"
cp "$kernel/v4l2loopback/v4l2loopback.ko" "$payload/modules/"
mke2fs -q -t ext4 -d "$payload" "$work/payload.ext4" 400M

# A small first stage that mounts both disks and hands over to systemd.
busybox=$cache/busybox-$arch
if [ ! -e "$busybox" ]; then
    (cd "$work" && apt-get download -q "busybox-static:$arch") >"$cache/fetch.log" 2>&1 \
        || skip "apt-get could not fetch busybox-static: see $cache/fetch.log"
    dpkg -x "$work"/busybox-static_*.deb "$work/busybox" && cp "$work/busybox/bin/busybox" "$busybox"
fi
first=$work/first
mkdir -p "$first"/{bin,dev,proc,sys,root,modules}
cp "$busybox" "$first/bin/busybox"
for module in virtio_pci virtio_blk crc32c_generic ext4; do copy_module "$module" "$first/modules"; done
cp tests/vm/board/init "$first/init"
chmod +x "$first/init"
(cd "$first" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/first.gz"

log=$cache/board-$arch.log
case $arch in
amd64) machine=(qemu-system-x86_64 -M q35 -cpu "${VM_CPU:-max}") console=ttyS0 ;;
arm64) machine=(qemu-system-aarch64 -M virt,gic-version=3 -cpu "${VM_CPU:-cortex-a76}") console=ttyAMA0 ;;
esac
echo "vm: booting Debian $codename $arch (emulated, some minutes); console in $log"
timeout --foreground "${VM_TIMEOUT_S:-3600}" "${machine[@]}" -accel tcg,thread=multi -smp 2 -m 2048 \
    -nographic -no-reboot -nic none -kernel "$kernel/root/boot/vmlinuz-$release" -initrd "$work/first.gz" \
    -drive "file=$disk,format=raw,if=virtio,snapshot=on" \
    -drive "file=$work/payload.ext4,format=raw,if=virtio,readonly=on" \
    -append "console=$console panic=-1 quiet systemd.show_status=0 systemd.mask=serial-getty@$console.service" \
    </dev/null >"$log" 2>&1 || true
sed -n 's/\r$//; /^vm: /p' "$log"
passed=$(grep -c '^vm: ok ' "$log" || true)
failed=$(grep -c '^vm: FAIL ' "$log" || true)
skipped=$(grep -c '^vm: SKIPPED ' "$log" || true)
if ! grep -q '^vm: done' "$log"; then
    echo "vm: FAIL the machine did not finish; the end of its console:"
    tail -n 40 "$log"
    failed=$((failed + 1))
fi
echo "vm: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
