#!/bin/bash
# Runs in the board's virtual machine, as a service: the scenarios in the order of a board's life.
# Prints `vm: ok|FAIL NAME`, and `vm: note …` for what was measured.
P=/run/payload
export LC_ALL=C.UTF-8
cd /
# shellcheck source=tests/vm/board/steps.sh
source "$P/steps.sh"

the_package_installs() {
    dpkg -i "$P/vedetta.deb" >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; return 1; }
    vedetta --version || return 1
    expect_equal "the unit is" enabled "$(systemctl is-enabled vedetta)" || return 1
    # Nobody has said yet what to look at.
    expect_equal "the service is" inactive "$(systemctl is-active vedetta)" || return 1
    local printed
    printed=$(systemd-analyze verify --man=no /usr/lib/systemd/system/vedetta{,@prova}.service 2>&1)
    expect_equal "systemd-analyze verify prints" "" "$printed" || return 1
    [ ! -e "$P/ships" ] || ! grep -q 'told to hang' /usr/bin/vedetta || fail "what ships can be told to hang"
}

it_starts_before_camera_and_broker_are_there() {
    need_package
    [ ! -e /dev/video9 ] && ! systemctl --quiet is-active broker || fail "camera or broker are there already" || return 1
    owner_configures
    SECONDS=0
    systemctl start vedetta || { systemctl status vedetta; return 1; }
    note "start with an empty state directory: $SECONDS s"
    wait_for 60 journal_says 'camera banco: .*trying again' || return 1
    wait_for 60 journal_says 'cannot reach' || return 1
    expect_equal "restarts" 0 "$(property vedetta NRestarts)" || return 1
    expect_equal "the service is" active "$(systemctl is-active vedetta)"
}

camera_and_broker_arrive_and_so_does_the_right_event() {
    need_service
    broker_arrives
    wait_for 90 retained vedetta/vm/status online || return 1
    show 01-banana
    camera_arrives
    SECONDS=0
    wait_for "$SLOW" message 'vedetta/vm/event .*"type":"confirmed".*"label":"banana"' || return 1
    note "from the camera to the event: $SECONDS s"
    show 02-carota
    wait_for "$SLOW" message 'vedetta/vm/event .*"type":"confirmed".*"label":"carota"' || return 1
    wait_for 30 message 'vedetta/vm/event .*"type":"ended".*"label":"banana"'
}

the_password_is_nowhere_to_be_read() {
    need_service
    broker_arrives
    wait_for 90 retained vedetta/vm/status online || return 1
    local pid
    pid=$(property vedetta MainPID)
    expect_nothing "in the process list" grep -a "$PASSWORD" "/proc/$pid/cmdline" "/proc/$pid/environ" \
        && expect_nothing "in the journal" journalctl -q -b -u vedetta -g "$PASSWORD" \
        && expect_nothing "in the unit" sh -c "systemctl show vedetta | grep '$PASSWORD'" \
        && expect_nothing "in the messages" grep "$PASSWORD" /run/messages
}

the_service_is_confined() {
    need_service
    local pid status
    pid=$(property vedetta MainPID)
    status=/proc/$pid/status
    expect_equal "a name for its user" "" "$(getent --service=files passwd "$(awk '/^Uid:/ { print $2 }' "$status")")" || return 1
    [ "$(awk '/^Uid:/ { print $2 }' "$status")" -ge 61184 ] || fail "it does not run as a dynamic user" || return 1
    expect_equal "capabilities" 0000000000000000 "$(awk '/^CapBnd:/ { print $2 }' "$status")" || return 1
    expect_equal "no new privileges" 1 "$(awk '/^NoNewPrivs:/ { print $2 }' "$status")" || return 1
    expect_equal "system calls are filtered" 2 "$(awk '/^Seccomp:/ { print $2 }' "$status")" || return 1
    note "$(property vedetta TasksCurrent) tasks, $(($(property vedetta MemoryCurrent) / 1000000)) MB"
}

a_reload_takes_a_new_label_and_refuses_a_wrong_file() {
    need_service
    broker_arrives
    camera_arrives
    local pid
    pid=$(property vedetta MainPID)
    printf '\n[[label]]\nnoun = "ananas"\n' >>/etc/vedetta/vedetta.toml
    since
    SECONDS=0
    systemctl reload vedetta || return 1
    wait_for "$SLOW" journal_says 'configuration reloaded' || return 1
    note "reload with a new label: $SECONDS s"
    wait_for "$SLOW" message 'vedetta/vm/zone/banco/ananas/state' || return 1
    cp /etc/vedetta/vedetta.toml /run/good.toml
    echo 'colour = "red"' >>/etc/vedetta/vedetta.toml
    since
    systemctl reload vedetta || return 1
    wait_for 60 journal_says 'vedetta.toml:[0-9]*: .*colour' || return 1
    cp /run/good.toml /etc/vedetta/vedetta.toml
    expect_equal "restarts" 0 "$(property vedetta NRestarts)" || return 1
    expect_equal "the service is" active "$(systemctl is-active vedetta)" || return 1
    expect_equal "its process is" "$pid" "$(property vedetta MainPID)"
}

