# Sourced by broker.sh: more work than there should be.
# shellcheck shell=bash

load_on_replay() {
    fault "load: 4 cameras of 8 zones each on replayed photos, the demo model"
    stop || complain "exit code $?"
    {
        printf 'device = "campagna"\nstate_dir = "%s"\n[model]\nbundle = "%s"\n[decision]\ndwell_s = 0\nwindow = 1\n' \
            "$work/state" "$PWD/models/demo"
        for camera in 1 2 3 4; do
            printf '[[camera]]\nid = "corsia-%s"\nreplay = "%s"\nrate_fps = 1\n' "$camera" "$PWD/models/photos"
            for zone in 0 1 2 3 4 5 6 7; do
                printf '[[camera.zone]]\nid = "corsia-%s-%s"\nrectangle = [0.%s, 0.%s, 0.25, 0.5]\n' \
                    "$camera" "$zone" "$((zone % 4 * 25))" "$((zone / 4 * 5))"
            done
        done
        for label in banana carota mela limone; do
            printf '[[label]]\nid = "%s"\nnoun = "%s"\ngroup = "frutta"\n' "$label" "$label"
        done
        printf '[mqtt]\nhost = "127.0.0.1"\nport = %s\nhealth_every_s = 2\n' "$port"
    } >"$config"
    mark
    start
    until_true 300 told '"camera":"corsia-4"[^}]*"encoded":[1-9]' || complain "not every camera is looked at"
    flows 120
    sleep "$load_s"
    note "$(health | jq -r '"\([.cameras[].encoded] | add) batches of 8 zones encoded, \([.cameras[].skipped] | add) frames skipped for fresher ones, \(.encode_p95_ms | round) ms a batch (95 %), \(.resident_bytes / 1048576 | round) MB resident, \(.cpu_s / .uptime_s * 100 | round) % of a processor"')"
    heal
    stop || complain "exit code $?"
    write_daemon
    start
    flows 60
    row 60
}

commands_in_a_burst() {
    fault "10,000 commands in a burst"
    for n in $(seq 10000); do echo "{\"id\":$n,\"label\":\"rosso\",\"threshold\":0.6}"; done |
        publish -t vedetta/campagna/command/set -l
    heal
    flows 60
    answers() { heard_since | grep -ac '/reply/set '; }
    answered() { [ "$(answers)" -ge 10000 ]; }
    until_true 120 answered || complain "not every command is answered"
    sleep 2
    note "$(answers) answered ($(heard_since | grep -ac '"code":"rate-limited"') of them rate-limited), $(health | sed 's/.*"dropped_messages":\([0-9]*\).*/\1/') answers dropped and counted"
    row 60
}

giant_payloads() {
    for version in 5 3.1.1; do
        fault "payloads of 1 MB on the command topics, retained too, MQTT $version"
        write_daemon "version = \"$version\""
        kill -HUP "$daemon"
        flows 60
        head -c 1000000 /dev/zero | tr '\0' x >"$work/giant"
        for n in $(seq 20); do publish -t vedetta/campagna/command/snapshot -f "$work/giant"; done
        publish -r -t vedetta/campagna/command/snapshot -f "$work/giant"
        sleep 5
        publish -r -t vedetta/campagna/command/snapshot -n
        heal
        flows 90
        note "oversized packets that ended a connection: $(health | sed 's/.*"oversized":\([0-9]*\).*/\1/'), commands off: $(health | sed 's/.*"commands_off":\([0-9]*\).*/\1/')"
        row 60
    done
}
