#!/bin/busybox sh
# The campaign machine's init: cameras, network, disks, clock and memory that fail, one after the other,
# under a daemon that has to survive. Prints `row: …` lines on the console.
# shellcheck shell=sh
/bin/busybox --install -s /bin
export PATH=/bin
# The firmware left half a line of control characters on the console.
echo
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /run /dev/shm /dev/v4l/by-id /cg /state /slow
mount -t cgroup2 cgroup /cg
ip link set lo up
while read -r module; do
    case $module in
    vivid.ko) insmod /modules/$module n_devs=1 node_types=0x1 num_inputs=1 input_types=0 no_error_inj=0 ;;
    *) insmod /modules/$module ;;
    esac
done </modules/order
echo '+memory' >/cg/cgroup.subtree_control

work=/tmp/campaign config=/tmp/campaign/vedetta.toml vedetta=/bin/vedetta vmtool=/bin/vmtool
place=VM first=0
mkdir -p $work
. /campaign/report.sh
. /campaign/config.sh
. /campaign/cameras.sh
. /campaign/network.sh
. /campaign/machine.sh

# The ear's door is never shut; the daemon has one of its own.
printf 'listener 1883 127.0.0.1\nlistener 1884 127.0.0.1\nallow_anonymous true\nmax_queued_messages 1000000\nmax_inflight_messages 0\nuser root\n' >/etc/mosquitto.conf
mosquitto -c /etc/mosquitto.conf >/tmp/mosquitto.log 2>&1 &
until_true 60 mosquitto_pub -h 127.0.0.1 -t campaign/up -n 2>/dev/null
mosquitto_sub -h 127.0.0.1 -i campaign-ear -c -q 1 -t 'vedetta/#' -F '%t %p' >"$heard" 2>/tmp/sub.log &

# Processors are emulated and shared: the ear's own connection, too, may be slow.
vmtool bundle $work/bundle
vmtool photos $work/photos
head -c 60000 /dev/urandom >$work/garbage.jpg
mount -t ext4 /dev/vda /state
plug_loopback 9,10
write_all() {
    {
        write_config campagna "$1" $work/bundle $work/photos
        write_cameras
        printf '\n[mqtt]\nhost = "127.0.0.1"\nport = 1884\nkeep_alive_s = 5\nhealth_every_s = 1\n'
    } >$config
}
write_all /state/vedetta
mark
start
if until_true 300 told 'zone/barra/rosso/state ON' && until_true 60 told 'zone/due/verde/state ON'; then
    for fault in $(cat /etc/faults); do
        "$fault"
        alive
    done
    unreported
    name="the end"
    stop || complain "exit code $?"
    close_books 60
else
    echo "campaign: FAIL the daemon does not see its cameras"
    tail -n 20 $work/log
    cut -c1-150 "$heard" | tail -n 30
fi
echo "campaign: done"
sync
printf '\000' | dd of=/dev/port bs=1 seek=1281 count=1 conv=notrunc 2>/dev/null
poweroff -f
