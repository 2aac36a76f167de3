#!/usr/bin/env bash
# The survival campaign: every fault that a board meets, under a daemon with a real broker and a
# subscriber that does the books. Its product is a table (in target/vm/campaign.md): what was observed,
# how long it took to recover, how many events were lost (none may be) and came twice (they may).
#
#   tests/vm/campaign.sh              everything; fifty power cuts (about two hours)
#   tests/vm/campaign.sh short        what CI runs
#   tests/vm/campaign.sh PART…        native, machine, power, board
#
# The part board, which the others are without, cuts the power of a Debian with systemd, the package and a
# V4L2 camera: VM_DEB=FILE, or a package of the development build (as root; with VM_FEATURES=train; an hour).
# CUTS=10 changes the number of power cuts; CAMPAIGN_FAULTS="garbage hour" names some of a part's faults;
# VM_BINARIES names a folder with built programs. VM_ARCH=arm64 VM_VEDETTA=FILE (for the part board VM_DEB)
# cuts the power of a machine of that architecture, with the daemon that cross/build made; the other parts
# are for this machine's.
# What needs a machine of its own (cameras, network, disks, clock, power) is emulated by qemu.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/machine.sh
. tests/vm/machine.sh

short=no kills=30 cuts=${CUTS:-50} parts=(native machine power)
faults="unplugged stalled garbage wrong_format swapped unreachable slow_network disk_full disk_read_only
disk_slow clock_jumps memory_limit hour"
broker_faults="broker_killed broker_restarted broker_frozen broker_refuses password_changed
certificate_expired daemon_killed load_on_replay commands_in_a_burst giant_payloads thermal_throttling
stopped_and_started"
if [ "${1:-}" = short ]; then
    short=yes kills=5 cuts=2
    faults="unplugged garbage disk_full clock_jumps"
    broker_faults="broker_killed certificate_expired daemon_killed stopped_and_started"
    shift
fi
[ $# = 0 ] || parts=("$@")

if [ "$arch" = arm64 ]; then
    case "${parts[*]}" in
    power) [ -e "${VM_VEDETTA:-}" ] || skip "VM_ARCH=arm64 needs VM_VEDETTA, which cross/build makes" ;;
    board) [ -e "${VM_DEB:-}" ] || skip "VM_ARCH=arm64 needs VM_DEB, which cross/deb makes" ;;
    *) skip "VM_ARCH=arm64: only the parts power and board are made for it" ;;
    esac
fi
case " ${parts[*]} " in
*" board "*)
    [ "$(id -u)" = 0 ] || skip "the root file system is made as root: sudo $0"
    need debootstrap=debootstrap mke2fs=e2fsprogs zstd=zstd
    ;;
esac
need "${machine_tools[@]}" nft=nftables tc=iproute2 mkfs.ext4=e2fsprogs qemu-img=qemu-utils \
    openssl=openssl jq=jq faketime=faketime
fetch_kernel "$arch"
build_programs
begun=$SECONDS
table=$cache/campaign.md log=$cache/campaign.log
: >"$log"

native() {
    rm -rf "$cache/native"
    tests/vm/campaign/broker.sh "$(realpath "$binaries/vedetta")" "$(realpath "$binaries/examples/vmtool")" \
        "$cache/native" "$kills" $broker_faults || echo "campaign: FAIL the native part ended early"
}

