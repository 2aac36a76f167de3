#!/usr/bin/env bash
# Boots Debian with its real systemd in a virtual machine, installs the package there and checks what
# an owner of a board would: it starts, detects, survives, is upgraded and removed. Prints one line
# per check and a line of counts.
#
#   tests/vm/board.sh [--arch amd64|arm64] [--deb FILE] [SCENARIO…]      VM_ARCH=arm64 is --arch arm64
#
# Without SCENARIO all of board/guest.sh are run; without --deb a package of the development build is
# made, with the features VM_FEATURES, which must bring `docs` (train does); threads of the profile dev
# hang when they are told to.
# arm64 needs --deb of a package (cross/build, cross/deb). The root file system is kept under
# target/vm and never written to. Where tools cannot be had it prints that it skipped, and why, and
# exits 0.
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

arch=${VM_ARCH:-amd64} deb='' scenarios=()
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
    [cpio]=cpio [modinfo]=kmod [dpkg-deb]=dpkg [apt-cache]=apt [debootstrap]=debootstrap [mke2fs]=e2fsprogs
    [gcc-12]=gcc-12 [make]=make [zstd]=zstd
)
if [ "$arch" = arm64 ]; then
    package+=([qemu-system-aarch64]=qemu-system-arm [aarch64-linux-gnu-gcc-12]=gcc-12-aarch64-linux-gnu)
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
# shellcheck source=tests/vm/debian.sh
source tests/vm/debian.sh
fetch_kernel "$arch"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

first_stage "$arch" "$work/first.gz"
debian_machine "$arch"
debian_root "$arch"

payload=$work/payload
mkdir -p "$payload"/{modules,photos}
binaries=${CARGO_TARGET_DIR:-target}/debug
if [ "$arch" = amd64 ]; then
    # With the command that hangs a thread.
    cargo build --quiet --features "${VM_FEATURES:-docs}" --bin vedetta
    cp "$binaries/vedetta" "$payload/vedetta-faults"
    strip "$payload/vedetta-faults"
fi
if [ -n "$deb" ]; then
    touch "$payload/ships"
else
    development_package "$binaries/vedetta" "$work" \
        || { echo "vm: FAIL cross/deb"; echo "vm: 0 passed, 1 failed, 0 skipped"; exit 1; }
fi
cp "$deb" "$payload/vedetta.deb"
# The next version: another binary's bytes do not matter, another example and version do.
dpkg-deb -R "$deb" "$work/next"
sed -i 's/^Version: \(.*\)/Version: \1+next/' "$work/next/DEBIAN/control"
echo '# Of the next version.' >>"$work/next/etc/vedetta/vedetta.toml"
dpkg-deb --root-owner-group -Znone -b "$work/next" "$payload/next.deb" >/dev/null
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

log=$cache/board-$arch.log
echo "vm: booting Debian ($arch, emulated, some minutes); console in $log"
boot_debian "$work/first.gz" "$log" "systemd.show_status=0 systemd.mask=serial-getty@$console.service systemd.mask=mosquitto.service" \
    "file=$disk,snapshot=on" "file=$work/payload.ext4,readonly=on"
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
