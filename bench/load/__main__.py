"""One load, told as JSON on standard input, its figures as JSON on standard output."""

import json
import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.load.crowd import Target
from bench.load.loads import LOADS


def main() -> None:
    plan = json.load(sys.stdin)
    if plan["cpus"]:
        os.sched_setaffinity(0, plan["cpus"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(LOADS[plan["load"]](Target(**plan["target"]), **plan["arguments"])))


if __name__ == "__main__":
    main()
