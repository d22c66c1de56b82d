"""Write the parts of the documentation that come from the code; `make docs` runs it, tests compare."""

import re
from pathlib import Path

from ark_trio.config import settings_table

DOCS = Path(__file__).parent


def main() -> None:
    """Bring every generated part up to date."""
    replace_table(DOCS / "configuration.md", settings_table())


def replace_table(page: Path, table: str) -> None:
    """Replace the table on `page` that has `table`'s heading."""
    heading, *_ = table.split("\n", 1)
    old = re.compile(re.escape(heading) + r"\n(\|.*\n?)*")
    text = page.read_text(encoding="utf-8")
    if not old.search(text):
        raise SystemExit(f"{page.name} has no table {heading!r}")
    page.write_text(old.sub(lambda _: table.rstrip("\n") + "\n", text), encoding="utf-8")


if __name__ == "__main__":
    main()
