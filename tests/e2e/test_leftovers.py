"""A run of the tests that is killed leaves nothing behind."""

import subprocess
import sys

import pytest

from tests.support.processes import descendants, is_alive, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

RUN = """
import threading, time
from contextlib import ExitStack
from tests.support.processes import SERVERS, engine, gateway

stack = ExitStack()

def start():
    decoder = stack.enter_context(engine("decoder", "--served-names", "echo"))
    for server in SERVERS:
        stack.enter_context(gateway(server, [decoder.port]))
    stack.enter_context(gateway("proxy", [decoder.port], env={"ARK_WORKERS": "2"}))

thread = threading.Thread(target=start)  # it ends, and they must go on
thread.start()
thread.join()
print("ready", flush=True)
time.sleep(60)
"""


def test_what_tests_start_ends_with_them_even_if_they_are_killed():
    command = [sys.executable, "-c", RUN]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        try:
            assert run.stdout is not None
            assert run.stdout.readline() == b"ready\n"
            started = descendants(run.pid)
        finally:
            run.kill()
        assert len(started) >= 9  # hypercorn's own workers and ours among them
    wait_until(lambda: not any(map(is_alive, started)), 10, "their end")
