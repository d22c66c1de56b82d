"""The mailbox by itself: its bounds, its end."""

import pytest
import trio

from ark_trio.errors import InternalError, Unavailable
from ark_trio.rpc.mailbox import Mailbox


async def test_it_is_full_by_messages_or_by_bytes_and_empty_once_read():
    mailbox: Mailbox[int] = Mailbox(limit=3, limit_bytes=100)
    assert mailbox.feed(1, 10)
    assert mailbox.feed(2, 10)
    assert not mailbox.feed(3, 10)
    assert await mailbox.take() == [1, 2, 3]
    assert mailbox.feed(4, 99)
    assert not mailbox.feed(5, 1)
    assert await mailbox.take() == [4, 5]
    assert mailbox.feed(6, 10)


async def test_the_first_end_is_final():
    mailbox: Mailbox[int] = Mailbox()
    mailbox.feed(1)
    mailbox.fail(Unavailable("away"))
    mailbox.fail(InternalError("later"))
    mailbox.end()
    mailbox.feed(2)
    assert await mailbox.take() == [1]
    with pytest.raises(Unavailable):
        await mailbox.take()


async def test_taking_is_a_checkpoint_also_when_something_waits():
    mailbox: Mailbox[int] = Mailbox()
    mailbox.feed(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.take()
    assert scope.cancelled_caught
    assert await mailbox.take() == [1]


class DeafTap:
    """Takes all."""

    def feed(self, message: int, size: int = 0) -> bool:
        return True

    def flush(self) -> bool:
        return True


@pytest.mark.parametrize("error", [None, Unavailable("away")])
async def test_an_end_that_comes_while_the_tapping_reader_is_between_two_waits_is_not_missed(
    error: Unavailable | None,
):
    """Its timer has gone off, and before its turn comes, the call ends."""
    mailbox: Mailbox[int] = Mailbox()
    with mailbox.tapped(DeafTap()):
        with trio.CancelScope() as timer:
            timer.cancel()
            await mailbox.stirred()
        if error is None:
            mailbox.end()
        else:
            mailbox.fail(error)
        with trio.fail_after(1):
            await mailbox.stirred()
