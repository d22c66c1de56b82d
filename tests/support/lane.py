"""What the lanes that take their time tell of meanwhile."""

import sys


def say(line: str) -> None:
    """Write into the lane's log, past pytest's capture (run with --capture=sys)."""
    assert sys.__stdout__ is not None
    sys.__stdout__.write(f"\n  {line}\n")
    sys.__stdout__.flush()
