# shellcheck shell=bash disable=SC2154
# Debian's kernel for a virtual machine, unpacked beside the build and never installed, with the
# v4l2loopback module built for it. Sourced by the scripts that boot one, which set `cache` and
# define `skip REASON`.

# fetch_kernel amd64|arm64: sets `kernel` (the folder with root/boot/vmlinuz-… and the modules) and
# `release`.
fetch_kernel() {
    local architecture=$1 suffix kbuild headers make=(make -s)
    [ "$architecture" = "$(dpkg --print-architecture)" ] && suffix= || suffix=:$architecture
    if [ -n "$suffix" ] && [ "$(id -u)" = 0 ] && ! dpkg --print-foreign-architectures | grep -qx "$architecture"; then
        dpkg --add-architecture "$architecture"
        apt-get update -qq || skip "apt-get does not know $architecture"
    fi
    release=$(apt-cache depends "linux-image-$architecture$suffix" 2>/dev/null \
        | sed -n "s/.*Depends: linux-image-\(.*-$architecture\)\(:.*\)\?$/\1/p" | head -n 1)
    [ -n "$release" ] || skip "this distribution has no linux-image-$architecture package"
    kernel=$cache/$release
    [ ! -e "$kernel/ready" ] || return 0
    echo "vm: fetching the kernel $release"
    rm -rf "$kernel" && mkdir -p "$kernel/debs" "$kernel/root"
    # The build tools are programs of this machine, whatever the kernel is for.
    kbuild=$(apt-cache depends "linux-headers-$release$suffix" | sed -n 's/.*Depends: \(linux-kbuild-[^:]*\).*$/\1/p' | head -n 1)
    (cd "$kernel/debs" && apt-get download -q "linux-image-$release$suffix" "linux-headers-$release$suffix" \
        "linux-headers-${release%-"$architecture"}-common" "$kbuild" v4l2loopback-dkms) >"$cache/fetch.log" 2>&1 \
        || skip "apt-get could not fetch the kernel: see $cache/fetch.log"
    for deb in "$kernel"/debs/*.deb; do dpkg -x "$deb" "$kernel/root"; done
    headers=$kernel/root/usr/src/linux-headers-$release
    sed -i "s#/usr/src/#$kernel/root/usr/src/#" "$headers/Makefile"
    cp -r "$kernel"/root/usr/src/v4l2loopback-* "$kernel/v4l2loopback"
    if [ "$architecture" = arm64 ] && [ -n "$suffix" ]; then
        make+=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu- CC=aarch64-linux-gnu-gcc-12)
    fi
    "${make[@]}" -C "$headers" M="$kernel/v4l2loopback" KERNELRELEASE="$release" modules >"$cache/module.log" 2>&1 \
        || skip "v4l2loopback did not build: see $cache/module.log"
    rm -rf "$kernel/debs"
    touch "$kernel/ready"
}

# fetch_busybox ARCHITECTURE: sets `busybox`, a static one for the first process of a machine.
fetch_busybox() {
    local folder
    busybox=$cache/busybox-$1
    [ ! -e "$busybox" ] || return 0
    folder=$(mktemp -d)
    (cd "$folder" && apt-get download -q "busybox-static:$1") >"$cache/fetch.log" 2>&1 \
        || skip "apt-get could not fetch busybox-static: see $cache/fetch.log"
    dpkg -x "$folder"/busybox-static_*.deb "$folder/root" && cp "$folder/root/bin/busybox" "$busybox"
    rm -rf "$folder"
}

# copy_module NAME FOLDER: the module and what it needs, in the order of loading in FOLDER/order.
# What is built into the kernel needs no file.
copy_module() {
    local name=$1 folder=$2 file dependency
    local modules=$kernel/root/lib/modules/$release
    file=$(find "$modules/kernel" -name "$name.ko" | head -n 1)
    [ -n "$file" ] || file=$(find "$modules/kernel" -name "${name//_/-}.ko" | head -n 1)
    if [ -z "$file" ]; then
        grep -qE "/(${name}|${name//_/-})\.ko$" "$modules/modules.builtin" && return 0
        echo "vm: no module $name in $release" >&2
        return 1
    fi
    grep -qxF "$(basename "$file")" "$folder/order" 2>/dev/null && return 0
    for dependency in $(modinfo -F depends "$file" | tr ',' ' '); do
        copy_module "$dependency" "$folder" || return 1
    done
    cp "$file" "$folder/"
    basename "$file" >>"$folder/order"
}
