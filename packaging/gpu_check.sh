#!/usr/bin/env bash
# Tries everything that only a GPU shows, in at most eight minutes: packaging/gpu_check.sh [--out FILE] [WHEEL …]
#
# Runs with the python3 that has PyTorch for the GPU. Wheels that this machine lacks, bitsandbytes first of all, can be
# given by path; they are installed beside it, into a folder that is removed again. Goes on after a failure, writes one
# JSON file (gpu-check.json) and prints a table. Without a CUDA GPU it says so and exits with 0.
set -euo pipefail
cd "$(dirname "$0")/.."

out=gpu-check.json
wheels=()
parts=()
while [ $# -gt 0 ]; do
    case "$1" in
        --out) out=$2; shift ;;
        *.whl) wheels+=("$1") ;;
        *) parts+=("$1") ;;
    esac
    shift
done
if ! python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    echo "There is no CUDA GPU here, or python3 has no PyTorch for one: nothing to check."
    exit 0
fi

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ ${#wheels[@]} -gt 0 ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${wheels[@]}"
fi
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
python3 tests/gpu/check.py --out "$out" ${parts[@]+"${parts[@]}"}
