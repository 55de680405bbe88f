"""Numbers as people read them: three digits and a letter of a thousand, millions, billions, megabytes of 10⁶ bytes."""

from __future__ import annotations

from typing import Final

NO_BREAK: Final = "\u00a0"
"""A space at which no line ends."""


def quantity(value: float) -> str:
    """1234567 -> "1.23 M": three digits and a letter of a thousand."""
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def millions(number: int) -> str:
    """1234567 -> "1.23 M", without a place to break the line."""
    return f"{number / 1e6:.2f}{NO_BREAK}M"


def billions(number: int) -> str:
    """1234567890 -> "1.23 G", without a place to break the line."""
    return f"{number / 1e9:.2f}{NO_BREAK}G"


def megabytes(size: int) -> str:
    """1234567 bytes -> "1.2 MB", without a place to break the line."""
    return f"{size / 1e6:,.1f}{NO_BREAK}MB"


class Signed(float):
    """A number whose minus is one when it is formatted: f"{Signed(-0.0114):+.3f}" -> "−0.011"."""

    def __format__(self, spec: str) -> str:
        return super().__format__(spec).replace("-", "−")


def percent(share: float) -> str:
    """0.0714 -> "7.1 %"; 0 % and 100 % are said of exact ones only."""
    if 0 < share < 0.0005:
        return "<0.1 %"
    if 0.995 <= share < 1:
        return f"{min(99.9, 100 * share):.1f} %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
