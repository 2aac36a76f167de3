#!/bin/bash
# Runs in Debian at every boot, as a service. The first time it installs the package, as an owner does; from
# then on the board starts by itself, and this only plugs the camera in.
P=/run/payload
export LC_ALL=C.UTF-8
# broker=PORT, log=SERIAL-PORT, of the kernel's command line.
for word in $(cat /proc/cmdline); do
    case $word in
    broker=*) broker=${word#*=} ;;
    log=*) log=/dev/${word#*=} ;;
    esac
done
if [ ! -e /etc/systemd/system/vedetta.service.d/books.conf ]; then
    dpkg -i "$P/vedetta.deb" >/run/dpkg.log 2>&1 || { cat /run/dpkg.log >"$log"; exit 1; }
    cp "$P/vedetta.toml" /etc/vedetta/vedetta.toml
    mkdir -p /etc/systemd/system/vedetta.service.d
    printf '[Service]\nEnvironment=RUST_LOG_STYLE=never RUST_LOG=vedetta=info,vedetta::publish::publisher=debug\nStandardError=file:%s\nDeviceAllow=%s rw\n' \
        "$log" "$log" >/etc/systemd/system/vedetta.service.d/books.conf
    sync
    systemctl daemon-reload
    systemctl start vedetta || systemctl status vedetta >"$log"
fi
while read -r module; do insmod "$P/modules/$module"; done <"$P/modules/order"
insmod "$P/modules/v4l2loopback.ko" video_nr=9 card_label=loopback exclusive_caps=1 max_buffers=4
# Every picture half a second: each is an event's end and another one's beginning.
feed() {
    exec 3>/dev/video9
    v4l2-ctl -d /dev/video9 --set-fmt-video-out=width=640,height=480,pixelformat=MJPG || exit 1
    while true; do
        for photo in "$P"/photos/*.jpg; do
            for _ in 1 2 3; do
                dd bs=1M if="$photo" status=none >&3 || exit 1
                sleep 0.2
            done
        done
    done
}
feed 2>/run/feed.log &
echo "power: starts" >"$log"
# Whoever wants a clean end says so through the broker.
until mosquitto_sub -h 10.0.2.2 -p "$broker" -t campaign/stop -C 1 >/dev/null 2>&1; do sleep 1; done
systemctl stop vedetta
echo "power: stopped with $(systemctl show -P ExecMainStatus vedetta)" >"$log"
sync
systemctl poweroff -ff
