"""Plots of a comparison as SVG: a dot for each sender's median, a line for the middle half of its rounds.

Pure: the same figures give the same picture.  The scale is logarithmic, for the senders lie decades apart; where
there is a zero, it has a mark of its own at the left end.  The ground is light, so that dark pages can show it as well.
"""

from __future__ import annotations

import math
from html import escape

from comparison import Column, Comparison

_WIDTH, _LEFT, _RIGHT, _ROW, _HEAD, _EDGE = 760, 290, 80, 18, 40, 12
_STYLE = (
    ".b{fill:#fbfaf7}"
    "text{font:12px sans-serif;fill:#333}.h{font-weight:bold}.g{stroke:#ddd}.t{fill:#666;font-size:10px}"
    ".o{fill:#0a6;stroke:#0a6}.p{fill:#557;stroke:#557}line.o,line.p{stroke-width:3;opacity:.45}"
)


def plot(comparison: Comparison, part: str) -> str:
    """Return the picture of one part: a block for each column."""
    blocks, y, width = [], 8, _WIDTH + 2 * _EDGE
    for column in comparison.columns(part):
        if column.unit != "times" and any(
            value > 0 for values in comparison.values[column].values() for value in values
        ):
            block, y = _block(comparison, column, y)
            blocks.append(block)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-_EDGE} 0 {width} {y}" width="{width}" height="{y}" '
        f'role="img"><title>{escape(part)}</title><style>{_STYLE}</style>\n'
        f'<rect class="b" x="{-_EDGE}" width="{width}" height="{y}"/>\n{"".join(blocks)}</svg>\n'
    )


def _block(comparison: Comparison, column: Column, y: int) -> tuple[str, int]:
    keys = [key for key in comparison.names if comparison.values[column].get(key)]
    values = [value for key in keys for value in comparison.values[column][key]]
    known = [value for value in values if value > 0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    has_zero = len(known) < len(values)
    scale = _Scale(low - has_zero, max(high, low + 1))
    better = "less is better" if column.less_is_better else "more is better"
    bottom = y + _HEAD + _ROW * len(keys)
    parts = [f'<text class="h" x="0" y="{y + 14}">{escape(column.name)}, {escape(column.unit)} ({better})</text>\n']
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10.0**power)
        parts.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 32}" y2="{bottom - 4}"/>')
        mark = "0" if has_zero and power == scale.low else f"{10.0**power:g}"
        parts.append(f'<text class="t" x="{x:.1f}" y="{y + 28}" text-anchor="middle">{mark}</text>\n')
    for place, key in enumerate(keys):
        parts.append(_row(comparison, column, key, scale, y + _HEAD + _ROW * place + 6))
    return "".join(parts), bottom + 16


def _row(comparison: Comparison, column: Column, key: str, scale: _Scale, y: int) -> str:
    spread = comparison.spread(column, key)
    assert spread is not None
    name = "o" if key.startswith(comparison.ours) else "p"
    x = scale.x(spread.median)
    return (
        f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(comparison.names[key])}</text>'
        f'<line class="{name}" x1="{scale.x(spread.low):.1f}" x2="{scale.x(spread.high):.1f}" y1="{y}" y2="{y}"/>'
        f'<circle class="{name}" cx="{x:.1f}" cy="{y}" r="4"/>'
        f'<text x="{max(x, scale.x(spread.high)) + 8:.1f}" y="{y + 4}">{comparison.median(column, key)}</text>\n'
    )


class _Scale:
    """Powers of ten to pixels; what is not above the lowest one lies on it."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def x(self, value: float) -> float:
        """Where a value is."""
        place = (math.log10(value) - self.low) / (self.high - self.low) if value > 0 else 0.0
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, max(0.0, place))
