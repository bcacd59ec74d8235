#!/usr/bin/env bash
# Installs in a bare system, tunes the starter in the window, exports it, uninstalls, and says how long each step took:
#
#   packaging/smoke.sh [--suite SUITE] [--tar FILE] [--recipe RECIPE] DEB|WHEEL
#
# The bare system is made by mmdebstrap (Debian's SUITE, by default this machine's), or unpacked from a tar file of it. A
# package is installed by apt; a wheel as a user does it, by install.sh, with this machine's uv and UV_FIND_LINKS, if set.
# Needs root. The window needs no screen. A RECIPE file, such as the starter's with fewer steps, is tuned instead of the
# starter; OMP_NUM_THREADS is passed on.
set -euo pipefail
# In a namespace of its own, so that nothing stays mounted whatever happens.
[ "${1:-}" = --unshared ] || exec unshare --mount "$0" --unshared "$@"
shift
cd "$(dirname "$0")/.."

# shellcheck disable=SC1091
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
tar="" recipe=""
while [ $# -gt 1 ]; do
    case "$1" in
        --suite) suite=$2 ;;
        --tar) tar=$2 ;;
        --recipe) recipe=$(realpath "$2") ;;
        *) echo "smoke.sh: unknown argument '$1'." >&2; exit 2 ;;
    esac
    shift 2
done
what=$(realpath "$1")
work=$(mktemp -d)
root=$work/root
home=$root/home/user

clean_up() {
    umount --recursive "$root/proc" "$root/dev" || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

inside() { chroot "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive "$@"; }
user() {
    # shellcheck disable=SC2016
    inside su user -c 'cd; PATH=$HOME/.local/bin:$PATH QT_QPA_PLATFORM=offscreen exec "$@"' -- \
        sh env ${OMP_NUM_THREADS:+OMP_NUM_THREADS=$OMP_NUM_THREADS} "$@"
}
timed() {
    local title=$1 TIMEFORMAT='%R %U %S'
    shift
    { time "$@" > "$work/log" 2>&1 || { cat "$work/log"; echo "FAILED: $title"; exit 1; }; } 2> "$work/times"
    awk -v title="$title" '{ printf "%-44s %7.1f s, processor %.1f s\n", title, $1, $2 + $3 }' "$work/times"
}
size() { printf '%-44s %5d MiB\n' "$1" "$(du -smxc "${@:2}" | tail -1 | cut -f1)"; }
expect() { "${@:2}" || { echo "FAILED: $1"; exit 1; }; }
# Starts the window, waits until its log has the words, and closes it.
window_until() {
    user sparsezo-gui &
    until grep -qs "$1" "$home"/.local/share/sparsezo/windows/*/log.txt; do
        jobs -r | grep -q . || return 1
        sleep 0.05
    done
    local folder
    folder=$(basename "$home"/.local/share/sparsezo/windows/*/)
    kill "${folder%%-*}" # its name begins with the process
    wait $!
}

mkdir "$root"
[ -n "$tar" ] || { tar=$work/bare.tar; timed "making a bare $suite" mmdebstrap --variant=minbase "$suite" "$tar"; }
tar -xf "$tar" -C "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp -L /etc/resolv.conf "$root/etc/"
inside useradd --create-home user
timed "apt-get update" inside apt-get update -q

qt="libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0 fonts-dejavu-core"
case "$what" in
    *.deb)
        cp "$what" "$root/tmp/sparsezo.deb"
        size "package" "$what"
        timed "apt-get install" inside apt-get install -qy --no-install-recommends /tmp/sparsezo.deb fonts-dejavu-core
        size "installed" "$root/opt/sparsezo"
        ;;
    *.whl)
        # shellcheck disable=SC2086
        timed "apt-get install (Python and Qt's libraries)" \
            inside apt-get install -qy --no-install-recommends python3 ca-certificates $qt
        cp "$(command -v uv)" "$root/usr/local/bin/"
        inside mkdir /source
        cp -r packaging resources "$root/source/"
        cp "$what" "$root/source/"
        torch=cpu
        variables=()
        if [ -n "${UV_FIND_LINKS:-}" ]; then
            cp -r "$UV_FIND_LINKS" "$root/wheels"
            torch=index variables=(UV_FIND_LINKS=/wheels)
        fi
        if [ -n "${SSL_CERT_FILE:-}" ]; then # of a proxy
            cp "$SSL_CERT_FILE" "$root/source/certificates.crt"
            variables+=(SSL_CERT_FILE=/source/certificates.crt)
        fi
        installer=(/source/packaging/install.sh --torch "$torch" "/source/$(basename "$what")")
        timed "install.sh" user env "${variables[@]}" "${installer[@]}"
        size "installed" "$home/.local/share/uv"
        ;;
    *) echo "smoke.sh: '$what' is neither a package nor a wheel." >&2; exit 2 ;;
esac

timed "sparsezo --version" user sparsezo --version
timed "sparsezo doctor" user sparsezo doctor
timed "window, first start" window_until "asked: loading the engine"
timed "window, second start" window_until "asked: loading the engine"
timed "window and engine" window_until "done: loading the engine"
tuned=starter
[ -z "$recipe" ] || { tuned=$(basename "$recipe") && cp "$recipe" "$home/"; }
timed "$tuned tuned in the window" user env HF_HUB_OFFLINE=1 sparsezo-gui "$tuned" --autostart --exit-when-done
tail -4 "$work/log"
run=$(echo "$home"/.local/share/sparsezo/runs/*)
expect "there is one run" test -f "$run/journal.bin"
timed "its export" user sparsezo export "${run#"$root"}" --format overlay --out tuned.safetensors
timed "sparsezo verify" user sparsezo verify "${run#"$root"}"

case "$what" in
    *.deb) timed "apt-get remove" inside apt-get remove -qy sparsezo ;;
    *.whl) timed "install.sh --uninstall" user "${installer[0]}" --uninstall ;;
esac
expect "the program is gone" test ! -e "$root/opt/sparsezo" -a ! -e "$root/usr/bin/sparsezo" \
    -a ! -e "$home/.local/bin/sparsezo" -a ! -e "$home/.local/share/applications/sparsezo.desktop"
expect "the run is kept" test -f "$run/journal.bin"
expect "the export is kept" test -s "$home/tuned.safetensors"
echo "Passed."
