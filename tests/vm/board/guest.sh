#!/bin/bash
echo "vm: hello"; systemctl is-system-running; systemd-analyze; cat /proc/uptime; uname -a; df -h /; free -m
ls -la /run/payload; systemctl --failed
echo "vm: done"
sync; systemctl poweroff -ff
