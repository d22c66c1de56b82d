"""The page about lifetimes lists the tests as they are."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_lists_every_cell():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.lifetimes_table() in (DOCS / "lifetimes.md").read_text(encoding="utf-8")
