"""SECURITY.md names tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@cache
def found_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(function.name for function in functions)


def test_every_test_that_the_page_names_exists():
    assert len(NAMED) > 40
    assert not [f"{path}::{name}" for path, name in NAMED if name not in found_in(path)]


def test_every_defence_names_its_test():
    table = PAGE.partition("by which test")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 20
    assert not [row for row in rows if "tests/" not in row]
