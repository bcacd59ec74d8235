#!/bin/sh
# Writes constraints.txt: one version of every package that SparseZO and its extras need, for all systems and Pythons.
# install.sh, build_deb.sh and CI install these, so that a new installation works as today's does. Keeps the versions
# that pyproject.toml still allows; packaging/lock.sh --upgrade takes the newest.
set -eu
cd "$(dirname "$0")/.."
made=$(mktemp)
trap 'rm -f "$made"' EXIT
cp packaging/constraints.txt "$made"
uv pip compile pyproject.toml --quiet --all-extras --universal --python-version 3.11 --prerelease disallow \
    --no-header --no-annotate --output-file "$made" "$@" > /dev/null
{
    echo "# Written by packaging/lock.sh, which leaves out what PyTorch itself pins: its builds need different ones."
    grep -v -E '^(triton|cuda-|nvidia-(c|n))' "$made"
} > packaging/constraints.txt
