"""Ids of requests and answers: unique, and no secret, so no system call is made for each (8 µs)."""

import random


def new_id() -> str:
    """Return 32 hexadecimal digits. Processes that fork draw different ones: Python seeds again."""
    return f"{random.getrandbits(128):032x}"