# Longer than WatchdogSec, where the thread that feeds the watchdog embeds the prompts.
a_long_reload_is_not_taken_for_a_hang() {
    need_service
    local pid noun
    pid=$(property vedetta MainPID)
    for noun in mela pera limone arancia pomodoro zucchina cipolla patata melanzana peperone cetriolo finocchio \
        carciofo asparago fungo pesca albicocca ciliegia fragola melone anguria uva cavolo lattuga; do
        printf '\n[[label]]\nnoun = "%s"\n' "$noun"
    done >>/etc/vedetta/vedetta.toml
    since
    SECONDS=0
    systemctl reload vedetta || return 1
    wait_for "$SLOW" journal_says 'configuration reloaded' || return 1
    note "reload with 24 new labels: $SECONDS s"
    expect_equal "its process is" "$pid" "$(property vedetta MainPID)" || return 1
    owner_configures
    systemctl reload vedetta
}

root_installs_a_bundle_for_the_service() {
    need_service
    broker_arrives
    camera_arrives
    SECONDS=0
    # The password is a credential of the service's; by hand its folder is named. A frame takes seconds
    # here, and a bundle that cannot keep the frame rate would be refused.
    CREDENTIALS_DIRECTORY=/etc/vedetta vedetta bundle install "$P/bundle.tar.zst" \
        --set camera.0.rate_fps=0.01 >/run/installed 2>&1 || { cat /run/installed; return 1; }
    note "bundle install: $SECONDS s"
    local strangers id
    strangers=$(find /var/lib/vedetta/ ! -uid "$(stat -c %u /var/lib/vedetta/)")
    expect_equal "files that the service does not own are" "" "$strangers" || return 1
    id=$(sed -n 's/^\([^ ]*\) is installed; .*/\1/p' /run/installed)
    [ -n "$id" ] || { cat /run/installed; return 1; }
    since
    systemctl reload vedetta || return 1
    wait_for "$SLOW" journal_says 'is on trial' || return 1
    wait_for "$SLOW" message "vedetta/vm/info .*$id" || return 1
    wait_for "$SLOW" journal_says 'has proved itself'
}

it_stops_within_two_seconds() {
    need_service
    broker_arrives
    wait_for 90 retained vedetta/vm/status online || return 1
    local before after
    before=$(date +%s%N)
    systemctl stop vedetta
    after=$(date +%s%N)
    note "stop: $(((after - before) / 1000000)) ms"
    expect_equal "the result" success "$(property vedetta Result)" || return 1
    wait_for 10 retained vedetta/vm/status offline || return 1
    [ $((after - before)) -lt 2000000000 ] || fail "it took longer than 2 s"
}

a_wrong_configuration_stays_failed_and_says_why() {
    need_package
    owner_configures
    systemctl stop vedetta
    sed -i 's/^port = .*/port = 70000/' /etc/vedetta/vedetta.toml
    ! systemctl start vedetta 2>/dev/null || fail "it started" || return 1
    # Longer than RestartSec.
    sleep 8
    expect_equal "the service is" failed "$(systemctl is-active vedetta)" || return 1
    expect_equal "the exit status is" 78 "$(property vedetta ExecMainStatus)" || return 1
    expect_equal "restarts" 0 "$(property vedetta NRestarts)" || return 1
    systemctl status vedetta >/run/status
    sed -n 's/.*vedetta\[[0-9]*\]: //p' /run/status
    grep -q 'vedetta.toml:[0-9]*: mqtt.port = 70000: ' /run/status || fail "systemctl status does not say why" || return 1
    owner_configures
    systemctl reset-failed vedetta
}

