"""The page about performance: its tables and drawings, made from a run's results."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.figures import PINS, Figures, worst
from bench.plot import bars
from bench.record import Results, failures
from bench.stacks.lineup import STACKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
_REGIMES = ("stepped", "spread", "sse")
_TITLES = {stack.name: stack.title for stack in STACKS.values()} | {"direct": "the decoder itself"}
_BACKLOG_AND_PACED = ("backlog", "paced100", "paced300")
_SAID = {
    "paced100": "100 × 50 tokens/s",
    "paced300": "300 × 20 tokens/s",
    "backlog": "32 streams, backlog",
    "short_stream": "16 tokens, streamed",
    "short_whole": "16 tokens, in one piece",
    "first": "alone",
    "burst": "100 at once",
    "held": "2,000 × 1 token/s",
}


def write_report(results: Results, page: Path = PAGE) -> None:
    """Write tables into the page, between its marks, and the drawings beside it."""
    figures = Figures(results)
    text = page.read_text()
    for name, table in tables(figures).items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not block.search(text):
            raise LookupError(f"{page.name} has no place for {name}")
        text = block.sub(lambda found, table=table: found[1] + table + "\n" + found[2], text)  # type: ignore[misc]  # the default binds early
    page.write_text(text)
    for name, drawing in drawings(figures).items():
        (page.parent / f"performance-{name}.svg").write_text(drawing)


def tables(figures: Figures) -> dict[str, str]:
    """Return the page's generated parts by name."""
    return {
        "about": _about(figures),
        "goals": goals(figures),
        "tokens": _tokens(figures),
        "latency": _latency(figures),
        "requests": _requests(figures),
        "memory": _memory(figures),
        "decoders": _decoders(figures),
    }


def drawings(figures: Figures) -> dict[str, str]:
    """Return the drawings by name."""
    cells = [(cell, regime) for cell in _BACKLOG_AND_PACED for regime in _REGIMES]
    token = {f"{_SAID[c]}, {r}": _bars(figures, r, c, "cpu_us_token") for c, r in cells}
    first = {
        f"{_SAID[c]}, {r}": _bars(figures, r, c, "first_ms.p50")
        for c in ("first", "burst")
        for r in _REGIMES
    }
    memory = {f"{_SAID['held']}, {r}": _bars(figures, r, "held", "kb_stream") for r in _REGIMES}
    return {
        "tokens": bars("CPU a token", "µs", _filled(token)),
        "first": bars("First token, p50", "ms", _filled(first)),
        "memory": bars("Memory an open stream", "KiB", _filled(memory)),
    }


def goals(figures: Figures) -> str:
    """Return the table of what is reached."""
    rows = []
    for v in figures.verdicts():
        unit = " ms" if v.goal.added else ""
        levels = [f"{level:g}{unit}" for level in v.goal.levels]
        than = "" if v.against_predecessor is None else f"{v.against_predecessor:.2f}"
        standing = f"**{v.standing:.2f}{unit}**"
        where = f"{_SAID[v.cell]}, {v.pin}"
        rows.append(
            [v.goal.title, where, _number(v.ours), _number(v.strong), standing, *levels, v.reached, than]
        )  # fmt: skip
    head = ["figure", "worst at", "ark-trio", "strong", "ratio", "must", "goal", "stretch"]
    return _table([*head, "reached", "to the predecessor's"], rows)


def _about(figures: Figures) -> str:
    rounds = max((sample.round for sample in figures.samples), default=0) + 1
    about = figures.about
    lines = [
        f"{about['date']}, {about['commit']}: {about['machine']}; {about['system']}. Median of {rounds} rounds.",
        *_left_out(figures),
        *(f"- lost: {line}" for line in failures(figures.samples)),
    ]
    return "\n".join(lines)


