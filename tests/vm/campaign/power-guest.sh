#!/bin/busybox sh
# The init of the machine whose power is cut: the daemon on an ext4 disk, its broker outside.
# shellcheck shell=sh
/bin/busybox --install -s /bin
export PATH=/bin
# The firmware left half a line of control characters on the console.
echo
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /run /dev/shm /state
while read -r module; do insmod /modules/$module; done </modules/order
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
# broker=PORT, log=SERIAL-PORT, set=EPOCH (a clock that is set after a while), of the kernel's command line.
for word in $(cat /proc/cmdline); do
    case $word in
    broker=*) broker=${word#*=} ;;
    log=*) log=/dev/${word#*=} ;;
    set=*) epoch=${word#*=} ;;
    esac
done
mount -t ext4 /dev/vda /state || { echo "power: the disk cannot be mounted"; poweroff -f; }
. /campaign/config.sh
{
    write_config corrente /state/vedetta /bundle /photos
    printf '\n[mqtt]\nhost = "10.0.2.2"\nport = %s\nkeep_alive_s = 5\nhealth_every_s = 2\n' "$broker"
} >/etc/vedetta.toml
echo "power: starts" >"$log"
RUST_LOG_STYLE=never RUST_LOG=vedetta=info,vedetta::publish::publisher=debug \
    vedetta run --config /etc/vedetta.toml >"$log" 2>&1 &
daemon=$!
if [ -n "$epoch" ]; then
    sleep 10
    date -s "@$epoch" >/dev/null
fi
# Whoever wants a clean end says so through the broker.
mosquitto_sub -h 10.0.2.2 -p "$broker" -t campaign/stop -C 1 >/dev/null
kill -TERM $daemon
wait $daemon
echo "power: stopped with $?" >"$log"
umount /state
poweroff -f
