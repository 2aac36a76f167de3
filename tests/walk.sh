#!/usr/bin/env bash
# The whole walk of models/README.md with the demo bundle and real photos, up to the daemon: 60 photos of
# three things, fit, evaluate, quantize, calibrate, pack, `vedetta bundle install`, and the daemon that
# serves it to a real mosquitto. Checks that `vedetta score` agrees with `evaluate`, and that what the
# daemon publishes of a frame is what `score` says of it. Prints times and accuracies; the last line
# counts the checks.
#
#   tests/walk.sh [WORK]        WORK keeps what is made; default a temporary folder
#
# GROCERY names the Grocery Store Dataset (https://github.com/marcusklasson/GroceryStoreDataset), default
# ../shared/data/grocery. BIN names a folder with the binaries; else a release build is made.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PATH=$PATH:/usr/sbin
for tool in mosquitto mosquitto_sub jq; do
    command -v $tool >/dev/null || { echo "walk: SKIPPED: needs $tool (apt-get install mosquitto mosquitto-clients jq)"; exit 0; }
done
grocery=$(realpath -m "${GROCERY:-../shared/data/grocery}")
[ -d "$grocery/val" ] || { echo "walk: SKIPPED: no photos at $grocery; name the dataset with GROCERY"; exit 0; }
bin=${BIN:-}
if [ -z "$bin" ]; then
    cargo build --release --quiet --features train --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
