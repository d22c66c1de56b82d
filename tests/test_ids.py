"""Ids are unique, in processes that fork as well."""

import os
import re

from ark_trio.ids import new_id


def test_an_id_is_32_hexadecimal_digits_and_no_other_has_it():
    ids = {new_id() for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


def test_workers_that_are_forked_draw_different_ids():
    drawn = {new_id()}
    for _ in range(3):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, new_id().encode())
            os._exit(0)
        os.waitpid(child, 0)
        drawn.add(os.read(read, 64).decode())
        os.close(read)
        os.close(write)
    drawn.add(new_id())
    assert len(drawn) == 5
