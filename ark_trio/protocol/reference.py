"""The API's reference: every endpoint, every parameter and what becomes of it, every deliberate deviation.

One structure, two spellings: `docs/api.md` and the page that the gateway serves at /docs.
"""

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final

import orjson
from attrs import frozen

from ark_trio.errors import ArkError
from ark_trio.protocol.endpoints import ENDPOINTS, Endpoint
from ark_trio.protocol.parameter import Parameter, Treatment, parameters_of
from ark_trio.protocol.schema import PREFIX, Schema, Schemas

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ark-trio: API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; width: 100%; }} td, th {{ border: 1px solid #ddd; padding: .3rem .5rem; text-align: left; vertical-align: top; }}
code {{ background: #f3f3f3; padding: 0 .2rem; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #181818; color: #ddd; }} code {{ background: #2a2a2a; }} td, th {{ border-color: #444; }} }}
</style></head><body>
<h1>ark-trio {version}: API</h1>
<p>The machine-readable description is at <a href="openapi.json"><code>openapi.json</code></a>.</p>
{sections}
</body></html>
"""

_DEVIATIONS: Final = (
    (
        "`functions`, `function_call`",
        "deprecated in 2023: engines get them as `tools`, and the answer has `function_call`; so do messages of that time",
    ),
    ("tools of type `custom`", "a 400: engines here know functions only"),
    (
        "`store: true`, audio, web search, predictions, moderation",
        "a 400: engines here have none of it",
    ),
    (
        "unknown fields",
        "taken, and told once in the log at level debug: clients send fields of other vendors",
    ),
    ("`stream_options` without `stream`", "taken and ignored: SDKs send it"),
    (
        "defaults",
        "the engine's own: only what the client set is sent on, also `max_tokens` of completions",
    ),
    ("`logprobs` of completions", "up to 20 alternatives, as in chat"),
    ("`best_of`", "with more than n it needs an engine that gives log probabilities"),
    ("`usage`", "null when the engine tells no totals: no count is made up"),
    ("an answer without finish_reason", "an error, never a made-up stop"),
    (
        "integers beyond 64 bits and floats beyond 32 bits",
        "a 400 at their place, within schemas too: the engines' contract has no room for them",
    ),
    (
        "white space around tool calls and reasoning marks",
        "is dropped where the gateway tells them apart in the text",
    ),
    ("Responses and Anthropic's messages", "not served yet"),
)
"""From OpenAI's API description, on purpose."""


@frozen(kw_only=True)
class Table:
    """A heading, a paragraph, and rows under column names; the first cell is code."""

    title: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    level: int = 2


def reference_markdown() -> str:
    """Return the tables of docs/api.md."""
    return "".join(map(_markdown, _tables()))


def reference_page(version: str) -> str:
    """Return the page of this version, which needs nothing from elsewhere."""
    sections = "".join(map(_html, _tables()))
    return _PAGE.format(version=escape(version), sections=sections)


def _tables() -> Iterator[Table]:
    for endpoint in ENDPOINTS:
        yield _endpoint_table(endpoint)
    yield Table(
        title="Errors",
        text='Always `{"error": {"message", "type", "param", "code"}}`: with a status before the answer has begun, as an'
        " event followed by `[DONE]` after it. `param` is the place of the first fault, as in `messages[0].content`.",
        columns=("status", "type", "code", "when"),
        rows=tuple(sorted(set(_error_rows(ArkError)))),
    )
    yield Table(
        title="Deliberate deviations from OpenAI's description",
        columns=("what", "here"),
        rows=_DEVIATIONS,
    )


def _endpoint_table(endpoint: Endpoint) -> Table:
    twice = " Served without /v1 too." if endpoint.both else ""
    title = f"{endpoint.method.upper()} {endpoint.path}"
    if endpoint.body is None:
        return Table(title=title, text=endpoint.summary + twice)
    schemas = Schemas()
    schemas.of(endpoint.body)
    properties = schemas.components[endpoint.body.__name__]["properties"]
    return Table(
        title=title,
        text=endpoint.summary + twice,
        columns=("parameter", "takes", "is", "how"),
        rows=tuple(
            (f"`{name}`", takes(properties[name]), known.treatment.value, _how(known))
            for name, known in parameters_of(endpoint.body).items()
        ),
    )


def _how(parameter: Parameter) -> str:
    if parameter.treatment is not Treatment.FORWARDED:
        return parameter.note
    key = "" if parameter.spread or parameter.key == parameter.name else f"as `{parameter.key}`"
    return "; ".join(filter(None, (key, parameter.note)))


def takes(schema: Schema) -> str:
    """Say in words what a schema admits."""
    if "anyOf" in schema:
        options = [takes(option) for option in schema["anyOf"] if option != {"type": "null"}]
        return " or ".join(options)
    if "$ref" in schema:
        return f"`{schema['$ref'].removeprefix(PREFIX)}`"
    if "enum" in schema:
        return (
            " or ".join(_literal(value) for value in schema["enum"] if value is not None) or "null"
        )
    names = schema.get("type", "any JSON")
    name = names if isinstance(names, str) else names[0]
    if name == "array":
        return f"list of {takes(schema['items'])}"
    return _NAMES.get(name, name) + _bounds(schema)


_NAMES: Final = {
    "string": "text",
    "boolean": "true or false",
    "integer": "integer",
    "number": "number",
    "object": "object",
}


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    words = [
        f"above {schema['exclusiveMinimum']:g}" if "exclusiveMinimum" in schema else "",
        f"from {low:g}" if low is not None and abs(low) < _SHOWN else "",
        f"to {high:g}" if high is not None and abs(high) < _SHOWN else "",
    ]
    return "".join(f" {word}" for word in words if word)


_SHOWN: Final = 2**53
"""Bounds beyond are those of the wire's numbers."""


def _literal(value: Any) -> str:
    return f"`{value if isinstance(value, str) else orjson.dumps(value).decode()}`"


def _error_rows(kind: type[ArkError]) -> Iterator[tuple[str, ...]]:
    # Tests and commands may have subclasses of their own.
    ours = [each for each in kind.__subclasses__() if each.__module__ == kind.__module__]
    for each in ours:
        first_line = (each.__doc__ or "").split("\n", maxsplit=1)[0]
        code = f"`{each.default_code}`" if each.default_code else ""
        yield (str(each.status), f"`{each.kind}`", code, first_line)
        yield from _error_rows(each)


def _markdown(table: Table) -> str:
    lines = [f"{'#' * table.level} {table.title}", ""]
    if table.text:
        lines += [table.text, ""]
    if table.columns:
        lines += [_line(table.columns), _line(["---"] * len(table.columns))]
        lines += [_line([cell.replace("|", "\\|") for cell in row]) for row in table.rows]
        lines.append("")
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _html(table: Table) -> str:
    parts = [f"<h{table.level}>{_inline(table.title)}</h{table.level}>"]
    if table.text:
        parts.append(f"<p>{_inline(table.text)}</p>")
    if table.columns:
        parts.append("<table><tr>" + "".join(f"<th>{c}</th>" for c in table.columns) + "</tr>")
        cells = (map(_inline, row) for row in table.rows)
        parts.extend(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells)
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def _inline(text: str) -> str:
    """Escape a text, and show what stands between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if position % 2 else piece for position, piece in enumerate(pieces)
    )
