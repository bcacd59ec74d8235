"""Sizes in bytes for people, the same in terminal, window and messages: in powers of 1024, as is usual for memory."""

from __future__ import annotations


def size(count: float) -> str:
    """Such as 1.24 GiB, 512 MiB or 2 KiB; three digits from MiB on."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    digits = 0 if units[0] in ("B", "KiB") or abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:.{digits}f} {units[0]}"
