"""Line drawings as SVG, in panels beside each other."""

from collections.abc import Sequence
from html import escape

from attrs import frozen

_COLOURS = ("#0b6e4f", "#2a6fdb", "#d98324", "#9a9a9a", "#8e44ad")
_WIDTH, _HEIGHT, _MARGIN = 380, 240, 46


@frozen
class Line:
    """A name and its points, in the order of x."""

    name: str
    points: tuple[tuple[float, float], ...]


Panel = tuple[str, Sequence[Line], float]
"""Title, lines, and the y at which the panel ends: what is beyond is cut off."""


def draw(title: str, panels: Sequence[Panel]) -> str:
    """Return the panels as one picture; colours are the same in all."""
    width, height = len(panels) * (_WIDTH + _MARGIN) + _MARGIN, _HEIGHT + 3 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _MARGIN + number * (_WIDTH + _MARGIN))
    for number, line in enumerate(panels[0][1]):
        x, y = _MARGIN + number * 130, height - 14
        parts.append(f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, left: float) -> list[str]:
    title, lines, top = panel
    xs = [x for line in lines for x, _ in line.points]
    lowest, highest = min(xs), max(xs)

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + (x - lowest) / ((highest - lowest) or 1) * (_WIDTH - 20)
        return across, _MARGIN + 20 + (1 - min(y, top) / top) * _HEIGHT

    parts = [f'<text x="{left}" y="{_MARGIN + 6}">{escape(title)}</text>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = at(lowest, share * top)
        parts.append(
            f'<line x1="{left}" x2="{left + _WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#666">{share * top:g}</text>'
        )
    for x in sorted(set(xs)):
        across, y = at(x, 0)
        parts.append(
            f'<text x="{across:.1f}" y="{y + 16:.1f}" text-anchor="middle" fill="#666">{x:g}</text>'
        )
    for number, line in enumerate(lines):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line.points))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{_colour(number)}" stroke-width="2.5"/>'
        )
    return parts


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