# Three instances, of which each loses another thread.
the_watchdog_restarts_what_hangs() {
    [ -e "$P/vedetta-faults" ] || { skip_scenario "what ships cannot be told to hang"; return; }
    need_package
    broker_arrives
    systemctl stop vedetta
    mkdir -p /run/systemd/system/vedetta@.service.d
    printf '[Service]\nExecStart=\nExecStart=%s/vedetta-faults run --config /etc/vedetta/%%i.toml\n' "$P" \
        >/run/systemd/system/vedetta@.service.d/faults.conf
    owner_configures
    local stage pid failures=0 owners
    for stage in capture inference mqtt; do cp "$P/instance.toml" "/etc/vedetta/$stage.toml"; done
    systemctl start vedetta@{capture,inference,mqtt} || { systemctl status 'vedetta@*'; return 1; }
    for stage in capture inference mqtt; do
        wait_for 90 retained "vedetta/vm-$stage/status" online || return 1
    done
    owners=$(stat -c %u /var/lib/vedetta-{capture,inference,mqtt}/ | sort -u | wc -l)
    expect_equal "users of three instances" 3 "$owners" || return 1
    for stage in capture inference mqtt; do
        echo "$stage" >"/var/lib/vedetta-$stage/fault"
        chown --reference="/var/lib/vedetta-$stage/" "/var/lib/vedetta-$stage/fault"
    done
    SECONDS=0
    for stage in capture inference mqtt; do
        restarted "$stage" &
    done
    wait
    for stage in capture inference mqtt; do
        [ -e "/run/restarted-$stage" ] || { failures=1; journalctl -q -b -o cat -u "vedetta@$stage" | tail -n 15; }
    done
    systemctl stop 'vedetta@*'
    return $failures
}
restarted() {
    local unit=vedetta@$1
    wait_for 150 restarted_by_watchdog "$unit" || return 1
    note "$1 hangs: killed by the watchdog after $SECONDS s"
    wait_for "$SLOW" active "$unit" || return 1
    note "$1 hung: works again after $SECONDS s"
    journalctl -q -b -o cat -u "$unit" | grep -q "^$1.* hangs, silent for" || return 1
    touch "/run/restarted-$1"
}
restarted_by_watchdog() { journalctl -q -b -o cat -u "$1" | grep -q "Failed with result 'watchdog'"; }
active() { [ "$(property "$1" NRestarts)" -ge 1 ] && systemctl --quiet is-active "$1"; }

the_journal_is_readable() {
    need_service
    journalctl -q -b -u vedetta -o cat _COMM=vedetta >/run/journal
    head -n 20 /run/journal | cut -c1-160
    expect_nothing "of colours, priorities or time stamps in its lines" grep -nP '\x1b|^<[0-9]>|^\[?\d{4}-' /run/journal || return 1
    expect_nothing "longer than 300 characters" grep -nE '.{300}' /run/journal || return 1
    journalctl -q -b -u vedetta -p warning -o cat | grep -q 'camera banco' || fail "a lost camera is no warning" || return 1
    ! journalctl -q -b -u vedetta -p warning -o cat | grep -q 'loaded in' || fail "what is normal is a warning"
}

an_upgrade_keeps_the_configuration_and_restarts() {
    need_service
    local pid before
    pid=$(property vedetta MainPID)
    before=$(sha256sum </etc/vedetta/vedetta.toml)
    # As unattended-upgrades does.
    dpkg --force-confdef --force-confold -i "$P/next.deb" >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; return 1; }
    expect_equal "the configuration is" "$before" "$(sha256sum </etc/vedetta/vedetta.toml)" || return 1
    [[ $(dpkg-query -W -f '${Version}' vedetta) == *+next ]] || fail "the version is the old one" || return 1
    wait_for "$SLOW" systemctl --quiet is-active vedetta || return 1
    [ "$(property vedetta MainPID)" != "$pid" ] || fail "the old program still runs"
}

removed_it_leaves_configuration_and_state() {
    need_service
    dpkg -r vedetta >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; return 1; }
    expect_equal "the service is" inactive "$(systemctl is-active vedetta)" || return 1
    expect_nothing "running" grep -slx vedetta /proc/[0-9]*/comm || return 1
    [ ! -e /usr/lib/systemd/system/vedetta.service ] || fail "the unit is still there" || return 1
    [ -e /etc/vedetta/vedetta.toml ] || fail "the configuration is gone" || return 1
    [ -e /var/lib/vedetta/outbox.redb ] || fail "the state is gone"
}

purged_it_leaves_nothing() {
    need_package
    dpkg -P vedetta >/run/dpkg.log 2>&1 || { cat /run/dpkg.log; return 1; }
    # What the owner made by hand stays the owner's.
    rm -rf /etc/systemd/system/vedetta{,@}.service.d /etc/vedetta/mqtt-password /etc/vedetta/{capture,inference,mqtt}.toml
    rmdir --ignore-fail-on-non-empty /etc/vedetta 2>/dev/null
    expect_nothing "left" find / -xdev -name '*vedetta*' -not -path '/var/log/*' -not -path '/var/lib/systemd/*'
}

scenario the_package_installs
scenario it_starts_before_camera_and_broker_are_there
scenario camera_and_broker_arrive_and_so_does_the_right_event
scenario the_password_is_nowhere_to_be_read
scenario the_service_is_confined
scenario a_reload_takes_a_new_label_and_refuses_a_wrong_file
scenario a_long_reload_is_not_taken_for_a_hang
scenario root_installs_a_bundle_for_the_service
scenario it_stops_within_two_seconds
scenario a_wrong_configuration_stays_failed_and_says_why
scenario the_watchdog_restarts_what_hangs
scenario the_journal_is_readable
scenario an_upgrade_keeps_the_configuration_and_restarts
scenario removed_it_leaves_configuration_and_state
scenario purged_it_leaves_nothing
note "all of it took $(cut -d. -f1 /proc/uptime) s"
echo "vm: done"
sync
systemctl poweroff -ff
