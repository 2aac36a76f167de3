# Sourced by guest.sh: a network that fails between the daemon and its broker.
# shellcheck shell=sh

# Packets to and from the daemon's door of the broker vanish.
shut() { nft -f - <<'NFT'
table inet campaign {
    chain input {
        type filter hook input priority 0;
        tcp dport 1884 drop
        tcp sport 1884 drop
    }
}
NFT
}
reopen() { nft delete table inet campaign; }

unreachable() {
    fault "broker unreachable (nftables drops its packets)"
    shut
    expect_log 90 'lost the connection'
    expect_log 90 'cannot reach'
    note "$(first_warning)"
    note "$(first_warning 2)"
    reopen
    heal
    flows 180
    row 90
}

slow_network() {
    fault "broker slow (netem: 1.5 s each way, 64 kbit/s)"
    # By its path: busybox has a smaller one.
    /bin/tc qdisc add dev lo root netem delay 1500ms rate 64kbit || complain "no netem"
    flows 120
    note "$(first_warning)"
    note "events arrive all the same: $(ledger "$first" 18446744073709551615 | field heard)"
    /bin/tc qdisc del dev lo root
    heal
    flows 90
    row 90
}

sixty_times() { exec env LD_PRELOAD=/lib/libfaketime.so FAKETIME='+0 x60' FAKETIME_NO_CACHE=1 "$@"; }
# The daemon's clocks, its sleeps and its timeouts run sixty times as fast (libfaketime).
hour() {
    stop || complain "exit code $?"
    until_true 60 all_heard "$(last_number)"
    {
        write_config campagna /state/vedetta $work/bundle $work/photos | sed 's/^rate_fps = 2/rate_fps = 0.05/; s/^stall_after_s = 3/stall_after_s = 600/'
        printf '\n[mqtt]\nhost = "127.0.0.1"\nport = 1884\nhealth_every_s = 30\nkeep_alive_s = 300\n'
    } >$config
    fault "network gone for an hour (libfaketime, 60 times as fast: one minute)"
    wrapper=sixty_times
    start
    wrapper=
    flows 120
    shut
    sleep 60
    expect_log 60 'lost the connection\|cannot reach'
    note "$(first_warning)"
    reopen
    heal
    flows 120
    row 90
    # libfaketime does not reach the futexes that threads sleep on: after an hour of its time they sleep
    # for an hour of the machine's, and a daemon that is told to stop does not hear it.
    kill -KILL "$daemon"
    wait "$daemon" 2>/dev/null
    write_all /state/vedetta
    start
    until_true 120 told 'zone/due/verde/state ON' || complain "not started again"
}
