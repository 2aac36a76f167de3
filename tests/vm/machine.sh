# Sourced by run.sh and campaign.sh, from the repository's root: the root file system and the tools of the
# virtual machines, and through kernel.sh their kernel. `skip` is called where something cannot be had.
# VM_ARCH=arm64 makes machines of another architecture than this one's; VM_VEDETTA is the daemon in them.
# shellcheck shell=bash

arch=${VM_ARCH:-amd64}

cache=${CARGO_TARGET_DIR:-target}/vm
mkdir -p "$cache"
cache=$(realpath "$cache")
PATH=$PATH:/usr/sbin:/sbin

skip() {
    echo "vm: SKIPPED: $1"
    echo "vm: 0 passed, 0 failed, 1 skipped"
    exit 0
}

# shellcheck source=tests/vm/kernel.sh
. tests/vm/kernel.sh

# need TOOL=PACKAGE…: installs what is missing, where that is allowed.
need() {
    local missing=() pair
    [ "$(uname -m)" = x86_64 ] || skip "these scripts have only been made for x86-64 machines"
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "vm: installing ${missing[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends "${missing[@]}"; } >"$cache/apt.log" 2>&1 \
            || skip "apt-get could not install ${missing[*]}: see $cache/apt.log"
    else
        skip "missing tools; install them with: sudo apt-get install ${missing[*]}"
    fi
}

machine_tools=(cpio=cpio modinfo=kmod dpkg=dpkg apt-cache=apt
    mosquitto=mosquitto mosquitto_sub=mosquitto-clients gcc-12=gcc-12 make=make)
case $arch in
amd64) machine_tools+=(qemu-system-x86_64=qemu-system-x86) ;;
arm64) machine_tools+=(qemu-system-aarch64=qemu-system-arm aarch64-linux-gnu-gcc-12=gcc-12-aarch64-linux-gnu) ;;
*) skip "VM_ARCH=$arch is neither amd64 nor arm64" ;;
esac

# The same features as the tests were built with, where .ci/run says so: one build serves both.
# VM_BINARIES names a folder of programs that are there already.
build_programs() {
    binaries=${VM_BINARIES:-}
    [ -z "$binaries" ] || return 0
    cargo build --quiet ${VM_FEATURES:+--features "$VM_FEATURES"} --bin vedetta --example vmtool
    binaries=${CARGO_TARGET_DIR:-target}/debug
}

copy_program() {
    install -D "$1" "$root/bin/$(basename "$1")"
    [ "$arch" = amd64 ] || return 0
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D "$library" "$root$library"
    done
}

# fetch_programs PACKAGE: sets `foreign`, a folder with Debian's PACKAGE for another architecture and all
# that it needs.
fetch_programs() {
    local names deb
    foreign=$cache/$1-$arch
    [ ! -e "$foreign/ready" ] || return 0
    rm -rf "$foreign" && mkdir -p "$foreign/debs"
    names=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "$1:$arch" | grep "^[a-z].*:$arch")
    # Unquoted: many names.
    (cd "$foreign/debs" && apt-get download -q $names) >"$cache/fetch.log" 2>&1 \
        || skip "apt-get could not fetch $1 for $arch: see $cache/fetch.log"
    for deb in "$foreign"/debs/*.deb; do dpkg -x "$deb" "$foreign"; done
    rm -rf "$foreign/debs" "$foreign"/usr/lib/*/gconv
    touch "$foreign/ready"
}

# begin_root PROGRAM…: a root file system, an initramfs to be, with busybox, the daemon and PROGRAMs. On
# another architecture the libraries are those of `fetch_programs`.
begin_root() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root"/{bin,dev,etc,lib,lib64,modules,proc,sys,tmp,usr,var/lib/vedetta,photos}
    fetch_busybox "$arch"
    cp "$busybox" "$root/bin/busybox"
    local program
    for program in "$@" "${VM_VEDETTA:-$binaries/vedetta}"; do copy_program "$program"; done
    if [ "$arch" = amd64 ]; then
        copy_program "$binaries/examples/vmtool"
        strip "$root/bin/vedetta" "$root/bin/vmtool"
    else
        cp -a "$foreign/lib/." "$root/lib"
        mkdir -p "$root/usr/lib" && cp -a "$foreign/usr/lib/." "$root/usr/lib"
    fi
    : >"$root/modules/order"
    printf 'root:x:0:0::/:/bin/sh\nmosquitto:x:100:100::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nmosquitto:x:100:\n' >"$root/etc/group"
    echo "127.0.0.1 localhost" >"$root/etc/hosts"
}

pack_root() {
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$1"
}

# machine INITRAMFS APPEND ARGUMENT…: the command that runs a machine until it ends.
# no_timer_check: on a busy host the emulated timer fails a test that makes the kernel give up.
machine() {
    local initramfs=$1 append=$2
    shift 2
    local board=(qemu-system-x86_64 -cpu max -M q35 -device "isa-debug-exit,iobase=0x501,iosize=1") console=ttyS0
    [ "$arch" = amd64 ] || { board=(qemu-system-aarch64 -cpu cortex-a76 -M "virt,gic-version=3") && console=ttyAMA0; }
    machine_command=("${board[@]}" -accel "tcg,thread=multi" -smp 2 -m 2048 -no-reboot
        -kernel "$kernel/root/boot/vmlinuz-$release" -initrd "$initramfs"
        -append "console=$console panic=-1 quiet no_timer_check $append" "$@")
}

# second_serial FILE: sets `serial`, qemu's arguments for a port besides the console, and `serial_port`, its
# name in the machine. The console's own arguments come first.
second_serial() {
    # shellcheck disable=SC2034
    case $arch in
    amd64) serial=(-serial "file:$1") serial_port=ttyS1 ;;
    arm64) serial=(-chardev "file,id=second,path=$1" -device "pci-serial,chardev=second") serial_port=ttyS0 ;;
    esac
}
