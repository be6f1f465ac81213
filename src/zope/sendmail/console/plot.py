"""Plots of the last hours as SVG.  Pure; only numbers and our own words are in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from zope.sendmail.lifecycle.rates import Minute

#: About as many as the pixels on which it is shown, so that its letters have their size.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 140, 44, 22, 8


def bars(
    minutes: Sequence[Minute], now: float, title: str, value: Callable[[Minute], float], *, span: int = 180
) -> str:
    """Return a plot with a bar for each of some minutes.

    :param now: seconds since the epoch; the last bar is that minute's
    :param title: what it shows, for screen readers
    :param value: the height of a minute's bar
    :param span: minutes
    """
    last = int(now // 60)
    heights = {each.minute: value(each) for each in minutes if last - span < each.minute <= last}
    top = nice(max(heights.values(), default=0.0))
    width = (WIDTH - LEFT) / span
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
        f"<title>{title}</title>",
    ]
    for part in (0.0, 0.5, 1.0):
        y = _y(top * part, top)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}"/>')
        parts.append(f'<text class="scale" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * part:g}</text>')
    for minute, height in heights.items():
        x = LEFT + (minute - last + span - 1) * width
        y = _y(height, top)
        size = f'width="{max(width - 0.3, 1):.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
        parts.append(f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" {size}/>')
    for back in range(0, span, 60):
        x = LEFT + (span - back) * width
        moment = datetime.fromtimestamp((last - back) * 60, UTC).astimezone().strftime("%H:%M")
        parts.append(f'<text class="scale" x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="end">{moment}</text>')
    return "".join([*parts, "</svg>"])


def nice(number: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50, ... that is not smaller; 1 for nothing."""
    if number <= 0:
        return 1.0
    unit = 10.0 ** (len(str(int(number))) - 1) if number >= 1 else 0.001
    while True:
        for step in (1, 2, 5):
            if step * unit >= number:
                return step * unit
        unit *= 10


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / top
