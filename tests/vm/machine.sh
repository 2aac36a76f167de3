# Sourced by run.sh and campaign.sh, from the repository's root: the root file system and the tools of the
# virtual machines, and through kernel.sh their kernel. `skip` is called where something cannot be had.
# shellcheck shell=bash

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
    [ "$(uname -m)" = x86_64 ] || skip "the virtual machine is x86-64 and so must this one be"
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

machine_tools=(qemu-system-x86_64=qemu-system-x86 cpio=cpio modinfo=kmod dpkg=dpkg apt-cache=apt
    mosquitto=mosquitto mosquitto_sub=mosquitto-clients gcc-12=gcc-12 make=make busybox=busybox-static)

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
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        [ -e "$root$library" ] || install -D "$library" "$root$library"
    done
}

# begin_root PROGRAM…: a root file system, an initramfs to be, with busybox, the daemon and PROGRAMs.
begin_root() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir -p "$root"/{bin,dev,etc,lib,lib64,modules,proc,sys,tmp,usr,var/lib/vedetta,photos}
    cp "$(command -v busybox)" "$root/bin/busybox"
    local program
    for program in "$@" "$binaries/vedetta" "$binaries/examples/vmtool"; do copy_program "$program"; done
    strip "$root/bin/vedetta" "$root/bin/vmtool"
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
    machine_command=(qemu-system-x86_64 -accel "tcg,thread=multi" -cpu max -smp 2 -m 2048
        -M q35 -no-reboot -device "isa-debug-exit,iobase=0x501,iosize=1"
        -kernel "$kernel/root/boot/vmlinuz-$release" -initrd "$initramfs"
        -append "console=ttyS0 panic=-1 quiet no_timer_check $append" "$@")
}
