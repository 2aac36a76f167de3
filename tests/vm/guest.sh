#!/bin/busybox sh
# The virtual machine's init: loads the modules, runs the scenarios, prints `vm: ok|FAIL NAME`.
/bin/busybox --install -s /bin
export PATH=/bin
# The firmware left half a line of control characters on the console.
echo
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /run /dev/shm
ip link set lo up
while read -r module; do
    case $module in
    vivid.ko) insmod /modules/$module n_devs=1 node_types=0x1 num_inputs=1 input_types=0 no_error_inj=0 ;;
    *) insmod /modules/$module ;;
    esac
done </modules/order
insmod /modules/v4l2loopback.ko video_nr=9 card_label=loopback exclusive_caps=1 max_buffers=4

# One broker, one subscriber that writes everything it sees, for all scenarios.
printf 'listener 1883 127.0.0.1\nallow_anonymous true\nuser root\n' >/etc/mosquitto.conf
mosquitto -c /etc/mosquitto.conf >/tmp/mosquitto.log 2>&1 &
sleep 2
mosquitto_sub -h 127.0.0.1 -t 'vedetta/#' -T 'vedetta/+/camera/+/snapshot' -T 'vedetta/+/evidence/#' \
    -F '%t %p' >/tmp/messages 2>/tmp/sub.log &

device=
for node in /sys/class/video4linux/*; do
    case $(cat "$node/name") in vivid-*-vid-cap) device=/dev/$(basename "$node") ;; esac
done

# Loading a model and embedding its prompts is slow where every instruction is emulated.
START=300

# Waits up to $1 seconds for a message matching the pattern $2 to arrive after the mark.
mark() { wc -l </tmp/messages >/tmp/mark; }
expect() {
    local seconds=$1 pattern=$2 n=0
    while [ $n -lt $((seconds * 2)) ]; do
        tail -n +$(($(cat /tmp/mark) + 1)) /tmp/messages | grep -q "$pattern" && return 0
        sleep 0.5
        n=$((n + 1))
    done
    echo "vm: no message like '$pattern' within $seconds s; since the mark came:"
    tail -n +$(($(cat /tmp/mark) + 1)) /tmp/messages | cut -c1-160 | tail -n 12
    tail -n 8 /tmp/vedetta.log
    return 1
}
start() {
    mark
    RUST_BACKTRACE=1 vedetta run --config "$@" >/tmp/vedetta.log 2>&1 &
    echo $! >/tmp/pid
}
stop() {
    kill -TERM "$(cat /tmp/pid)"
    wait "$(cat /tmp/pid)"
}
verdict() {
    if [ "$2" = 0 ]; then echo "vm: ok $1"; else echo "vm: FAIL $1"; fi
}
wanted() { [ -z "$(cat /etc/scenarios)" ] || grep -qw "$1" /etc/scenarios; }
scenario() {
    wanted "$1" || return 0
    "$1"
    verdict "$1" $?
}

# A V4L2 format through the whole daemon: the retained snapshot must show vivid's colour bars.
vivid_format() {
    start /etc/vivid.toml --set camera.0.device="$device" --set camera.0.format="$1" || return 1
    expect $START 'camera/prova/status online' || { stop; return 1; }
    mosquitto_sub -h 127.0.0.1 -t 'vedetta/+/camera/prova/snapshot' -C 1 -W 60 -N >/tmp/snapshot.jpg &
    local snapshot=$!
    sleep 1
    mosquitto_pub -h 127.0.0.1 -t vedetta/vm/command/snapshot -m '{"id":1,"camera":"prova"}'
    wait $snapshot
    vmtool bars /tmp/snapshot.jpg
    local result=$?
    stop || { echo "vm: vedetta did not stop cleanly"; result=1; }
    grep -q "$2" /tmp/vedetta.log || { echo "vm: the log does not name $2"; result=1; }
    return $result
}
yuyv_shows_the_right_colours() { vivid_format yuyv YUYV; }
nv12_shows_the_right_colours() { vivid_format nv12 NV12; }
rgb24_shows_the_right_colours() { vivid_format rgb24 RGB3; }

cameras_lists_the_device() {
    vedetta cameras >/tmp/cameras 2>&1
    cat /tmp/cameras | cut -c1-150 | head -n 20
    grep -q "$device" /tmp/cameras
}

a_stalled_camera_turns_its_zones_unknown_and_comes_back() {
    start /etc/vivid.toml --set camera.0.device="$device"
    expect $START 'zone/prova/.*/state \(OFF\|ON\)' || { stop; return 1; }
    mark
    vmtool control "$device" "Percentage of Dropped Buffers" 100
    expect 30 'camera/prova/status \(stalled\|lost\)' && expect 10 'zone/prova/.*/state UNKNOWN'
    local result=$?
    vmtool control "$device" "Percentage of Dropped Buffers" 0
    mark
    expect 60 'camera/prova/status online' && expect 60 'zone/prova/.*/state \(OFF\|ON\)' || result=1
    stop
    return $result
}

