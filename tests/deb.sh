#!/usr/bin/env bash
# What cross/deb makes, looked at without installing it. Prints one line per check and one of counts.
#
#   tests/deb.sh BINARY GENERATOR   a device build, and a vedetta of this machine with the feature docs
#
# A build for arm64 is run by qemu where this machine is another: cross/build says what that takes.
set -uo pipefail
cd "$(dirname "$0")/.."
binary=$1 generator=$2
passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

check() { # NAME COMMAND…: passes when the command does.
    local name=$1
    shift
    if "$@" >"$work/said" 2>&1; then
        echo "deb: ok $name"
        passed=$((passed + 1))
    else
        echo "deb: FAIL $name"
        sed 's/^/deb:     /' "$work/said" | head -n 20
        failed=$((failed + 1))
    fi
}
skip() { echo "deb: SKIPPED $1: $2"; skipped=$((skipped + 1)); }
counts() { echo "deb: $passed passed, $failed failed, $skipped skipped"; [ "$failed" = 0 ]; }

if ! command -v dpkg-deb >/dev/null; then
    skip "the package" "no dpkg-deb here"
    counts
    exit
fi
cross/deb --binary "$binary" --generator "$generator" -o "$work/a" || { failed=1; counts; exit 1; }
package=$(echo "$work"/a/*.deb)
dpkg-deb -R "$package" "$root" || { failed=1; counts; exit 1; }
dpkg-deb -c "$package" >"$work/contents"
field() { dpkg-deb -f "$package" "$1"; }
has() { [ -s "$root/$1" ] || { echo "$1 is missing or empty"; return 1; }; }
nothing() { local printed; printed=$("$@"); [ -z "$printed" ] || { echo "$printed"; return 1; }; }

same_bytes() {
    sleep 1
    cross/deb --binary "$binary" --generator "$generator" -o "$work/b" && cmp "$work"/a/*.deb "$work"/b/*.deb
}
check "the same input gives the same bytes" same_bytes

everything_is_there() {
    local path
    for path in usr/bin/vedetta etc/vedetta/vedetta.toml usr/share/vedetta/vedetta.toml \
        usr/share/doc/vedetta/{copyright,changelog.gz,examples/config.example.toml} \
        usr/share/vedetta/models/demo/{bundle.toml,image.onnx,text.onnx,tokenizer.json,LICENSES.md} \
        usr/share/man/man1/vedetta{,-run,-check,-bundle-install}.1.gz usr/lib/sysusers.d/vedetta.conf \
        usr/share/bash-completion/completions/vedetta usr/share/zsh/vendor-completions/_vedetta \
        usr/share/fish/vendor_completions.d/vedetta.fish DEBIAN/{postinst,prerm,postrm}; do
        has "$path" || return 1
    done
    for path in systemd/*.service; do
        cmp "$path" "$root/usr/lib/systemd/system/$(basename "$path")" || return 1
    done
}
check "binary, units, configuration, model, pages, completions, licences are in it" everything_is_there
check "nothing is outside of /etc/vedetta and /usr" \
    nothing grep -vE ' \./((etc/(vedetta/(vedetta\.toml)?)?)|(usr/.*))?$' "$work/contents"
check "everything belongs to root" nothing grep -vE '^\S+ root/root ' "$work/contents"
modes() { awk '$1 !~ /^drwxr-xr-x$/ && $1 !~ /^-rw-r--r--$/ && !($1 == "-rwxr-xr-x" && $6 == "./usr/bin/vedetta")' "$work/contents"; }
check "folders 755, files 644, the binary 755: nothing setuid, nothing writable, no links" nothing modes
check "the configuration is the only conffile" \
    test "$(cat "$root/DEBIAN/conffiles")" = /etc/vedetta/vedetta.toml
check "every file has its checksum" sh -c "cd '$root' && md5sum --check --quiet DEBIAN/md5sums && \
    test \"\$(wc -l <DEBIAN/md5sums)\" = \"\$(find usr -type f | wc -l)\""
check "the version is Cargo.toml's" grep -qx "version = \"$(field Version)\"" Cargo.toml
glibc_fits() {
    local asked
    asked=$(field Depends | sed -n 's/.*libc6 (>= \([0-9.]*\)).*/\1/p')
    echo "asks for '$asked'"
    for needed in $(readelf -W --version-info "$root/usr/bin/vedetta" | grep -o 'GLIBC_2[0-9.]*' | sort -u); do
        dpkg --compare-versions "${needed#GLIBC_}" le "$asked" || { echo "$needed is needed"; return 1; }
    done
}
check "it asks for the glibc that the binary needs" glibc_fits
# 25 MB are the goal; the rest is room for what other compilers make of the same.
small_enough() {
    local size
    size=$(stat -c %s "$root/usr/bin/vedetta")
    echo "$size bytes"
    [ "$size" -le 26000000 ]
}
echo "deb: the binary has $(stat -c %s "$root/usr/bin/vedetta") bytes, the package $(stat -c %s "$package")"
check "the binary has at most 26 MB" small_enough
wrong_arch() {
    local other=arm64
    [ "$(field Architecture)" = arm64 ] && other=amd64
    ! cross/deb --binary "$binary" --arch "$other" --generator "$generator" -o "$work/c"
}
check "a binary is not packaged for another architecture" wrong_arch
for script in postinst prerm postrm; do
    check "$script is a shell script" sh -n "$root/DEBIAN/$script"
