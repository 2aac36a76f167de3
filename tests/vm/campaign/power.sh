# Sourced by campaign.sh: a machine whose power is cut, again and again, beside a broker that is not in
# it. Each boot writes to a fresh overlay of its disk: what the guest did not flush is mostly still in
# the emulator's tables when it is killed, and lost with it, as in a drive's own cache.
# shellcheck shell=bash

power_boot() {
    qemu-img create -q -f qcow2 -o cluster_size=4096 -b "$work/disk.raw" -F raw "$work/disk.qcow2"
    : >"$work/boot.log"
    second_serial "$work/boot.log"
    machine "$power_initramfs" "broker=$port log=$serial_port $power_append $1" -display none -monitor none \
        -serial "file:$work/console.log" "${serial[@]}" \
        -drive "file=$work/disk.qcow2,if=virtio,format=qcow2,cache=writeback" "${power_drives[@]}" \
        -netdev user,id=net -device virtio-net-pci,netdev=net "${@:2}"
    "${machine_command[@]}" </dev/null >/dev/null 2>&1 &
    guest=$!
    begun_boot=$(uptime_s)
}
# The disk keeps what was flushed; the daemon's log goes to the books.
power_off() {
    kill -KILL "$guest" 2>/dev/null || true
    wait "$guest" 2>/dev/null || true
    qemu-img commit -q "$work/disk.qcow2"
    rm "$work/disk.qcow2"
    # As the journal would get them, lines begin with their priority.
    sed 's/^<[0-9]>//' "$work/boot.log" >>"$work/log"
    # A line that the cut tore does not count.
    echo >>"$work/log"
}
stored_lines() { [ "$(grep -ac ' is stored' "$work/boot.log")" -ge "$1" ]; }
started() { grep -aq 'power: starts' "$work/boot.log"; }
pause() { sleep "$((RANDOM % $1)).$((RANDOM % 10))"; }
mosquitto_start() {
    mosquitto -c "$work/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 &
    broker=$!
    until_true 20 mosquitto_pub -h 127.0.0.1 -p "$port" -t campaign/up -n 2>/dev/null
}

gone() { ! kill -0 "$guest" 2>/dev/null; }
# Lets the present boot run until events flow, then has the daemon stop in peace.
last_boot() {
    until_true 300 stored_lines 4 || complain "no events: $(tail -n 3 "$work/boot.log")"
    mosquitto_pub -h 127.0.0.1 -p "$port" -r -t campaign/stop -m now
    until_true 300 gone || complain "the last boot did not end"
    power_off
    grep -q 'power: stopped with 0' "$work/boot.log" || complain "no clean stop"
    mosquitto_pub -h 127.0.0.1 -p "$port" -r -t campaign/stop -n
}

# An empty disk for what the daemon keeps.
small_disk() {
    truncate -s 64M "$work/disk.raw"
    mkfs.ext4 -q -F "$work/disk.raw"
}

# power CUTS bare|board MAKE-DISK: as many cuts of the machine that `power_title` says, which begins with the
# initramfs `power_initramfs` and has `power_drives` and, for its kernel, `power_append` besides the disk
# that MAKE-DISK makes (`$work/disk.raw`; it knows the broker's `$port`). Then, of a bare one, a boot without
# a clock, and the books.
power() {
    local cuts=$1 n
    work=$cache/power-$2-$arch vedetta=$binaries/vedetta vmtool=$binaries/examples/vmtool
    rm -rf "$work" && mkdir -p "$work"
    place="VM ($arch), broker outside" daemon='' first=0
    port=$((20000 + RANDOM % 20000))
    # shellcheck source=tests/vm/campaign/report.sh
    . tests/vm/campaign/report.sh
    "$3"
    printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nuser root\nmax_queued_messages 1000000\nmax_inflight_messages 0\n' \
        "$port" "$work" >"$work/mosquitto.conf"
    mosquitto_start
    mosquitto_sub -h 127.0.0.1 -p "$port" -i power-ear -c -q 1 -t 'vedetta/#' -F '%t %p' >"$heard" 2>/dev/null &
    ear=$!
    trap 'kill -KILL $guest $broker $ear 2>/dev/null || true; rm -rf "$root"' EXIT

    fault "$power_title, $cuts times"
    : >"$work/recovery"
    for n in $(seq "$cuts"); do
        power_boot ""
        until_true 300 started || complain "boot $n: $(tail -n 3 "$work/console.log")"
        if [ $((n % 5)) = 4 ]; then
            # On the way up.
            pause 4
        else
            until_true 300 stored_lines 4 || complain "boot $n: no events: $(tail -n 3 "$work/boot.log")"
            since "$begun_boot" >>"$work/recovery"
            echo >>"$work/recovery"
            case $((n % 3)) in
            1) kill -TERM "$broker" && wait "$broker" || true ;;
            2) kill -STOP "$broker" ;;
            esac
            pause 8
        fi
        power_off
        case $((n % 3)) in
        1) kill -0 "$broker" 2>/dev/null || mosquitto_start ;;
        2) kill -CONT "$broker" ;;
        esac
        echo "campaign: cut $n: $(ledger 0 18446744073709551615)"
    done
    power_boot ""
    heal
    last_boot
    grep -aq 'damaged\|cannot be mounted' "$work/log" "$work/console.log" && complain "something was damaged"
    note "events left open and ended after a start: $(heard_since | grep -ac '"reason":"restart"'); from power to the first event $(sort -n "$work/recovery" | awk '{ v[NR] = $1 } END { printf "%.0f s median, %.0f s at most", v[int((NR + 1) / 2)], v[NR] }') (emulated)"
    row 120
    close_books 30

    [ "$short" = no ] && [ "$2" = bare ] || { kill -TERM "$broker" "$ear"; return; }
    fault "no clock at boot (1970), set after ten seconds, then a power cut"
    power_boot "set=$(date +%s)" -rtc base=1970-01-01T00:00:10
    until_true 300 told '"time":"1970' || complain "no event from 1970"
    kill -STOP "$broker"
    sleep 4
    kill -CONT "$broker"
    until_true 120 told "\"time\":\"$(date +%Y)" || complain "no event after the clock was set"
    power_off
    power_boot ""
    heal
    last_boot
    note "event times in $(heard_since | sed -n 's/.*"time":"\([0-9]*\)-.*/\1/p' | sort -un | tr '\n' ' ')"
    row 120
    kill -TERM "$broker" "$ear"
}
