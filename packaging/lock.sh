#!/bin/sh
# Writes constraints.txt: one version of every package that SparseZO and its extras need, for all systems and Python 3.11
# and later. install.sh, build_deb.sh and CI install these, so that a new installation works as today's does.
set -eu
cd "$(dirname "$0")/.."
{
    echo "# Written by packaging/lock.sh. What PyTorch itself pins (CUDA, Triton) differs between its builds, and is left out."
    uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.11 --no-header --no-annotate "$@" |
        grep -v -E '^(triton|cuda-|nvidia-(c|n))'
} > packaging/constraints.new
mv packaging/constraints.new packaging/constraints.txt
