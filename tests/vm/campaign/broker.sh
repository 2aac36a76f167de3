#!/usr/bin/env bash
# The campaign's faults that need no machine of their own: brokers that fail, and a daemon that is
# killed. A real mosquitto on loopback. campaign.sh runs it.
#
#   broker.sh VEDETTA VMTOOL FOLDER KILLS FAULT…     prints `row: …` lines
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
vedetta=$1 vmtool=$2 work=$3 kills=$4
load_s=$((kills * 2))
shift 4
mkdir -p "$work"
port=$((20000 + RANDOM % 10000))
ear_port=$((port + 10000))
config=$work/vedetta.toml place=native
daemon='' broker='' ear='' first=0
# shellcheck source-path=SCRIPTDIR
. "$here/report.sh"
. "$here/config.sh"
. "$here/load.sh"
trap 'kill -KILL $daemon $broker $ear 2>/dev/null || true' EXIT

"$vmtool" bundle "$work/bundle"
"$vmtool" photos "$work/photos"
openssl=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
"${openssl[@]}" -keyout "$work/ca.key" -out "$work/ca.pem" -days 3650 -subj /CN=campaign \
    -addext basicConstraints=critical,CA:TRUE 2>/dev/null
# certificate NAME DAYS: signed by the authority above, for the server on loopback.
certificate() {
    local until
    until=$(date -u -d "now + $2 days" +%Y%m%d%H%M%SZ)
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/$1.key" -out "$work/$1.csr" \
        -subj "/CN=$1" 2>/dev/null
    printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s\nserial=%s\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n' \
        "$work/index" "$work/serial" "$work" >"$work/ca.cnf"
    : >"$work/index"
    echo 01 >"$work/serial"
    openssl ca -batch -config "$work/ca.cnf" -extensions x -cert "$work/ca.pem" -keyfile "$work/ca.key" \
        -startdate 20200101000000Z -enddate "$until" -in "$work/$1.csr" -out "$work/$1.pem" -notext 2>/dev/null
}
certificate good 30
certificate expired -1

# The ear's listener needs no login and is never changed; the daemon's has what $1 says, the whole
# broker what $2 says.
write_broker() {
    cat >"$work/mosquitto.conf" <<CONF
per_listener_settings true
persistence true
persistence_location $work/
max_queued_messages 1000000
${2-max_inflight_messages 0}
user root
listener $ear_port 127.0.0.1
allow_anonymous true
listener $port 127.0.0.1
$1
CONF
}
broker_start() {
    mosquitto -c "$work/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 &
    broker=$!
    until_true 20 mosquitto_pub -h 127.0.0.1 -p "$ear_port" -t campaign/up -n 2>/dev/null
}
broker_stop() {
    kill "-$1" "$broker"
    wait "$broker" || true
}
write_daemon() {
    {
        write_config campagna "$work/state" "$work/bundle" "$work/photos"
        printf '\n[mqtt]\nhost = "127.0.0.1"\nport = %s\nkeep_alive_s = 5\nhealth_every_s = 1\n%s\n' "$port" "${1:-}"
    } >"$config"
}
health() { grep -a '/health ' "$heard" | tail -n 1 | cut -d' ' -f2-; }
publish() { mosquitto_pub -h 127.0.0.1 -p "$ear_port" -q 1 "$@"; }

# Broker and daemon as they were in the beginning.
normal() {
    write_broker 'allow_anonymous true'
    broker_stop TERM
    broker_start
    write_daemon
    kill -HUP "$daemon"
    flows 120
}

ear_listens() { publish -t vedetta/up -m up && told '^vedetta/up up'; }
broker_killed() {
    fault "broker killed (SIGKILL), back after 5 s"
    broker_stop KILL
    until_true 20 logged 'lost the connection\|cannot reach' || complain "not noticed"
    sleep 5
    note "$(first_warning)"
    # It has forgotten who subscribed. The daemon's door opens when the ear is back, or events that the
    # broker acknowledges would be for nobody.
    port=$((port + 5000)) write_broker 'allow_anonymous true'
    broker_start
    until_true 30 ear_listens || complain "the subscriber is not back"
    broker_stop TERM
    write_broker 'allow_anonymous true'
    broker_start
    heal
    flows 90
    row 60
}

broker_restarted() {
    fault "broker restarted in mid-stream"
    broker_stop TERM
    broker_start
    heal
    flows 90
    note "$(first_warning)"
    row 60
}

broker_frozen() {
    fault "broker frozen (SIGSTOP): the connection stands, nothing answers"
    kill -STOP "$broker"
    until_true 60 logged 'lost the connection\|cannot reach' || complain "not noticed"
    note "$(first_warning)"
    kill -CONT "$broker"
    heal
    flows 90
    row 60
}