bin=$(realpath "$bin")
if [ $# -gt 0 ]; then
    work=$(realpath -m "$1")
    mkdir -p "$work"
    trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null' EXIT
else
    work=$(mktemp -d)
    trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null; rm -rf "$work"' EXIT
fi
cd "$work"
passed=0 failed=0
check() { # WHAT CONDITION…
    local what=$1
    shift
    if "$@"; then passed=$((passed + 1)); echo "ok    $what"; else failed=$((failed + 1)); echo "WRONG $what"; fi
}
TIMEFORMAT='      %R s, %U s of processor time'
step() { printf '\n== %s\n' "$*" >&2; time "$bin/$@"; }

# take FROM TO COUNT FOLDER…: the first COUNT photos of each folder, as files of TO.
take() {
    local from=$1 to=$2 count=$3 kind
    shift 3
    mkdir -p "$to"
    for kind; do
        while read -r photo; do
            cp "$photo" "$to/$(basename "$photo")"
        done < <(find "$grocery/$from/$kind" -name '*.jpg' | sort | head -n "$count")
    done
}
rm -rf foto fotogrammi
take val foto/agrumi 5 Fruit/{Lemon,Lime,Orange,Satsumas}
take val foto/frutta-tropicale 5 Fruit/{Kiwi,Passion-Fruit,Pineapple}
take val foto/frutta-tropicale 3 Fruit/Mango
take val foto/frutta-tropicale 2 Fruit/Banana
take val foto/radici-e-tuberi 5 Vegetables/{Carrots,Red-Beet}
take val foto/radici-e-tuberi 4 Vegetables/Ginger
take val foto/radici-e-tuberi 6 Vegetables/Potato
take train fotogrammi/agrumi 2 Fruit/{Lemon,Lime,Orange,Satsumas}
take train fotogrammi/frutta-tropicale 2 Fruit/{Kiwi,Mango,Passion-Fruit,Pineapple}
take train fotogrammi/radici-e-tuberi 2 Vegetables/{Carrots,Red-Beet,Ginger,Potato}
take train fotogrammi/nessuno 2 Packages/{Milk,Juice} Vegetables/{Asparagus,Leek}
photos=$(find foto -name '*.jpg' | wc -l)
frames=$(find fotogrammi -name '*.jpg' | wc -l)
check "60 photos in three folders" [ "$photos" = 60 ]

step vedetta-train fit "$root/models/demo" -o negozio --data foto --cache cache --force
step vedetta-train evaluate --bundle negozio --frames fotogrammi
step vedetta-train quantize negozio -o negozio-int8 --photos fotogrammi --force
step vedetta-train calibrate --bundle negozio-int8 --frames fotogrammi -o soglie.toml
rm -f negozi.key negozi.pub negozio.tar.zst negozio.tar.zst.minisig
step vedetta-train keygen -o negozi -W
step vedetta-train pack negozio-int8 -o negozio.tar.zst --key negozi.key
step vedetta bundle verify negozio.tar.zst --key negozi.pub
step vedetta-train evaluate --bundle negozio.tar.zst --frames fotogrammi --calibration soglie.toml | tee evaluated
step vedetta score --bundle negozio.tar.zst --calibration soglie.toml --json fotogrammi/*/*.jpg >scored
check "every frame has scores" [ "$(grep -c '"labels"' scored)" = "$frames" ]

# What evaluate counted at the thresholds, and what score says of the same frames.
compared=0
for label in agrumi frutta-tropicale radici-e-tuberi; do
    counted=$(awk -v label="${label//-/[- ]}" '$0 ~ "^ *" label " " { row = $(NF - 1) " " $NF } END { print row }' evaluated)
    over=$(jq -r --arg name "${label//-/ }" '
        (.image | split("/")[1]) as $shown
        | .labels[] | select((.label | gsub("-"; " ")) == $name and .over == true)
        | if ($shown | gsub("-"; " ")) == $name then "found" else "mistaken" end' scored |
        awk '{ n[$1]++ } END { print n["found"] + 0, n["mistaken"] + 0 }')
    if ! sed -n "/^id = \"$label\"/,/^\[\[label/p" soglie.toml | grep -q '^enter = '; then
        echo "      $label keeps the configuration's threshold (calibrate said why), which score does not know"
        continue
    fi
    compared=$((compared + 1))
    check "score and evaluate agree on $label: $over found and mistaken" [ "$counted" = "$over" ]
done
check "most labels have a threshold of their own: $compared of 3" [ "$compared" -ge 2 ]

# The board: nothing is installed, one camera sees one frame of each thing, and one sees none of them.
port=$((20000 + RANDOM % 20000))
printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n' "$port" >mosquitto.conf
mosquitto -c mosquitto.conf >mosquitto.log 2>&1 &
rm -rf camere state
{
    printf 'device = "negozio"\nstate_dir = "%s/state"\n' "$work"
    printf '[model]\ncalibration = "%s/soglie.toml"\n' "$work"
    printf '[update]\npublic_key = "%s/negozi.pub"\ntrial_s = 5\n' "$work"
    printf '[mqtt]\nhost = "127.0.0.1"\nport = %s\n' "$port"
    for label in agrumi frutta-tropicale radici-e-tuberi; do
        printf '[[label]]\nid = "%s"\nnoun = "%s"\n' "$label" "${label//-/ }"
    done
    for camera in agrumi frutta-tropicale radici-e-tuberi nessuno; do
        mkdir -p "camere/$camera"
        cp "$(find "fotogrammi/$camera" -name '*.jpg' | sort | head -n 1)" "camere/$camera/"
        printf '[[camera]]\nid = "%s"\nreplay = "%s/camere/%s"\nrepeat = true\n' \
            "$camera" "$work" "$camera"
    done
} >vedetta.toml
step vedetta bundle install negozio.tar.zst --config vedetta.toml
"$bin/vedetta" run --config vedetta.toml >vedetta.log 2>&1 &
daemon=$!
mosquitto_sub -h 127.0.0.1 -p "$port" -W 120 -t 'vedetta/negozio/#' -F '%t %p' >heard 2>/dev/null &
last() { awk -v topic="$1" '$1 == topic { $1 = ""; line = substr($0, 2) } END { print line }' heard; }
states() { for c in agrumi frutta-tropicale radici-e-tuberi nessuno; do for l in agrumi frutta-tropicale radici-e-tuberi; do
    echo "$c $l $(last "vedetta/negozio/zone/$c/$l/state")"; done; done; }
for _ in $(seq 100); do
    sleep 1
    kill -0 $daemon 2>/dev/null || { cat vedetta.log; break; }
    [ "$(states | grep -cE ' (ON|OFF)$')" = 12 ] && break
done
sleep 4
printf '\n== the daemon\n'
serves=$(last vedetta/negozio/info | jq -r .bundle)
packed=$("$bin/vedetta" bundle verify negozio.tar.zst --key negozi.pub | sed -n 's/: good;.*//p')
echo "      serves $serves"
check "the daemon serves what was packed" [ "$serves" = "$packed" ]
while read -r camera label state; do
    frame=$(basename "$(echo "camere/$camera"/*.jpg)")
    want=$(jq -r --arg frame "fotogrammi/$camera/$frame" --arg name "${label//-/ }" '
        select(.image == $frame) | .labels[] | select((.label | gsub("-"; " ")) == $name)
        | "\(.probability) \(.over)"' scored)
    found=$(last "vedetta/negozio/zone/$camera/$label/attributes" | jq -r .probability)
    read -r probability over <<<"$want"
    close=$(awk -v a="$probability" -v b="$found" 'BEGIN { d = a - b; print (d < 0.01 && d > -0.01) ? "yes" : "no" }')
    check "$camera, $label: published $found, scored $probability" [ "$close" = yes ]
    case "$over" in
    true) check "$camera, $label is ON" [ "$state" = ON ] ;;
    false) check "$camera, $label is OFF" [ "$state" = OFF ] ;;
    esac
done < <(states)
kill $daemon 2>/dev/null || true
printf '\nwalk: %s passed, %s failed, 0 skipped\n' "$passed" "$failed"
[ "$failed" = 0 ]
