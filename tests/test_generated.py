"""The generated code is what the generators make of proto/ark.proto today."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WIRE = ROOT / "generated" / "ark_wire"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire")
    runpy.run_path(str(ROOT / "proto" / "generate.py"))["generate"](folder)
    return folder


def test_generation_makes_exactly_the_modules_of_the_package(fresh):
    by_hand = {"__init__.py", "py.typed"}
    kept = {path.name for path in WIRE.iterdir() if path.is_file()} - by_hand
    assert {path.name for path in fresh.iterdir()} == kept


@pytest.mark.parametrize("name", ["inference.py", "ark_pb2.py", "ark_pb2.pyi"])
def test_generated_code_is_fresh(fresh, name):
    assert (fresh / name).read_bytes() == (WIRE / name).read_bytes(), "run `make proto`"