machine_root() {
    mkdir -p "$root/campaign"
    cp tests/vm/campaign/*.sh "$root/campaign/"
    cp "tests/vm/campaign/$1" "$root/init"
}

faults() {
    begin_root "$(command -v mosquitto)" "$(command -v mosquitto_sub)" "$(command -v mosquitto_pub)" \
        "$(command -v nft)" "$(command -v tc)"
    local module
    for module in vivid virtio_pci virtio_blk ext4 crc32c_generic nf_tables sch_netem; do copy_module "$module" "$root/modules"; done
    cp "$kernel/v4l2loopback/v4l2loopback.ko" "$root/modules/"
    cp "$(dpkg -L libfaketime | grep 'libfaketimeMT.so.1$')" "$root/lib/libfaketime.so"
    echo "$faults" >"$root/etc/faults"
    machine_root guest.sh
    pack_root "$cache/campaign.gz"
    rm -f "$cache"/state.raw "$cache"/slow.raw
    truncate -s 16M "$cache/state.raw" && mkfs.ext4 -q -F "$cache/state.raw"
    truncate -s 16M "$cache/slow.raw" && mkfs.ext4 -q -F "$cache/slow.raw"
    machine "$cache/campaign.gz" "" -nographic -nic none \
        -drive "file=$cache/state.raw,if=virtio,format=raw" \
        -drive "file=$cache/slow.raw,if=virtio,format=raw,throttling.iops-write=2"
    timeout --foreground 5400 "${machine_command[@]}" </dev/null 2>&1 | tee "$cache/campaign-console.log" | sed -u 's/\r$//' || true
    grep -q '^campaign: done' "$cache/campaign-console.log" || echo "campaign: FAIL the machine did not finish"
    rm -rf "$root"
}

cut_power() {
    if [ "$arch" = amd64 ]; then
        begin_root "$(command -v mosquitto_sub)"
    else
        fetch_programs mosquitto-clients
        begin_root "$foreign/usr/bin/mosquitto_sub"
    fi
    local module
    for module in virtio_pci virtio_blk virtio_net ext4 crc32c_generic; do copy_module "$module" "$root/modules"; done
    "$binaries/examples/vmtool" bundle "$root/bundle"
    "$binaries/examples/vmtool" photos "$root/photos"
    machine_root power-guest.sh
    pack_root "$cache/power-$arch.gz"
    rm -rf "$root"
    power_title="power cut at random" power_initramfs=$cache/power-$arch.gz power_append='' power_drives=()
    (power "$cuts" bare small_disk)
}
# shellcheck source=tests/vm/campaign/power.sh
. tests/vm/campaign/power.sh
# shellcheck source=tests/vm/debian.sh
. tests/vm/debian.sh
# shellcheck source=tests/vm/campaign/board.sh
. tests/vm/campaign/board.sh

if [ -n "${CAMPAIGN_FAULTS:-}" ]; then
    faults=$CAMPAIGN_FAULTS broker_faults=$CAMPAIGN_FAULTS
fi
part() {
    echo "campaign: $1"
    case $1 in
    native) native ;;
    machine) faults ;;
    power) cut_power ;;
    board) cut_board ;;
    *) echo "campaign: FAIL no part $1" ;;
    esac
}
# In the short form the native part, which mostly waits, runs beside the others.
{
    for part in "${parts[@]}"; do
        if [ "$short" = yes ] && [ "$part" = native ]; then
            part native >"$cache/native.log" 2>&1 &
            beside=$!
        else
            part "$part"
        fi
    done
    [ -z "${beside:-}" ] || { wait "$beside" || true; cat "$cache/native.log"; }
} 2>&1 | tee "$log" | grep --line-buffered -v '^row: '

minutes=$(((SECONDS - begun + 59) / 60))
{
    echo "On $(nproc) × $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), virtual machines emulated (qemu, TCG), \
$(mosquitto -h | head -n 1 | grep -o 'mosquitto version [0-9.]*'), kernel $release; $minutes minutes. Lost must be 0; what came"
    echo "twice has the same id, type and sequence. Times count from the end of the fault until everything that was"
    printf 'stored had arrived.\n\n'
    printf '| fault | where | observed | recovered after, s | events (delayed) | lost | twice |\n|---|---|---|---:|---:|---:|---:|\n'
    sed -n 's/^row: //p' "$log"
} >"$table"
cat "$table"
passed=$(grep -c '^campaign: ok ' "$log" || true)
failed=$(grep -c '^campaign: FAIL' "$log" || true)
echo "campaign: the table is in $table; $((SECONDS - begun)) s"
echo "campaign: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
