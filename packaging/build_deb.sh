#!/usr/bin/env bash
# Builds a package for this release of Debian or Ubuntu: packaging/build_deb.sh [--torch BACKEND] [--out FOLDER] [WHEEL]
#
# Everything is in /opt/sparsezo, so that nothing is downloaded when the package is installed or the program started, and
# removing it removes all of it. Only Python and Qt's system libraries come from the release, and so one package is for
# one release. BACKEND is as for install.sh, and 'cpu' by default: PyTorch for a GPU would make it ten times as large.
# Needs uv, dpkg-deb, and the python3 of the release.
set -euo pipefail
cd "$(dirname "$0")/.."

torch=cpu out=dist wheel=
while [ $# -gt 0 ]; do
    case "$1" in
        --torch) torch=$2; shift ;;
        --out) out=$2; shift ;;
        *.whl) wheel=$1 ;;
        *) echo "build_deb.sh: unknown argument '$1'." >&2; exit 2 ;;
    esac
    shift
done

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
if [ -z "$wheel" ]; then
    uv build --quiet --wheel --out-dir "$stage/wheel" .
    wheel=$(echo "$stage"/wheel/*.whl)
fi
python=/usr/bin/python3
release=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
next=$("$python" -c 'import sys; print("{}.{}".format(sys.version_info[0], sys.version_info[1] + 1))')
root=$stage/root
prefix=$root/opt/sparsezo

mkdir -p "$prefix"
uv venv --quiet --relocatable --no-config --python "$python" "$prefix"
backend=(--torch-backend "$torch")
[ "$torch" != index ] || backend=()
uv pip install --quiet --python "$prefix/bin/python" --link-mode copy --compile-bytecode \
    --constraints packaging/constraints.txt "${backend[@]}" "$wheel"
version=$("$prefix/bin/python" -c 'from importlib import metadata; print(metadata.version("sparsezo-gui"))')

# Not needed to run: headers for compiling extensions of PyTorch and Arrow, and code for GPUs that PyTorch cannot use.
site=$prefix/lib/python$release/site-packages
rm -rf "$site/torch/include" "$site/pyarrow/include" "$prefix"/.gitignore "$prefix"/bin/activate*
if grep -q "+cpu'" "$site/torch/version.py"; then
    rm -f "$site"/bitsandbytes/libbitsandbytes_{cuda,rocm,xpu}*.so
fi

for name in sparsezo sparsezo-gui; do
    mkdir -p "$root/usr/bin"
    ln -s "/opt/sparsezo/bin/$name" "$root/usr/bin/$name"
done
install -Dm644 packaging/linux/sparsezo.desktop -t "$root/usr/share/applications"
install -Dm644 packaging/linux/io.github.sparsezo.sparsezo.metainfo.xml -t "$root/usr/share/metainfo"
install -Dm644 resources/icons/sparsezo.svg -t "$root/usr/share/icons/hicolor/scalable/apps"
install -Dm644 LICENSE "$root/usr/share/doc/sparsezo/copyright"

mkdir "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<CONTROL
Package: sparsezo
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: The SparseZO authors <sparsezo@example.org>
Section: science
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: python3 (>= $release), python3 (<< $next), ca-certificates, libstdc++6, libegl1, libgl1, libxkbcommon0,
 libdbus-1-3, libfontconfig1, libglib2.0-0 | libglib2.0-0t64, libxcb-cursor0, libxcb-icccm4, libxcb-keysyms1,
 libxcb-shape0, libxkbcommon-x11-0
Recommends: fonts-dejavu-core
Description: fine-tune language models on a laptop
 Pick a model and a data set, see whether it fits, press Start, and watch loss,
 step latency and memory live. The model stays in 4 bits, and steps need the
 memory of inference. This package has PyTorch for CPUs.
CONTROL
# Files that Python wrote there when root ran the program belong to no package.
cat > "$root/DEBIAN/postrm" <<'POSTRM'
#!/bin/sh
set -e
case "$1" in
    remove | purge) rm -rf /opt/sparsezo ;;
esac
POSTRM
chmod 755 "$root/DEBIAN/postrm"
chmod -R u=rwX,go=rX "$root/opt" "$root/usr"

mkdir -p "$out"
deb=$out/sparsezo_${version}_python${release}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group -Zzstd -z9 --build "$root" "$deb" > /dev/null
echo "$deb: $(du -m "$deb" | cut -f1) MiB, installed $(du -sm --exclude=DEBIAN "$root" | cut -f1) MiB"
