# Sourced after kernel.sh: Debian with its real systemd as a virtual machine has it. Sets nothing before its
# functions are called; `cache`, `kernel`, `release` and `skip` are there.
# shellcheck shell=bash disable=SC2034,SC2154

# first_stage ARCHITECTURE FILE MODULE…: a small initramfs that mounts both disks and hands over to systemd.
first_stage() {
    local folder module file=$2
    folder=$(mktemp -d)
    fetch_busybox "$1"
    shift 2
    mkdir -p "$folder"/{bin,dev,proc,sys,root,modules}
    cp "$busybox" "$folder/bin/busybox"
    for module in virtio_pci virtio_blk crc32c_generic ext4 "$@"; do copy_module "$module" "$folder/modules"; done
    cp tests/vm/board/init "$folder/init"
    chmod +x "$folder/init"
    (cd "$folder" && find . | cpio --quiet -o -H newc | gzip -1) >"$file"
    rm -rf "$folder"
}

# debian_machine ARCHITECTURE: sets `debian_machine` and `console`.
debian_machine() {
    case $1 in
    amd64) debian_machine=(qemu-system-x86_64 -M q35 -cpu "${VM_CPU:-max}") console=ttyS0 ;;
    arm64) debian_machine=(qemu-system-aarch64 -M "virt,gic-version=3" -cpu "${VM_CPU:-cortex-a76}") console=ttyAMA0 ;;
    esac
}

# boot_debian FIRST-STAGE LOG APPEND DRIVE…: until it ends.
boot_debian() {
    local first=$1 log=$2 append=$3 drives=() drive
    shift 3
    for drive in "$@"; do drives+=(-drive "format=raw,if=virtio,$drive"); done
    timeout --foreground "${VM_TIMEOUT_S:-3600}" "${debian_machine[@]}" -accel tcg,thread=multi -smp 2 -m 2048 \
        -nographic -no-reboot -nic none -kernel "$kernel/root/boot/vmlinuz-$release" -initrd "$first" \
        "${drives[@]}" -append "console=$console panic=-1 quiet $append" </dev/null >"$log" 2>&1 || true
}

# debian_root ARCHITECTURE: sets `disk`, the smallest root with systemd, and the broker that stands for the
# one in the shop. It is made once and never written to. A foreign one is unpacked here and configures
# itself in the virtual machine.
debian_root() {
    local arch=$1 codename packages mirror foreign=() work mountpoint
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    packages=systemd,systemd-sysv,udev,kmod,dbus,mosquitto,mosquitto-clients,v4l-utils
    disk=$cache/debian-$codename-$arch-$(cksum <<<"$packages" | cut -d' ' -f1).ext4
    [ ! -e "$disk" ] || return 0
    echo "vm: making a Debian root ($codename, $arch)"
    work=$(mktemp -d)
    # Where this machine's own packages come from.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    [ "$arch" = "$(dpkg --print-architecture)" ] || foreign=(--foreign)
    debootstrap --variant=minbase --arch="$arch" "${foreign[@]}" \
        --include="$packages" \
        "$codename" "$work/root" "$mirror" >"$cache/debootstrap.log" 2>&1 \
        || skip "debootstrap could not make a root: see $cache/debootstrap.log"
    rm -f "$work/root/etc/machine-id" && systemd-id128 new >"$work/root/etc/machine-id"
    echo vm >"$work/root/etc/hostname"
    echo "127.0.0.1 localhost vm" >"$work/root/etc/hosts"
    rm -f "$disk.new"
    # In some containers debootstrap links these to the machine's own.
    for mountpoint in proc sys dev; do
        [ ! -L "$work/root/$mountpoint" ] || { rm "$work/root/$mountpoint" && mkdir "$work/root/$mountpoint"; }
    done
    if [ -d "$work/root/debootstrap" ]; then
        cp tests/vm/board/second-stage "$work/root/second-stage"
        chmod +x "$work/root/second-stage"
    fi
    mke2fs -q -t ext4 -E lazy_itable_init=1 -d "$work/root" "$disk.new" 1500M
    if [ -d "$work/root/debootstrap" ]; then
        echo "vm: it configures itself (emulated, some minutes); console in $cache/second-stage.log"
        first_stage "$arch" "$work/first.gz"
        debian_machine "$arch"
        boot_debian "$work/first.gz" "$cache/second-stage.log" init=/second-stage "file=$disk.new,cache=unsafe"
        grep -q '^vm: configured' "$cache/second-stage.log" || skip "the root did not configure itself: see $cache/second-stage.log"
    fi
    rm -rf "$work"
    mv "$disk.new" "$disk"
}

# development_package PROGRAM FOLDER: sets `deb`, a package of a development build.
development_package() {
    DEB_COMPRESSION=none cross/deb --binary "$1" --generator "$1" -o "$2" >"$cache/deb.log" 2>&1 || {
        cat "$cache/deb.log"
        return 1
    }
    deb=$(echo "$2"/vedetta_*.deb)
}