broker_refuses() {
    fault "broker refuses events by reason code (access list), then takes them"
    printf 'topic deny vedetta/campagna/event\ntopic readwrite #\n' >"$work/deny"
    printf 'topic readwrite #\n' >"$work/allow"
    cp "$work/deny" "$work/acl"
    write_broker "allow_anonymous true
acl_file $work/acl" ""
    broker_stop TERM
    broker_start
    expect_log 60 'does not take an event'
    cp "$work/allow" "$work/acl"
    kill -HUP "$broker"
    heal
    flows 150
    note "$(log_since | grep 'does not take' | head -n 1 | sed 's/^\[[^]]*\] //')"
    row 60
    normal
}

password_changed() {
    fault "password changed at the broker, then in the daemon's file (SIGHUP)"
    mosquitto_passwd -c -b "$work/passwords" vedetta nuova 2>/dev/null
    write_broker "allow_anonymous false
password_file $work/passwords"
    broker_stop TERM
    broker_start
    expect_log 60 'otAuthorized\|ot authorized\|BadUserName'
    note "$(first_warning 2)"
    echo nuova >"$work/password"
    chmod 600 "$work/password"
    write_daemon "username = \"vedetta\"
password_file = \"$work/password\""
    kill -HUP "$daemon"
    heal
    flows 90
    row 60
    normal
}

certificate_expired() {
    fault "broker's certificate expired, then renewed"
    write_broker "allow_anonymous true
certfile $work/server.pem
keyfile $work/server.key"
    cp "$work/expired.pem" "$work/server.pem"
    cp "$work/expired.key" "$work/server.key"
    broker_stop TERM
    broker_start
    write_daemon "[mqtt.tls]
ca_file = \"$work/ca.pem\""
    kill -HUP "$daemon"
    expect_log 60 '[Ee]xpired'
    note "$(log_since | grep -i expired | head -n 1 | sed 's/^\[[^]]*\] //' | cut -c1-150)"
    cp "$work/good.pem" "$work/server.pem"
    cp "$work/good.key" "$work/server.key"
    broker_stop TERM
    broker_start
    heal
    flows 90
    row 60
    normal
}

daemon_killed() {
    fault "SIGKILL at random, $kills times, each third time while the broker is away"
    for n in $(seq "$kills"); do
        [ $((n % 3)) != 0 ] || broker_stop TERM
        sleep "$((RANDOM % 4)).$((RANDOM % 10))"
        kill -KILL "$daemon"
        wait "$daemon" 2>/dev/null || true
        start
        [ $((n % 3)) != 0 ] || { sleep 1; broker_start; }
    done
    heal
    flows 120
    note "events left open and ended after a restart: $(heard_since | grep -ac '"reason":"restart"')"
    row 60
}

stopped_and_started() {
    fault "stopped and started again"
    stop || complain "exit code $?"
    start
    heal
    flows 60
    note "events ended by the stop or the start: $(heard_since | grep -ac '"reason":"restart"')"
    row 60
}

thermal_throttling() {
    fault "thermal throttling signalled (a folder stands for /sys), then over"
    local zone=$work/sysfs/class/thermal/thermal_zone0 cooler=$work/sysfs/class/thermal/cooling_device0
    heat() { echo "$1" >"$zone/temp" && echo "$2" >"$cooler/cur_state"; }
    mkdir -p "$zone" "$cooler"
    echo cpu-thermal >"$zone/type"
    echo Processor >"$cooler/type"
    heat 45000 0
    stop || complain "exit code $?"
    VEDETTA_SYSFS=$work/sysfs start
    flows 60
    heat 97000 3
    expect_log 60 'slows itself down'
    expect_told 60 '"frame_share":0.5'
    note "$(log_since | grep 'slows itself down' | head -n 1 | sed 's/^\[[^]]*\] //')"
    flows 60
    mark
    heat 45000 0
    heal
    expect_log 180 'all frames are looked at again'
    expect_told 30 '"frame_share":1.0'
    row 60
}

write_broker 'allow_anonymous true'
broker_start
mosquitto_sub -h 127.0.0.1 -p "$ear_port" -i campaign-ear -c -q 1 -t 'vedetta/#' \
    -T 'vedetta/+/camera/+/snapshot' -F '%t %p' >"$heard" 2>/dev/null &
ear=$!
write_daemon
mark
start
until_true 120 told '/event ' || { tail "$work/log"; echo "campaign: FAIL the daemon does not start"; exit 1; }

for fault in "$@"; do
    "$fault"
    alive
done

unreported
name="the end"
flows 120
stop || complain "exit code $?"
close_books 30
