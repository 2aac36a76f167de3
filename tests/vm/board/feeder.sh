#!/bin/bash
# The camera: the photo that /run/shown names, five times a second, through the loopback device. A write
# is a frame. All photos have one size.
exec 3>/dev/video9
v4l2-ctl -d /dev/video9 --set-fmt-video-out=width=348,height=348,pixelformat=MJPG || exit 1
while dd bs=1M if="$(cat /run/shown)" status=none >&3; do sleep 0.2; done
