"""Files of keys, and what their holders send."""

from pathlib import Path
from typing import Any

from ark_trio.access.key import Key, digest_of
from ark_trio.access.key_file import key_line, parse_field


def write_keys(path: Path, **keys: dict[str, Any]) -> Path:
    """A file of keys, each spelled `sk-NAME`."""
    lines = [
        key_line(
            Key(
                name=name,
                sha256=digest_of(f"sk-{name}"),
                **{field: parse_field(field, value) for field, value in more.items()},
            )
        )
        for name, more in keys.items()
    ]
    path.write_text("\n".join(lines))
    return path


def bearing(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}
