# Sourced by guest.sh: disks, the clock and memory that fail.
# shellcheck shell=sh

# What is allocated can be written on a full disk, too: only events that wait need more.
disk_full() {
    fault "disk full (ext4), the broker away"
    shut
    dd if=/dev/zero of=/state/fill bs=65536 2>/dev/null
    dd if=/dev/zero of=/state/fill2 bs=1024 2>/dev/null
    expect_log 180 'the outbox .* cannot be'
    note "$(log_since | grep 'the outbox .* cannot be' | head -n 1 | sed 's/^\[[^]]*\] //' | cut -c1-150)"
    sleep 10
    rm /state/fill /state/fill2
    heal
    expect_log 120 'on disk again'
    reopen
    flows 180
    note "events that waited, on disk and in memory: $(ledger "$first" 18446744073709551615 | field delayed)"
    row 90
}

disk_read_only() {
    fault "disk read-only from the start, events of the run before on it"
    shut
    sleep 5
    stop || complain "exit code $?"
    mount -o remount,ro /state || complain "the disk stays writable"
    reopen
    start
    expect_log 120 'the outbox .* cannot be'
    flows 120
    note "$(log_since | grep 'the outbox .* cannot be' | head -n 1 | sed 's/^\[[^]]*\] //' | cut -c1-150)"
    settle 60 || complain "what waited on it does not arrive"
    mount -o remount,rw /state
    heal
    expect_log 120 'on disk again'
    row 60
}

disk_slow() {
    fault "disk slow (two writes a second)"
    stop || complain "exit code $?"
    mount -t ext4 /dev/vdb /slow
    cp -a /state/vedetta /slow/
    write_all /slow/vedetta
    start
    until_true 300 told 'zone/due/verde/state ON' || complain "does not start"
    flows 120
    shut
    sleep 10
    kill -KILL "$daemon"
    wait "$daemon"
    reopen
    start
    heal
    flows 300
    note "$(first_warning)"
    note "started, lost its broker and was killed on it"
    row 90
    stop || complain "exit code $?"
    rm -r /state/vedetta
    cp -a /slow/vedetta /state/
    umount /slow
    write_all /state/vedetta
    mark
    start
    until_true 120 told 'zone/due/verde/state ON' || complain "not started again"
}

# clock WHEN: as `date -s`.
clock() { date -s "$1" >/dev/null; }
years_from_now() { echo "@$(($(date +%s) + $1 * 31557600))"; }

clock_jumps() {
    fault "clock jumps ten years forth, then twenty back, then home, events waiting each time"
    home=$(date +%s) from=$(uptime_s)
    mkdir -p /run/systemd/timesync
    for years in 10 -20; do
        # Events of a clock that was trusted wait, and a run with one that is not finds them.
        touch /run/systemd/timesync/synchronized
        until_true 60 told '"clock":"synced"' || complain "the clock is not trusted"
        shut
        sleep 5
        kill -KILL "$daemon"
        wait "$daemon"
        rm /run/systemd/timesync/synchronized
        clock "$(years_from_now $years)"
        start
        sleep 3
        reopen
        flows 180
        settle 60 || complain "events did not survive a jump of $years years"
    done
    clock "$(years_from_now 10)"
    clock "@$(awk -v home="$home" -v from="$from" '{ printf "%d", home + $1 - from }' /proc/uptime)"
    heal
    flows 120
    note "event times from $(heard_since | sed -n 's/.*"time":"\([0-9]*\)-.*/\1/p' | sort -un | tr '\n' ' ')expired: $(heard_since | grep -a '/health ' | tail -n 1 | sed 's/.*"expired":\([0-9]*\).*/\1/')"
    row 60
}

limited() { echo 0 >/cg/vedetta/cgroup.procs && exec "$@"; }
memory_limit() {
    fault "memory limit hit (cgroup), killed, started again"
    mkdir -p /cg/vedetta
    stop || complain "exit code $?"
    wrapper=limited
    start
    wrapper=
    flows 120
    shut
    sleep 3
    used=$(cat /cg/vedetta/memory.current)
    echo $((used / 2)) >/cg/vedetta/memory.max
    dead() { ! kill -0 "$daemon" 2>/dev/null; }
    until_true 60 dead || complain "it was not killed"
    note "it used $((used / 1048576)) MB; killed by the kernel: $(sed -n 's/^oom_kill //p' /cg/vedetta/memory.events) time(s)"
    reopen
    restart_when_dead
    heal
    flows 120
    row 60
}
