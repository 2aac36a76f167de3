# Sourced by the parts of the survival campaign, in the virtual machine (busybox) and outside: the
# daemon and its supervisor, what a subscriber heard, and the rows of the table.
#
# The sourcing script sets: work (a folder), config (of the daemon), vedetta and vmtool (programs).
# shellcheck shell=sh

heard=$work/heard name="the start" problems=''
: >"$heard"
: >"$work/log"

uptime_s() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v from="$1" '{ printf "%.1f", $1 - from }' /proc/uptime; }

# Tries $2… every 0.2 s until it succeeds, for at most $1 seconds.
until_true() {
    deadline=$(awk -v wait="$1" '{ printf "%d", $1 + wait }' /proc/uptime)
    shift
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}

# The daemon's log is added to over all its runs.
start() {
    RUST_BACKTRACE=1 RUST_LOG=vedetta=info,vedetta::publish::publisher=debug \
        ${wrapper:-} "$vedetta" run --config "$config" "$@" >>"$work/log" 2>&1 &
    daemon=$!
}
# A clean stop, which the contract gives two seconds; emulated and shared processors get more.
stop() {
    kill -TERM "$daemon" && wait "$daemon"
}
# What systemd does with Restart=always.
restart_when_dead() {
    kill -0 "$daemon" 2>/dev/null && return 0
    wait "$daemon" 2>/dev/null
    start
}
alive() { kill -0 "$daemon" 2>/dev/null || complain "the daemon died"; }

# Lines of the log and of the subscriber since the fault began.
log_since() { tail -n "+$((log_mark + 1))" "$work/log"; }
heard_since() { tail -n "+$((heard_mark + 1))" "$heard"; }
# Not grep -q: it would end before what it reads from, which counts as a failure with pipefail.
logged() { log_since | grep -- "$1" >/dev/null; }
told() { heard_since | grep -a -- "$1" >/dev/null; }
mark() {
    log_mark=$(wc -l <"$work/log")
    heard_mark=$(wc -l <"$heard")
}

ledger() { "$vmtool" ledger "$1" "$2" "$heard" "$work/log"; }
field() { tr ' ' '\n' | sed -n "s/^$1=//p"; }
last_number() { ledger 0 18446744073709551615 | field last; }
# Everything stored up to number $1 was heard.
all_heard() { [ "$(ledger "$first" "$1" | field lost)" = 0 ]; }
# Everything stored by now arrives.
settle() {
    limit=$(last_number)
    until_true "$1" all_heard "$limit"
}

# What was complained of since the last row counts as well.
unreported() {
    [ -z "$problems" ] || echo "campaign: FAIL after $name: $problems"
    problems=''
}
# fault NAME: the books of a fault begin. `heal` says that it is removed; `row` writes its line.
fault() {
    unreported
    name=$1 healed='' observed=''
    begun=$(uptime_s)
    settle 60 || complain "events before the fault are missing"
    first=$(($(last_number) + 1))
    mark
}
heal() { healed=$(uptime_s); }
# A line for the table's column of what was observed.
note() { observed="$observed${observed:+; }$1"; }
complain() {
    problems="$problems${problems:+; }$1"
    echo "campaign: $name: $1" >&2
    # Not its events.
    log_since | grep -av ' DEBUG ' | tail -n 8 | cut -c1-200 >&2
    heard_since | cut -c1-150 | tail -n 5 >&2
}
# Waits for a line of the log, or something heard, or complains.
expect_log() { until_true "$1" logged "$2" || complain "not in the log: $2"; }
expect_told() { until_true "$1" told "$2" || complain "not heard: $2"; }
# An event that is newer than the fault's end: the daemon is whole again.
flows() {
    fresh_from=$(($(last_number) + 1))
    until_true "$1" fresh || complain "no new event"
}
fresh() { [ "$(ledger "$fresh_from" 18446744073709551615 | field heard)" -gt 1 ]; }

# The first warning since the fault began, without time stamp and colours.
first_warning() {
    log_since | grep -a 'WARN\|ERROR' | grep -av 'hangs when it is told to' | head -n "${1:-1}" | tail -n 1 |
        sed 's/\x1b\[[0-9;]*m//g; s/^\[[^]]*\] //; s#'"$work"'/\{0,1\}##g; s/|/\//g' | cut -c1-170
}

# row SECONDS: everything stored since the fault began has to arrive; then one line of the table.
row() {
    settle "$1" || complain "events are missing"
    took=$(since "${healed:-$begun}")
    books=$(ledger "$first" 18446744073709551615)
    [ "$(echo "$books" | field conflicts)" = 0 ] || complain "two events with one number"
    [ "$(echo "$books" | field disorder)" = 0 ] || complain "events out of order"
    lost=$(ledger "$first" "$limit" | field lost)
    verdict=ok
    [ -z "$problems" ] && [ "$lost" = 0 ] || verdict="FAIL"
    echo "campaign: $verdict $name"
    echo "row: | $name | $place | ${observed:-} ${problems:+**$problems**} | $took | $(echo "$books" | field heard) ($(echo "$books" | field delayed)) | $lost | $(echo "$books" | field duplicates) |"
    problems=''
}

# close_books SECONDS: of the whole part. Everything stored has arrived, and every confirmed event has its
# ended.
close_books() {
    first=0
    settle "$1" || complain "events are missing"
    books=$(ledger 0 18446744073709551615)
    echo "campaign: $place books: $books"
    [ "$(ledger 0 "$limit" | field lost)" = 0 ] || complain "events are lost"
    [ "$(echo "$books" | field open)" = 0 ] || complain "confirmed events without their ended"
    [ -n "$problems" ] || echo "campaign: ok every confirmed event was ended"
    unreported
}
