# Sourced: prints the daemon's configuration of a campaign. A replayed camera whose photo changes with
# every frame makes events all the time; a bundle that knows colours makes them cheap.
# shellcheck shell=sh

# write_config DEVICE STATE BUNDLE PHOTOS: the part before [mqtt].
write_config() {
    cat <<TOML
device = "$1"
state_dir = "$2"

[model]
bundle = "$3"
threads = 1

[[camera]]
id = "banco"
replay = "$4"
rate_fps = 2
stall_after_s = 3

[decision]
enter = 0.6
dwell_s = 0
window = 1
TOML
    for colour in rosso verde blu giallo; do
        printf '\n[[label]]\nid = "%s"\nprompts = ["%s"]\ngroup = "colore"\n' "$colour" "$colour"
    done
}
