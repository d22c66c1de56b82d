"""Bars as SVG, drawn by hand: a plotting library would be the benchmark's largest dependency."""

from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

_COLOURS: Final = ("#0b7285", "#adb5bd", "#ced4da", "#e8590c", "#f2b705", "#495057")
_LEFT, _WIDE, _BAR, _GAP = 210, 420, 16, 14


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return a drawing of groups of bars, a bar a stack, on one scale."""
    stacks = list(dict.fromkeys(stack for group in groups.values() for stack in group))
    colours = dict(zip(stacks, _COLOURS * len(stacks), strict=False))
    most = max((value for group in groups.values() for value in group.values()), default=1.0) or 1.0
    parts, top = [_text(12, 24, title, "bold")], 44
    for name, group in groups.items():
        parts.append(_text(12, top + 12, name))
        for stack, value in group.items():
            wide = max(1.0, value / most * _WIDE)
            parts.append(
                f'<rect x="{_LEFT}" y="{top}" width="{wide:.1f}" height="{_BAR - 2}" fill="{colours[stack]}"/>'
            )
            parts.append(_text(_LEFT + wide + 6, top + 12, f"{value:.3g} {unit} · {stack}"))
            top += _BAR
        top += _GAP
    size = f'width="860" height="{top}" viewBox="0 0 860 {top}"'
    style = "text{font:12px system-ui,sans-serif;fill:#212529}.bold{font-weight:600;font-size:14px}"
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    body = "\n".join(parts)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{ground}\n{body}\n</svg>\n'


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
