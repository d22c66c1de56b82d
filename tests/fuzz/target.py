"""The gateway under fire: a real process in front of a real engine, looked at from outside."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from attrs import define, field

from tests.support.processes import Served, engine, gateway
from tests.support.wire import status

AT_REST = ("calls", "running", "waiting", "leases", "grpc_streams")

_EXCEPTION = re.compile(r"^[ |]*([\w.]+(?:Error|Exception)\b.*)", re.MULTILINE)
"""A traceback's line that names the exception, the innermost of a group last."""


class TargetFailedError(Exception):
    """The gateway died, crashed on something, or kept something."""


@define(eq=False)
class Target:
    """One gateway, and what is known of it."""

    door: Served
    decoders: Sequence[int]
    """Their ports."""
    server: str
    tolerated: frozenset[str] = frozenset()
    """Errors that whoever looks on has provoked."""
    pids: list[int] = field(factory=list)
    """Those that serve."""
    survey: bool = False
    """Count what goes wrong, instead of stopping at the first."""
    faults: Counter[str] = field(factory=Counter)
    """What went wrong, when surveying: the last line of a traceback, or what the answer is blamed for."""
    warnings: dict[str, int] = field(factory=dict)
    """Log lines above info, by event."""
    _read: int = 0
    _censuses: list[dict[str, Any]] = field(factory=list)

    def meet(self) -> None:
        """Take the processes that there are now as those that are to live."""
        self.pids = self.door.children() or [self.door.popen.pid]

    def watch(self) -> None:
        """Look whether it lives, and read what it has logged since.

        Raises:
            TargetFailedError: a process has died, or the log tells of a crash.
        """
        if (
            self.door.popen.poll() is not None
            or (self.door.children() or [self.door.popen.pid]) != self.pids
        ):
            raise TargetFailedError(f"a process has died:\n{self.door.log[-3000:]}")
        for line in self._new_lines():
            self._judge(line)

    def _new_lines(self) -> list[bytes]:
        """Read without moving the offset, which the process shares."""
        data = os.pread(self.door.output.fileno(), 8 << 20, self._read)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.splitlines()

    def _judge(self, line: bytes) -> None:
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            if self.server != "proxy":
                return  # hypercorn says where it listens in words of its own
            self.blame(f"printed: {line!r}")
            return
        if event["event"] == "gateway_census":
            self._censuses.append(event)
        if event["event"] in self.tolerated:
            return
        if event["level"] in ("error", "critical") or "exception" in event:
            self.blame(event.get("exception") or line.decode())
        if event["level"] != "info":
            self.warnings[event["event"]] = self.warnings.get(event["event"], 0) + 1

    def blame(self, fault: str) -> None:
        """Note what went wrong.

        Raises:
            TargetFailedError: unless this is a survey.
        """
        if not self.survey:
            raise TargetFailedError(fault)
        named = _EXCEPTION.findall(fault)
        kind = named[-1] if named else fault[:300]
        if kind not in self.faults:
            print(f"--- {fault[-3000:]}", flush=True)
        self.faults[kind] += 1

    def census(self) -> dict[str, int]:
        """What there is in each of its processes, summed; what only the process knows where it tells."""
        counts = {
            "descriptors": 0,
            "resident_bytes": 0,
            "engine_busy": sum(status(port)["busy"] for port in self.decoders),
        }
        for pid in self.pids:
            counts["descriptors"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            counts["resident_bytes"] += pages * os.sysconf("SC_PAGESIZE")
        if self.server == "proxy":
            for told in self._ask():
                for key in (*AT_REST, "tasks"):
                    counts[key] = counts.get(key, 0) + told[key]
        return counts

    def _ask(self) -> list[dict[str, Any]]:
        self._censuses.clear()
        self.door.signal(signal.SIGUSR1)
        end = time.monotonic() + 10
        while len(self._censuses) < len(self.pids):
            if time.monotonic() > end:
                raise TargetFailedError("no census within 10 s")
            time.sleep(0.02)
            self.watch()
        return self._censuses

    def await_rest(
        self, before: dict[str, int], grown_bytes: int, within_s: float = 20
    ) -> dict[str, int]:
        """Return the census once it is what it was `before`, memory apart from `grown_bytes`.

        Raises:
            TargetFailedError: something has been kept.
        """
        end = time.monotonic() + within_s
        while True:
            after = self.census()
            limits = before | {"resident_bytes": before["resident_bytes"] + grown_bytes}
            kept = {key: (before[key], after[key]) for key in before if after[key] > limits[key]}
            if not kept:
                return after
            if time.monotonic() > end:
                raise TargetFailedError(f"kept (before, after): {kept}")
            time.sleep(0.2)


@contextmanager
def open_target(server: str = "proxy", **env: str) -> Iterator[Target]:
    """Run a gateway of a kind, as `processes.SERVERS` names them, and an engine for it."""
    quiet = {"ARK_LOG_FORMAT": "json", **env}
    with engine("decoder", "--served-names", "echo") as decoder:
        with gateway(server, [decoder.port], env=quiet) as door:
            target = Target(door, [decoder.port], server)
            target.meet()
            yield target
