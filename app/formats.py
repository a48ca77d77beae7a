"""How pages write sizes, numbers and times. Filters of the templates; the browser's own clock work is in static/js/ages.js."""

import math
from datetime import datetime

from app.i18n import _, ngettext


def size(count: float) -> str:
    """1536 -> `1.50 kB`; powers of 1024, three figures."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.{0 if units[0] == 'B' or count >= 100 else 1 if count >= 10 else 2}f} {units[0]}"


def number(value: float | str | None, digits: int = 4) -> str:
    """Four significant figures, thousands apart; a dash for what is not there. NaN and infinities arrive as their names."""
    if value is None:
        return "–"
    if isinstance(value, str):
        value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.{max(digits - 2, 0)}e}".split("e")
        return f"{mantissa}e{int(exponent)}"  # 2.50e-5, as static/js/series.js writes it under the charts
    return f"{value:,.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}" if value else "0"


def duration(seconds: float | None) -> str:
    """`45 s`, `12 min`, `3 h 41 min`, `2 d 4 h`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return _("{n} s").format(n=round(seconds) if seconds >= 1 or not seconds else f"{seconds:.2g}")
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{n} min").format(n=minutes)
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return _("{h} h {m} min").format(h=hours, m=minutes) if minutes else _("{h} h").format(h=hours)
    return _("{d} d {h} h").format(d=hours // 24, h=hours % 24)


def ago(then: datetime, now: datetime) -> str:
    return _("{time} ago").format(time=duration(max(0, round((now - then).total_seconds()))))


def moment(at: datetime) -> str:
    """A machine-readable UTC time; pages show it in the reader's zone where scripts run."""
    return at.strftime("%Y-%m-%d %H:%M UTC")


def count(n: int, one: str, many: str) -> str:
    """`1 run`, `3 runs`, in the reader's language. For templates, where the texts are marked with these words."""
    return f"{n:,} {ngettext(one, many, n)}"
