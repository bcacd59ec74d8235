#!/bin/sh
# Installs SparseZO for the current user, with the PyTorch that fits this computer's GPU, or its CPU:
#
#   packaging/install.sh [--torch BACKEND] [WHEEL|FOLDER]
#   packaging/install.sh --uninstall
#
# BACKEND is a word of 'uv tool install --torch-backend': auto (default: looks at the GPU and its driver), cpu, cu130,
# rocm7.2, xpu, …; or 'index' for the PyTorch of the package index. Without WHEEL or FOLDER, installs the checkout that
# contains this script. All versions are those of constraints.txt. Needs curl and nothing else: uv is downloaded if it is
# not there, and so is Python. Uninstalling leaves runs, exports and settings where they are.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
torch=auto
source=$(dirname "$here")
data=$HOME/.local/share
[ "$(uname -s)" != Darwin ] || data="$HOME/Library/Application Support"
data=${XDG_DATA_HOME:-$data}
desktop=$data/applications/sparsezo.desktop
image=$data/icons/hicolor/scalable/apps/sparsezo.svg

usage() {
    sed -n '2,11s/^#  \{0,1\}//p' "$0"
    exit "$1"
}

uninstall() {
    if ! command -v uv > /dev/null; then
        echo "install.sh: uv, with which SparseZO was installed, cannot be found. Add its folder to PATH." >&2
        exit 1
    fi
    uv tool uninstall sparsezo-gui
    rm -f "$desktop" "$image"
    echo "Removed. Your runs are still in ${SPARSEZO_HOME:-$data/sparsezo}."
}

add_to_menu() {
    mkdir -p "$(dirname "$desktop")" "$(dirname "$image")"
    sed "s|^Exec=sparsezo-gui|Exec=\"$bin/sparsezo-gui\"|" "$here/linux/sparsezo.desktop" > "$desktop"
    cp "$here/../resources/icons/sparsezo.svg" "$image"
}

remove=no
while [ $# -gt 0 ]; do
    case "$1" in
        --torch) [ $# -ge 2 ] || usage 2; torch=$2; shift ;;
        --torch=*) torch=${1#--torch=} ;;
        --uninstall) remove=yes ;;
        -h | --help) usage 0 ;;
        -*) echo "install.sh: unknown option '$1'." >&2; usage 2 >&2 ;;
        *) source=$1 ;;
    esac
    shift
done
if [ ! -e "$source" ]; then
    echo "install.sh: '$source' does not exist. Give a wheel or the folder of the source." >&2
    exit 2
fi

path=$PATH
PATH=$PATH:$HOME/.local/bin
if [ "$remove" = yes ]; then
    uninstall
    exit
fi
if ! command -v uv > /dev/null; then
    if ! command -v curl > /dev/null; then
        echo "install.sh: install uv first (https://docs.astral.sh/uv), or curl, which downloads it." >&2
        exit 1
    fi
    curl -LsSf https://astral.sh/uv/install.sh | sh
fi

# The versions in constraints.txt have wheels for these versions of Python.
set -- --force --python '>=3.11,<3.14' --constraints "$here/constraints.txt"
[ "$torch" = index ] || set -- "$@" --torch-backend "$torch"
uv tool install "$@" "$source"
bin=$(uv tool dir --bin)
[ "$(uname -s)" != Linux ] || add_to_menu
"$bin/sparsezo" doctor || true
case ":$path:" in
    *":$bin:"*) bin= ;;
    *) bin=$bin/ ;;
esac
echo
echo "Start the window with: ${bin}sparsezo-gui starter"
