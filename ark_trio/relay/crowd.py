"""How many connections each of several workers has, for all of them to see."""

import mmap


class Crowd:
    """A few numbers in memory that the workers share since they were forked."""

    def __init__(self, workers: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * workers)).cast("I")

    def note(self, worker: int, connections: int) -> None:
        """Say how many worker `worker` has, counted from 1."""
        self._counts[worker - 1] = connections

    def is_fuller(self, worker: int) -> bool:
        """Whether a worker has more than another."""
        return self._counts[worker - 1] > min(self._counts)
