"""Sizes in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparsezo_gui import resources, sizes
from sparsezo_gui.sizes import size


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 KiB"), (1536, "2 KiB"), (5 * 2**20, "5.00 MiB"), (64 * 2**20, "64.0 MiB"),
        (512 * 2**20, "512 MiB"), (1000 * 2**20, "0.98 GiB"), (1.24 * 2**30, "1.24 GiB"), (12.5 * 2**30, "12.5 GiB"),
        (2**41, "2.00 TiB"), (2**60, "1048576 TiB"),
    ],
)  # fmt: skip
def test_three_digits_in_powers_of_1024(count, words):
    assert size(count) == words


def test_no_other_unit_is_told():
    files = [*Path(sizes.__file__).parent.rglob("*.py"), resources.ROOT.parent / "README.md"]
    files += resources.DOCS.rglob("*.md")
    assert [path for path in files if re.search(r"\b[kKMGT]B\b", path.read_text(encoding="utf-8"))] == []
