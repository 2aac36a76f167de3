# Sourced by campaign.sh: Debian with systemd, the package installed as an owner does and a camera plugged in,
# whose power is cut.
# shellcheck shell=bash disable=SC2034,SC2154

cut_board() {
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    deb=${VM_DEB:-}
    [ -n "$deb" ] || development_package "$binaries/vedetta" "$root" || {
        echo "campaign: FAIL cross/deb"
        return
    }
    debian_root "$arch"
    debian_machine "$arch"
    power_title="the package on Debian with systemd and a V4L2 camera: power cut at random"
    power_initramfs=$cache/board-$arch.gz
    first_stage "$arch" "$power_initramfs" virtio_net
    power_append="net.ifnames=0 systemd.show_status=0 systemd.mask=serial-getty@$console.service systemd.mask=mosquitto.service"
    power_drives=(-drive "file=$root/payload.ext4,format=raw,if=virtio,readonly=on")
    (power "$cuts" board board_disk)
    rm -rf "$root"
}

# Debian as it came, and what the guest installs on its first boot.
board_disk() {
    cp --sparse=always "$disk" "$work/disk.raw"
    local payload=$root/payload
    mkdir -p "$payload/modules"
    cp "$deb" "$payload/vedetta.deb"
    cp tests/vm/campaign/board-guest.sh "$payload/guest.sh"
    chmod +x "$payload/guest.sh"
    "$vmtool" bundle "$payload/bundle"
    "$vmtool" photos "$payload/photos"
    copy_module videodev "$payload/modules"
    cp "$kernel/v4l2loopback/v4l2loopback.ko" "$payload/modules/"
    {
        # shellcheck source=tests/vm/campaign/config.sh
        (. tests/vm/campaign/config.sh && write_config corrente /var/lib/vedetta /run/payload/bundle /nowhere) \
            | sed 's#^replay = .*#device = "/dev/video9"\nfrozen_after_s = 86400#'
        printf '\n[mqtt]\nhost = "10.0.2.2"\nport = %s\nkeep_alive_s = 5\nhealth_every_s = 2\n' "$port"
    } >"$payload/vedetta.toml"
    mke2fs -q -t ext4 -d "$payload" "$root/payload.ext4" 300M >/dev/null 2>&1
}
