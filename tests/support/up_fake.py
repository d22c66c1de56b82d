"""`up` with stand-ins for its services, as programs.

up_fake.py run '{"prefiller": {"port": 1, "flags": ["--deaf"]}, …}' READY_LIMIT_S
up_fake.py service PARENT PORT [--deaf] [--brood] [--mute] [--die=CODE]
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ark_trio.config import Bind
from ark_trio.errors import ConfigError
from ark_trio.up.children import end_with_parent
from ark_trio.up.plan import Plan, Service
from ark_trio.up.ready import accepts
from ark_trio.up.screen import Screen, ServiceLog
from ark_trio.up.supervise import Supervisor, run_supervisor


def run(services: str, ready_limit_s: str, log: str) -> int:
    planned = [
        Service(
            name=name,
            command=[
                sys.executable,
                __file__,
                "service",
                str(os.getpid()),
                str(each["port"]),
                *each["flags"],
            ],
            bind=Bind(host="127.0.0.1", port=each["port"]),
            port_flag=f"--{name}-port",
        )
        for name, each in json.loads(services).items()
    ]
    screen = Screen(out=sys.stdout)
    supervisor = Supervisor(
        plan=Plan(services=planned, model="fake"),
        screen=screen,
        log=ServiceLog(path=Path(log), echo=None),
        ready_limit_s=float(ready_limit_s),
        probes={"gateway": accepts},
    )
    try:
        return run_supervisor(supervisor)
    except ConfigError as error:
        screen.say(str(error))
        return 2


def service(parent: str, port: str, *flags: str) -> int:
    end_with_parent(int(parent))
    if "--deaf" in flags:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--brood" in flags:  # in a process group of its own, deaf, holding our output open
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import signal,time; signal.signal(2, signal.SIG_IGN); time.sleep(600)",
            ],
            process_group=0,
        )
    for flag in flags:
        if flag.startswith("--die="):
            sys.stderr.write("a line before the end\nthe last words")
            return int(flag.removeprefix("--die="))
    if "--mute" in flags:
        time.sleep(600)
    with (
        socket.create_server(("127.0.0.1", int(port))) as listener,
        contextlib.suppress(KeyboardInterrupt),
    ):
        os.write(1, f"serving {port}\n".encode())
        while True:
            select.select([listener], [], [])
            listener.accept()[0].close()
    os.write(
        1, f"stopped {port}".encode()
    )  # no line end: only the pipe's end tells that it is whole
    return 0


if __name__ == "__main__":
    sys.exit(run(*sys.argv[2:]) if sys.argv[1] == "run" else service(*sys.argv[2:]))
