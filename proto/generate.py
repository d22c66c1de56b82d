"""Generate the package `ark_wire` from ark.proto: `python proto/generate.py [folder]`.

Two generators read the same file: betterproto writes `inference.py` (typed messages, stub, service base), protoc itself
`ark_pb2.py` and its stub file (the classes that parse in C). Output depends on the locked versions only.
"""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
DEFAULT_FOLDER = HERE.parent / "generated" / "ark_wire"


def generate(folder: Path) -> list[Path]:
    """Write the generated modules into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _protoc(f"--python_betterproto_out={scratch}", _plugin("python_betterproto"))
        # betterproto makes a package a folder; ours is one module.
        typed = (Path(scratch) / "inference" / "__init__.py").read_bytes()
    (folder / "inference.py").write_bytes(typed)
    _protoc(f"--python_out={folder}", f"--pyi_out={folder}")
    return [folder / name for name in ("inference.py", "ark_pb2.py", "ark_pb2.pyi")]


def _plugin(name: str) -> str:
    # Beside the interpreter that runs this, whether or not its environment is activated.
    return f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"


def _protoc(*options: str) -> None:
    status = protoc.main(["protoc", f"-I{HERE}", *options, str(HERE / "ark.proto")])
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER)