def _left_out(figures: Figures) -> list[str]:
    """Return how many gaps were left out as the machine's own, of each stack in its worst cell."""
    places = [(regime, "paced100", pin) for regime in _REGIMES for pin in PINS]
    parts = []
    for stack in figures.stacks:
        shares = [figures.median(place, stack, "calm_share") for place in places]
        known = [share for share in shares if share is not None]
        if known:
            parts.append(f"{_TITLES[stack]} {100 * (1 - min(known)):.0f} %")
    if not parts:
        return []
    return [f"Gaps left out as the machine's own slow moments (see below): {', '.join(parts)}."]


def _tokens(figures: Figures) -> str:
    places = [(cell, regime) for cell in _BACKLOG_AND_PACED for regime in _REGIMES]
    return _by_stack(figures, places, ("cpu_us_token",), "CPU a token, µs")


def _requests(figures: Figures) -> str:
    cells = ("short_stream", "short_whole", "burst")
    places = [(cell, regime) for cell in cells for regime in _REGIMES]
    return _by_stack(figures, places, ("cpu_ms_request",), "CPU a request, ms")


def _memory(figures: Figures) -> str:
    rows = []
    for key, title in (
        ("kb_stream", "KiB an open stream"),
        ("idle_mb", "MiB before it"),
        ("start_s", "start-up, s"),
    ):
        each = [_first_known(figures, stack, key) for stack in _measured(figures)]
        rows.append([title, *map(_number, each)])
    return _table(["", *map(_titled, _measured(figures))], rows)


def _first_known(figures: Figures, stack: str, key: str) -> float | None:
    return worst(figures.worse(regime, "held", stack, key) for regime in _REGIMES)


def _latency(figures: Figures) -> str:
    """Return what each stack adds to reading the decoder directly, p50 / p99."""
    rows = []
    for cell, key, title in (
        ("first", "first_ms", "first token, alone"),
        ("burst", "first_ms", "first token, 100 at once"),
        ("paced100", "delay_ms", "later tokens, 100 × 50/s"),
        ("paced300", "delay_ms", "later tokens, 300 × 20/s"),
        ("paced100", "gap_ms", "gap between tokens, 100 × 50/s, with the machine's slow moments"),
        ("paced100", "calm_gap_ms", "gap between tokens, 100 × 50/s, without"),
    ):
        for regime in _REGIMES:
            each = [_added(figures, regime, cell, stack, key) for stack in _measured(figures)]
            if any(each):
                rows.append([title, regime, *each])
    return _table(["added, ms", "decoder", *map(_titled, _measured(figures))], rows)


def _added(figures: Figures, regime: str, cell: str, stack: str, key: str) -> str:
    parts = [
        worst(figures.added((regime, cell, pin), stack, f"{key}.{part}") for pin in PINS)
        for part in ("p50", "p99")
    ]
    return "" if parts[0] is None else " / ".join(map(_number, parts))


def _decoders(figures: Figures) -> str:
    rows = []
    for regime in ("stepped", "spread", "echo"):
        reads = figures.worse(regime, "steps", "direct", "frames_a_read")
        cost = figures.worse(regime, "steps", "direct", "cpu_us_token")
        if reads is not None:
            rows.append([regime, f"{reads:.1f}", _number(cost)])
    return _table(["decoder", "frames a read", "its own CPU a token, µs"], rows)


def _by_stack(
    figures: Figures, places: Iterable[tuple[str, str]], keys: Sequence[str], title: str
) -> str:
    rows = []
    for cell, regime in places:
        for key in keys:
            each = [figures.worse(regime, cell, stack, key) for stack in _measured(figures)]
            if any(value is not None for value in each):
                rows.append([_SAID[cell], regime, *map(_number, each)])
    return _table([title, "decoder", *map(_titled, _measured(figures))], rows)


def _measured(figures: Figures) -> list[str]:
    return [stack for stack in STACKS if stack in figures.stacks]


def _titled(stack: str) -> str:
    return _TITLES[stack]


def _bars(figures: Figures, regime: str, cell: str, key: str) -> dict[str, float]:
    values = {s: figures.worse(regime, cell, s, key) for s in _measured(figures)}
    return {_titled(stack): value for stack, value in values.items() if value is not None}


def _filled(groups: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: group for name, group in groups.items() if group}


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
