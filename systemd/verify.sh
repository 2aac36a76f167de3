#!/usr/bin/env bash
# Checks both units. `systemd-analyze verify` returns 0 on unknown keys, so what counts is that it
# prints nothing. Prints a line of counts.
set -uo pipefail
cd "$(dirname "$0")" || exit
# Elsewhere systemd-analyze writes + and - for its ticks and crosses.
export LC_ALL=C.UTF-8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
verdict() { # NAME, and what is wrong on standard input
    local wrong
    wrong=$(cat)
    if [ -z "$wrong" ]; then
        echo "unit: ok $1"
        passed=$((passed + 1))
    else
        echo "unit: FAIL $1"
        echo "$wrong"
        failed=$((failed + 1))
    fi
}

# The template is the service but for these lines.
as_service() {
    sed -e '/^#/d; /^Environment=VEDETTA_INSTANCE=%i$/d; /^User=vedetta-%i$/d; s/ (%i)$//; s#/etc/vedetta/%i\.toml#/etc/vedetta/vedetta.toml#' \
        -e 's/^StateDirectory=vedetta-%i$/StateDirectory=vedetta/; s#%S/vedetta-%i/#%S/vedetta/#' vedetta@.service
}
verdict "the template differs only by its instance" < <(diff <(sed '/^#/d' vedetta.service) <(as_service) 2>&1)

# The units name /usr/bin/vedetta, which need not be installed where this runs.
for unit in vedetta.service vedetta@.service; do
    sed "s#^ExecStart=/usr/bin/vedetta#ExecStart=$(command -v true)#; /^Documentation=/d" "$unit" >"$work/$unit"
done
cp "$work/vedetta@.service" "$work/vedetta@prova.service"
security() { systemd-analyze security --offline=true "$@" 2>&1; }
for unit in vedetta.service vedetta@prova.service; do
    verdict "$unit: systemd-analyze verify is silent" < <(systemd-analyze verify --man=no "$work/$unit" 2>&1)
    verdict "$unit: exposure of at most 2.0" < <(security --threshold=20 "$work/$unit" >"$work/said" || tail -n 1 "$work/said")
done

# What is given up is explained in the unit, each by the name that systemd-analyze gives it.
unexplained() {
    local given_up explained crosses
    explained=$(sed -n '/^# What `systemd-analyze/,/^$/p' vedetta.service)
    crosses=$(security "$work/vedetta.service" | awk '$1 == "✗" { print $2 }')
    [ -n "$crosses" ] || echo "systemd-analyze security named nothing: is its output another one?"
    sed 's/^SystemCallFilter=//; s/^RestrictAddressFamilies=//; s/^~AF_(INET|INET6)$/~AF_INET6/; s#^RootDirectory=/.*#RootDirectory=#' <<<"$crosses" \
        | while read -r given_up; do
            grep -qF -- "$given_up" <<<"$explained" || echo "$given_up is not explained"
        done
}
verdict "every item that is given up is explained" < <(unexplained)
echo "unit: $passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
