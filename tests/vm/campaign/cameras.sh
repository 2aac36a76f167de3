# Sourced by guest.sh: cameras that fail. vivid stands for a sensor with a driver of its own, two
# v4l2loopback devices for USB cameras that give MJPEG.
# shellcheck shell=sh

write_cameras() {
    cat <<TOML

[[camera]]
id = "prova"
device = "/dev/video0"
size = [640, 360]
rate_fps = 2
stall_after_s = 4

# The sixth of vivid's eight colour bars.
[[camera.zone]]
id = "barra"
rectangle = [0.64, 0.4, 0.09, 0.5]

[[camera]]
id = "uno"
device = "/dev/v4l/by-id/uno"
format = "mjpeg"
rate_fps = 2
stall_after_s = 4
# It is fed with one still picture.
frozen_after_s = 86400

[[camera]]
id = "due"
device = "/dev/v4l/by-id/due"
format = "mjpeg"
rate_fps = 2
stall_after_s = 4
frozen_after_s = 86400
TOML
}

# node NAME: the device node of the loopback device with this card label.
node() {
    for entry in /sys/class/video4linux/*; do
        [ "$(cat "$entry/name")" = "$1" ] && echo "/dev/$(basename "$entry")" && return
    done
}
# The stable names that udev would keep.
link() {
    for label in uno due; do ln -sfn "$(node $label)" /dev/v4l/by-id/$label; done
}
show() { echo "$work/$2" >"$work/shown-$1.new" && mv "$work/shown-$1.new" "$work/shown-$1"; }
feed() {
    vmtool feed "$(node "$1")" "$work/shown-$1" >>"$work/feed.log" 2>&1 &
    eval "feeder_$1=$!"
}
# plug_loopback NUMBERS [raw]: both devices appear under these numbers and are fed; with `raw`, uno is no
# longer an MJPEG camera.
plug_loopback() {
    insmod /modules/v4l2loopback.ko video_nr="$1" card_label=uno,due exclusive_caps=1,1 max_buffers=4
    show uno photos/rosso.jpg
    show due photos/verde.jpg
    link
    if [ "${2:-}" = raw ]; then
        vmtool feed-raw "$(node uno)" >>"$work/feed.log" 2>&1 &
        feeder_uno=$!
    else
        feed uno
    fi
    feed due
}
# A device that was fed by write(2) cannot be fed again: unplugging is unloading.
unplug_loopback() {
    kill "$feeder_uno" "$feeder_due"
    until_true 120 unload_loopback || complain "the module is in use"
    expect_told 60 'camera/due/status lost'
}
unload_loopback() { rmmod v4l2loopback 2>/dev/null; }

unplugged() {
    fault "camera unbound from its driver and bound again"
    echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind
    expect_told 60 'camera/prova/status lost'
    expect_told 20 'zone/barra/rosso/state UNKNOWN'
    flows 60
    note "$(first_warning)"
    mark
    echo vivid.0 >/sys/bus/platform/drivers/vivid/bind
    heal
    expect_told 90 'zone/barra/rosso/state ON'
    row 60
}

stalled() {
    fault "camera stalls (every buffer dropped)"
    vmtool control /dev/video0 "Percentage of Dropped Buffers" 100
    expect_told 60 'camera/prova/status \(stalled\|lost\)'
    expect_told 20 'zone/barra/rosso/state UNKNOWN'
    flows 60
    note "$(first_warning)"
    vmtool control /dev/video0 "Percentage of Dropped Buffers" 0
    mark
    heal
    expect_told 90 'zone/barra/rosso/state ON'
    row 60
}

garbage() {
    fault "garbage instead of JPEGs"
    show uno garbage.jpg
    expect_told 90 'zone/uno/rosso/state UNKNOWN'
    flows 60
    # At two frames per second, ten take a while.
    expect_log 120 'camera uno: 10 frames in a row were of no use'
    expect_told 60 '"camera":"uno"[^}]*"reopened":[1-9]'
    note "$(first_warning)"
    note "$(heard_since | grep -a '/health ' | tail -n 1 | sed 's/.*"camera":"uno"[^}]*"corrupt":\([0-9]*\),"reopened":\([0-9]*\).*/\1 frames dropped, \2 reopenings/')"
    mark
    show uno photos/rosso.jpg
    heal
    expect_told 120 'zone/uno/rosso/state ON'
    row 60
}

wrong_format() {
    fault "replugged with another format (YUYV where MJPEG is configured)"
    unplug_loopback
    plug_loopback 9,10 raw
    expect_log 120 'camera uno: .* does not offer MJPG'
    expect_told 120 'zone/due/verde/state ON'
    flows 60
    note "$(log_since | grep 'camera uno: .* does not offer MJPG' | tail -n 1 | sed 's/^\[[^]]*\] //' | cut -c1-150)"
    mark
    unplug_loopback
    mark
    plug_loopback 9,10
    heal
    expect_told 120 'zone/uno/rosso/state ON'
    row 60
}

swapped() {
    fault "two cameras swapped (their /dev/videoN, not their stable names)"
    unplug_loopback
    mark
    plug_loopback 10,9
    heal
    expect_told 120 'zone/uno/rosso/state ON'
    expect_told 60 'zone/due/verde/state ON'
    note "uno is now $(node uno), due $(node due); both ids still show their own picture"
    told 'zone/uno/verde/state ON' && complain "uno shows the picture of due"
    row 60
}
