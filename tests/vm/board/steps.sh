# shellcheck shell=bash
# What the scenarios in guest.sh are made of. Each `need_…` and `…_arrives` does nothing where that was
# done before, so that every scenario can be run alone.

# Loading a model, embedding prompts and encoding a frame are slow where every instruction is emulated.
# shellcheck disable=SC2034
SLOW=600
PASSWORD=segretissima-7391

note() { echo "vm: note $*"; }
fail() { echo "vm: $*"; return 1; }
expect_equal() { # WHAT WANTED FOUND
    [ "$2" = "$3" ] || fail "$1 '$3', not '$2'"
}
expect_nothing() { # WHERE COMMAND…: which must print nothing
    local where=$1 printed
    shift
    printed=$("$@" 2>&1 | head -n 5)
    [ -z "$printed" ] || fail "something is $where: $printed"
}
wait_for() { # SECONDS COMMAND…
    local until=$((SECONDS + $1)) seconds=$1
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || { fail "not within $seconds s: $*"; return 1; }
        sleep 0.5
    done
}
property() { systemctl show -P "$2" "$1"; }

# Lines of the journal and messages count from the last `since`.
since() {
    journalctl -q --sync
    journalctl -q -n 0 --show-cursor | sed -n 's/^-- cursor: //p' >/run/cursor
    wc -l </run/messages >/run/mark
}
journal_says() { journalctl -q -o cat -u vedetta --after-cursor "$(cat /run/cursor)" | grep -q "$1"; }
retained() { [ "$(grep "^$1 " /run/messages | tail -n 1)" = "$1 $2" ]; } # TOPIC VALUE
message() { tail -n +$(($(cat /run/mark) + 1)) /run/messages | grep -q "$1"; }

need_package() { [ "$(dpkg-query -W -f '${Status}' vedetta 2>/dev/null)" = "install ok installed" ] || dpkg -i "$P/vedetta.deb" >/run/dpkg.log 2>&1; }
need_service() {
    need_package
    systemctl --quiet is-active vedetta && return
    owner_configures
    systemctl start vedetta
}

# What an owner does after the installation: a configuration, a password in a file of root's, and the
# lines that the unit's comment gives.
owner_configures() {
    cp "$P/vedetta.toml" /etc/vedetta/vedetta.toml
    (umask 077 && echo "$PASSWORD" >/etc/vedetta/mqtt-password)
    local unit
    for unit in vedetta vedetta@; do
        mkdir -p "/etc/systemd/system/$unit.service.d"
        printf '[Service]\nLoadCredential=mqtt-password:/etc/vedetta/mqtt-password\n' \
            >"/etc/systemd/system/$unit.service.d/password.conf"
    done
    systemctl daemon-reload
}

# A broker that lets nobody in without the password, and a subscriber that writes down what it hears.
broker_arrives() {
    systemctl --quiet is-active broker && return
    printf 'listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /run/broker.passwd\nuser root\n' >/run/broker.conf
    mosquitto_passwd -b -c /run/broker.passwd vedetta "$PASSWORD"
    systemd-run --quiet --unit=broker /usr/sbin/mosquitto -c /run/broker.conf
    wait_for 30 mosquitto_pub -h 127.0.0.1 -u vedetta -P "$PASSWORD" -t prova -m prova 2>/dev/null
    systemd-run --quiet --unit=subscriber -p StandardOutput=append:/run/messages \
        mosquitto_sub -h 127.0.0.1 -u vedetta -P "$PASSWORD" -t 'vedetta/#' \
        -T 'vedetta/+/camera/+/snapshot' -T 'vedetta/+/evidence/#' -F '%t %p'
}

# Renamed into place, so that the feeder never reads half a name.
show() { echo "$P/photos/$1.jpg" >/run/shown.new && mv /run/shown.new /run/shown; }
camera_arrives() {
    [ ! -e /dev/video9 ] || return 0
    [ -e /run/shown ] || show 01-banana
    local module
    while read -r module; do insmod "$P/modules/$module"; done <"$P/modules/order"
    insmod "$P/modules/v4l2loopback.ko" video_nr=9 card_label=loopback exclusive_caps=1 max_buffers=4
    systemd-run --quiet --unit=feeder "$P/feeder.sh"
}

# For a scenario that lacks something: `skip_scenario REASON; return`.
skip_scenario() { echo "vm: SKIPPED $scenario: $1"; return 77; }
wanted() { [ ! -s "$P/scenarios" ] || grep -qw "$1" "$P/scenarios"; }
scenario() {
    wanted "$1" || return 0
    scenario=$1
    since
    "$1"
    case $? in
    0) echo "vm: ok $1" ;;
    77) ;;
    *)
        echo "vm: FAIL $1"
        journalctl -q -o cat -u vedetta --after-cursor "$(cat /run/cursor)" | tail -n 12 | cut -c1-200
        ;;
    esac
}
touch /run/messages
