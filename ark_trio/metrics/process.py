"""What this process uses of the machine.

prometheus_client has a collector for it that tells nothing where /proc/stat is hidden, as it is in the gateway's own unit
(ProcSubset=pid).
"""

import os
import resource
import time
from pathlib import Path

from ark_trio.metrics.catalogue import CPU, MAX_FDS, MEMORY, OPEN_FDS
from ark_trio.metrics.tally import Reading

_SELF = Path("/proc/self")


def read_process() -> Reading:
    """Return it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    pages = int((_SELF / "statm").read_text().split()[1])
    return {
        CPU.name: [((), time.process_time())],
        MEMORY.name: [((), float(pages * os.sysconf("SC_PAGE_SIZE")))],
        OPEN_FDS.name: [((), float(sum(1 for _ in (_SELF / "fd").iterdir())))],
        MAX_FDS.name: [((), float(soft))],
    }
