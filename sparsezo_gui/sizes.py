"""Sizes in bytes as people read them, alike in terminal, window and messages: in powers of 1024, as memory is sold."""

from __future__ import annotations


def size(count: float) -> str:
    """1.24 GiB, 512 MiB, 2 KiB, by three digits from MiB on."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    digits = 0 if units[0] in ("B", "KiB") or abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:.{digits}f} {units[0]}"