done

licences() {
    local file=$root/usr/share/doc/vedetta/copyright
    grep -q '^    tract-onnx [0-9]' "$file" && grep -q 'Grocery Store Dataset' "$file" || return 1
    ! grep -E '^    (candle|csv|clap_mangen)' "$file"
}
check "the licences are those of the device build" licences
check "a licence that is not allowed is refused" python3 - <<'PYTHON'
import importlib.util

spec = importlib.util.spec_from_file_location("licences", "cross/licences.py")
licences = importlib.util.module_from_spec(spec)
spec.loader.exec_module(licences)
assert licences.choose("GPL-3.0-only") is None
assert licences.choose("MIT AND GPL-3.0-only") is None
assert licences.choose("GPL-3.0-only OR (Zlib AND MIT)") == ["Zlib", "MIT"]
assert licences.choose("Apache-2.0/MIT") == ["MIT"]
assert licences.choose("(MIT OR Apache-2.0) AND Unicode-3.0") == ["MIT", "Unicode-3.0"]
assert licences.choose("Apache-2.0 WITH LLVM-exception") == ["Apache-2.0 WITH LLVM-exception"]
assert licences.choose("GPL-2.0 WITH Classpath-exception-2.0") is None
PYTHON

pages() {
    local page
    for page in "$root"/usr/share/man/man1/*.gz; do
        nothing sh -c "zcat '$page' | groff -k -man -Tutf8 -ww -z 2>&1" || { echo "$page"; return 1; }
    done
}
if command -v groff >/dev/null; then
    check "the manual pages format without a warning" pages
else
    skip "the manual pages format without a warning" "no groff here"
fi
check "bash completes commands" bash -c "source '$root/usr/share/bash-completion/completions/vedetta' &&
    COMP_WORDS=(vedetta c) COMP_CWORD=1 && _vedetta vedetta c vedetta && [[ \" \${COMPREPLY[*]} \" == *' cameras '* ]]"

runner=()
if [ "$(field Architecture)" != "$(dpkg --print-architecture)" ]; then
    runner=(qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu)
fi
runs() { ${runner:+"${runner[@]}"} "$root/usr/bin/vedetta" "$@"; }
# The package's own tree, from elsewhere: the binary finds the model that is packaged with it.
# Not grep -q: it would end before what it reads from, which counts as a failure with pipefail.
answers() {
    local photo=$PWD/models/photos/01-banana.jpg
    (cd / && runs score "$photo" --label "una banana" --label "una mela") | tee /dev/stderr |
        grep ' una banana  *9[0-9]\.[0-9] %' >/dev/null
}
if runs --version >/dev/null 2>&1; then
    check "the starter configuration is legal" runs check --effective --config "$root/etc/vedetta/vedetta.toml"
    check "the binary scores a photo with the packaged model" answers
elif [ ${#runner[@]} -gt 0 ] && ! command -v "${runner[0]}" >/dev/null; then
    skip "the binary runs" "no ${runner[0]} here"
else
    check "the binary runs" runs --version
fi

if command -v lintian >/dev/null; then
    # The maintainer's address would be a publisher's own.
    check "lintian finds no error" lintian --fail-on error --suppress-tags \
        bogus-mail-host,bogus-mail-host-in-debian-changelog "$package"
else
    skip "lintian finds no error" "no lintian here"
fi
counts