an_unplugged_camera_is_lost_and_comes_back() {
    start /etc/vivid.toml --set camera.0.device="$device"
    expect $START 'zone/prova/.*/state \(OFF\|ON\)' || { stop; return 1; }
    mark
    echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
    expect 30 'camera/prova/status lost' && expect 10 'zone/prova/.*/state UNKNOWN'
    local result=$?
    mark
    echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
    expect 60 'camera/prova/status online' && expect 60 'zone/prova/.*/state \(OFF\|ON\)' || result=1
    stop
    return $result
}

a_driver_error_reopens_the_device() {
    start /etc/vivid.toml --set camera.0.device="$device"
    expect $START 'camera/prova/status online' || { stop; return 1; }
    vmtool control "$device" "Inject Fatal Streaming Error" 1
    mark
    expect 60 'health .*"reopened":[1-9]'
    local result=$?
    mark
    expect 30 'camera/prova/status online\|health .*"captured"' || result=1
    stop
    return $result
}

# Half of the buffers never come: nothing that anybody has to hear about.
since_mark() { tail -n +$(($(cat /tmp/mark) + 1)) /tmp/messages; }
dropped_buffers_change_nothing() {
    start /etc/vivid.toml --set camera.0.device="$device"
    expect $START 'zone/prova/.*/state \(OFF\|ON\)' || { stop; return 1; }
    vmtool control "$device" "Percentage of Dropped Buffers" 50
    mark
    local result=0 n=0
    while [ "$(since_mark | grep -c '/health ')" -lt 4 ]; do
        n=$((n + 1))
        [ $n -lt 120 ] || { result=1; break; }
        sleep 0.5
    done
    if since_mark | grep 'camera/prova/status \|/state UNKNOWN'; then result=1; fi
    vmtool control "$device" "Percentage of Dropped Buffers" 0
    stop
    return $result
}

frames_with_the_error_flag_are_dropped_and_counted() {
    start /etc/vivid.toml --set camera.0.device="$device"
    expect $START 'camera/prova/status online' || { stop; return 1; }
    vmtool control "$device" "Inject V4L2_BUF_FLAG_ERROR" 1
    mark
    expect 60 'health .*"corrupt":[1-9]'
    local result=$?
    stop
    return $result
}

# Real photos through a real device node. The loopback becomes a camera when somebody feeds it, so
# the daemon starts without one, finds it, and sees one photo after the other.
# Renamed into place, so that the feeder never reads half a name.
show() { echo "/photos/$1.jpg" >/tmp/shown.new && mv /tmp/shown.new /tmp/shown; }
photos_as_mjpeg_give_the_right_labels() {
    start /etc/loopback.toml
    expect $START 'camera/banco/status lost' || { stop; return 1; }
    show 01-banana
    vmtool feed /dev/video9 /tmp/shown >/tmp/feed.log 2>&1 &
    local feeder=$! result=0 photo
    for photo in $(ls /photos | sed 's#\.jpg##'); do
        show "$photo"
        expect 240 "event .*\"type\":\"confirmed\".*\"label\":\"${photo#*-}\"" || result=1
    done
    kill $feeder
    grep -q MJPG /tmp/vedetta.log || { echo "vm: the log does not name MJPG"; result=1; }
    stop
    return $result
}

scenario cameras_lists_the_device
scenario yuyv_shows_the_right_colours
scenario nv12_shows_the_right_colours
scenario rgb24_shows_the_right_colours
scenario a_stalled_camera_turns_its_zones_unknown_and_comes_back
scenario an_unplugged_camera_is_lost_and_comes_back
scenario dropped_buffers_change_nothing
scenario frames_with_the_error_flag_are_dropped_and_counted
scenario a_driver_error_reopens_the_device
scenario photos_as_mjpeg_give_the_right_labels
echo "vm: done"
sync
printf '\000' | dd of=/dev/port bs=1 seek=1281 count=1 conv=notrunc 2>/dev/null
poweroff -f
