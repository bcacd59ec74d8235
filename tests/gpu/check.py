"""Runs tests/gpu file by file, each in a process with a time limit, and keeps what they found in one JSON file.

    python tests/gpu/check.py [--out FILE] [--minutes N] [PART …]

A part that fails, crashes or takes too long ends nothing but itself. Exit code 1 where one did.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# What would be missed most comes first; seconds that each may take.
PARTS = {"correctness": 150, "seven": 240, "runs": 120, "starter": 120, "steps": 120, "streamed": 100, "faults": 100,
         "window": 100}  # fmt: skip


def machine() -> dict[str, Any]:
    """What this is."""
    import bitsandbytes
    import torch
    import transformers

    gpu = torch.cuda.get_device_properties(0)
    driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True,
                            text=True, check=False).stdout.strip()  # fmt: skip
    return {"gpu": gpu.name, "memory": gpu.total_memory, "driver": driver, "python": platform.python_version(),
            "torch": torch.__version__, "transformers": transformers.__version__,
            "bitsandbytes": bitsandbytes.__version__}  # fmt: skip


def part(name: str, seconds: float, results: Path) -> dict[str, Any]:
    """Outcome of one file of tests."""
    results.unlink(missing_ok=True)
    environment = {**os.environ, "SPARSEZO_GPU_RESULTS": str(results),
                   "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))}  # fmt: skip
    # The machine's own versions of libraries may warn of other things than the pinned ones.
    words = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-s", "-o", "filterwarnings=default", "--durations=5",
             str(HERE / f"test_{name}.py")]  # fmt: skip
    began, log = time.perf_counter(), results.with_suffix(f".{name}.log")
    with log.open("w") as file:
        try:
            code = subprocess.run(words, cwd=HERE.parents[1], stdout=file, stderr=subprocess.STDOUT, timeout=seconds,
                                  env=environment, check=False).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = -1
    lines = results.read_text().splitlines() if results.exists() else []
    found = [json.loads(line) for line in lines]
    return {
        "outcome": {0: "passed", -1: "took too long", 5: "not collected"}.get(code, "failed"),
        "seconds": round(time.perf_counter() - began, 1),
        "tests": [each for each in found if "test" in each],
        "figures": [each for each in found if "figure" in each],
        "log": "" if code == 0 else log.read_text(errors="replace")[-4000:],
    }


def main() -> int:
    """Runs the parts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("There is no CUDA GPU here, so there is nothing to check.")
        return 0
    out, end = options.out.resolve(), time.perf_counter() + 60 * options.minutes
    found: dict[str, Any] = {"machine": machine(), "parts": {}}
    for name in options.parts or PARTS:
        left = min(PARTS[name], end - time.perf_counter())
        if left < 15:
            found["parts"][name] = {"outcome": "no time left", "seconds": 0, "tests": [], "figures": [], "log": ""}
            continue
        print(f"{name} …", flush=True)
        found["parts"][name] = part(name, left, out.with_suffix(".lines"))
        out.write_text(json.dumps(found, indent=1))  # what there is survives whatever comes next
    print(table(found))
    return int(any(each["outcome"] != "passed" for each in found["parts"].values()))


def table(found: dict[str, Any]) -> str:
    """Parts, what failed, and figures, for people."""
    lines = [" ".join(f"{key} {value}" for key, value in found["machine"].items())]
    for name, each in found["parts"].items():
        passed = sum(test["outcome"] == "passed" for test in each["tests"])
        lines.append(f"{name:<12} {each['outcome']:<14} {passed}/{len(each['tests'])} tests, {each['seconds']} s")
        lines += [f"    {test['outcome']}: {test['test']}" for test in each["tests"] if test["outcome"] != "passed"]
        lines += [f"    {one['figure']}: {one['value']:,} {one['unit']}" for one in each["figures"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
