"""Sizes and durations for people, the same in terminal, window and messages.

Sizes are in powers of 1024, as is usual for memory.
"""

from __future__ import annotations

import math


def size(count: float) -> str:
    """Such as 1.24 GiB, 512 MiB or 2 KiB; three digits from MiB on."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(value) >= 999.5 and len(units) > 1:
        value /= 1024
        del units[0]
    digits = 0 if units[0] in ("B", "KiB") or abs(value) >= 99.5 else 1 if abs(value) >= 9.95 else 2
    return f"{value:.{digits}f} {units[0]}"


def duration(value: float) -> str:
    """Durations: 45 s, 12 min, 3 h 20 min."""
    if not math.isfinite(value) or value < 0:
        return "–"
    if value < 90:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 2880 else f"{minutes / 1440:.1f} days"


def latency(value: float) -> str:
    """Step times: 8.3 ms, 120 ms, 1.45 s."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms" if value >= 0.1 else f"{value * 1000:.1f} ms"
