#!/usr/bin/env bash
# Runs the daemon on replayed photos with a broker or camera fault every minute, and prints what a
# subscriber got: memory and descriptors (flat), events sent = events received, processor time per
# frame.
#
#   tests/soak.sh [SECONDS]     default 1200 (20 minutes)
#
# VEDETTA names a binary that is there already; else a release build is made.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-1200}
PATH=$PATH:/usr/sbin
for tool in mosquitto mosquitto_sub jq; do
    command -v $tool >/dev/null || { echo "soak: SKIPPED: needs $tool"; exit 0; }
done
vedetta=${VEDETTA:-}
if [ -z "$vedetta" ]; then
    cargo build --release --quiet --bin vedetta
    vedetta=${CARGO_TARGET_DIR:-target}/release/vedetta
fi
work=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
trap 'kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT

cp -r models/photos "$work/photos"
printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nuser root\nmax_queued_messages 100000\n' \
    "$port" "$work" >"$work/mosquitto.conf"
cat >"$work/vedetta.toml" <<TOML
device = "soak"
state_dir = "$work/state"
[model]
bundle = "$PWD/models/demo"
[[camera]]
id = "banco"
replay = "$work/photos"
rate_fps = 0.5
stall_after_s = 8
# Every photo is one frame: what it shows is confirmed at once and ended by the next.
[decision]
enter = 0.6
dwell_s = 0
window = 1
$(for label in banana carota "cartone di latte" "mela verde" arancia pomodoro ananas limone; do
    printf '[[label]]\nid = "%s"\nnoun = "%s"\ngroup = "frutta"\n' "${label// /-}" "$label"
done)
[mqtt]
host = "127.0.0.1"
port = $port
evidence = true
health_every_s = 5
TOML

broker() { mosquitto -c "$work/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 & broker=$!; }
broker
sleep 1
# A persistent session: what arrives while the subscriber is away waits in the broker. It comes back
# by itself.
mosquitto_sub -h 127.0.0.1 -p "$port" -i soak-ear -c -q 1 -t 'vedetta/+/event' -t 'vedetta/+/health' \
    -F '%t %p' >"$work/heard" 2>/dev/null &
sleep 1
RUST_LOG=vedetta=info "$vedetta" run --config "$work/vedetta.toml" >"$work/vedetta.log" 2>&1 &
daemon=$!

# Second, resident kB, descriptors.
sample() {
    printf '%s %s %s\n' "$SECONDS" \
        "$(awk '/VmRSS/ { print $2 }' /proc/$daemon/status)" "$(ls /proc/$daemon/fd | wc -l)" >>"$work/samples"
}
SECONDS=0
fault=0
while [ $SECONDS -lt "$seconds" ]; do
    for second in $(seq 50); do
        sleep 1
        [ $((second % 10)) = 0 ] && sample
        kill -0 $daemon 2>/dev/null || { echo "soak: the daemon died"; tail "$work/vedetta.log"; exit 1; }
        [ $SECONDS -ge "$seconds" ] && break
    done
    case $((fault++ % 3)) in
    # Not with SIGKILL: mosquitto would forget what it acknowledged, and the count would be off.
    0) echo "soak: $SECONDS s: broker stopped for 8 s"; kill $broker; wait $broker || true; sleep 8; broker ;;
    1) echo "soak: $SECONDS s: camera away for 10 s"; mv "$work/photos" "$work/away"; sleep 10; mv "$work/away" "$work/photos" ;;
    2) echo "soak: $SECONDS s: broker frozen for 8 s"; kill -STOP $broker; sleep 8; kill -CONT $broker ;;
    esac
done
sleep 12
sample
cpu=$(awk '{ print ($14 + $15) / 100 }' /proc/$daemon/stat)
health=$(grep -a '/health ' "$work/heard" | tail -n 1 | cut -d' ' -f2-)
start=$(date +%s%N)
kill -TERM $daemon
wait $daemon && code=0 || code=$?
stop_ms=$((($(date +%s%N) - start) / 1000000))
sleep 3

# Every event has a number; at least once means none is missing, a duplicate has the same number.
grep -a '/event ' "$work/heard" | cut -d' ' -f2- | jq -r '"\(.sequence) \(.type) \(.id)"' | sort -n -u >"$work/events"
sent=$(awk 'END { print $1 }' "$work/events")
got=$(cut -d' ' -f1 "$work/events" | sort -n -u | wc -l)
open=$(awk '{ if ($2 == "confirmed") n[$3]++; if ($2 == "ended") n[$3]-- } END { for (i in n) if (n[i] != 0) c++; print c + 0 }' "$work/events")
frames=$(jq '[.cameras[].encoded] | add' <<<"$health")
lost=$(jq '.queue.dropped + .queue.expired' <<<"$health")
# Warm after a minute, or after a third of a short run.
warm=$(awk -v from=$((seconds / 3 < 60 ? seconds / 3 : 60)) '$1 >= from { print; exit }' "$work/samples")
last=$(tail -n 1 "$work/samples")
read -r _ warm_kb warm_fds <<<"$warm"
read -r _ last_kb last_fds <<<"$last"
most_kb=$(sort -n -k2 "$work/samples" | tail -n 1 | cut -d' ' -f2)
echo "soak: events numbered up to $sent, received $got, dropped $lost; confirmed without their ended: $open"
echo "soak: resident memory: $warm_kb kB warm, $last_kb kB at the end, $most_kb kB at most; descriptors: $warm_fds warm, $last_fds at the end"
echo "soak: $cpu CPU-seconds for $frames encoded frames: $(awk -v c="$cpu" -v f="$frames" 'BEGIN { printf "%.3f", c / f }') per frame; stopped in $stop_ms ms with exit code $code"
echo "soak: last health: $health"
verdict=0
fail() { echo "soak: FAILED: $1"; verdict=1; }
[ "${sent:-0}" -gt 0 ] || fail "no event was heard"
[ "$sent" = "$got" ] && [ "$lost" = 0 ] || fail "events were lost"
[ "$open" = 0 ] || fail "an event was not ended"
[ "$code" = 0 ] || fail "the daemon ended with code $code: $(tail -n 3 "$work/vedetta.log")"
[ "$last_kb" -le $((warm_kb + warm_kb / 10)) ] || fail "memory grew"
[ "$last_fds" -le $((warm_fds + 2)) ] || fail "descriptors grew"
exit $verdict
