"""A growing pause before a service starts again after it failed again and again.

systemd before 254 only knows one pause for all restarts. A service that lives long, or ends well, starts afresh; the first
restart comes at once. What was is remembered in the unit's RuntimeDirectory=, which a stop removes.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from ark_trio.systemd import Notifier

LONG_LIFE_S = 60.0
"""Who lived so long had started well."""
LONGEST_S = 30.0
GRACE_S = 30.0
"""What systemd is asked to wait beyond the pause."""

_FILE = "starts.json"


def hold_back(environ: Mapping[str, str], notifier: Notifier) -> None:
    """Pause as the last starts call for, and count this one as failed until `forget_failures`."""
    file = _ledger(environ)
    if file is None or not notifier.connected:
        return
    failures = failures_before(file, _now())
    pause_s = pause_after(failures)
    _remember(file, failures, _now() + pause_s)
    if pause_s:
        notifier.starting(f"starts in {pause_s:g} s, after {failures} failures", pause_s + GRACE_S)
        time.sleep(pause_s)  # no event loop runs yet, and SIGTERM ends the process


def forget_failures(environ: Mapping[str, str]) -> None:
    """It has ended well."""
    file = _ledger(environ)
    if file is not None:
        with suppress(OSError):
            file.unlink()


def failures_before(file: Path, now: float) -> int:
    """How often in a row it has failed; a file that is not there or can't be read tells of none."""
    try:
        known = orjson.loads(file.read_bytes())
        failures, started_at = int(known["failures"]), float(known["started_at"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return failures + 1 if now - started_at < LONG_LIFE_S else 1


def pause_after(failures: int) -> float:
    """None after the first failure, then 1, 2, 4, … seconds."""
    return min(2.0 ** (failures - 2), LONGEST_S) if failures > 1 else 0.0


def _remember(file: Path, failures: int, started_at: float) -> None:
    new = file.with_suffix(".new")
    with suppress(OSError):  # a full disk must not keep the service from starting
        new.write_bytes(orjson.dumps({"failures": failures, "started_at": started_at}))
        new.replace(file)


def _ledger(environ: Mapping[str, str]) -> Path | None:
    folder = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(folder) / _FILE if folder else None


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
