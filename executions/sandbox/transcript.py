"""What a command has printed so far, and in which order its two streams were read."""

from collections.abc import Callable

STDOUT, STDERR = 0, 1
MOST_SEGMENTS = 50_000
"""Changes from one stream to the other that are told apart; a program may make one per byte."""


class Transcript:
    """Written by one thread, and read by any other, which may find its last piece missing.

    `order` holds the lengths of pieces in bytes, in turns of stdout and stderr, stdout first. Past
    MOST_SEGMENTS the last two stand for all that comes: each stream is whole, the order is lost.
    `told` is called with nothing after each piece, when somebody has set it.
    """

    def __init__(self) -> None:
        self.streams = (bytearray(), bytearray())
        self._order: list[int] = [0]
        self._last = STDOUT
        self.told: Callable[[], None] | None = None

    def add(self, stream: int, data: bytes) -> None:
        # Bytes first: who reads the order finds what it speaks of.
        self.streams[stream].extend(data)
        if stream != self._last and len(self._order) < MOST_SEGMENTS:
            self._last = stream
            self._order.append(len(data))
        elif stream == self._last:
            self._order[-1] += len(data)
        else:
            self._order[-2] += len(data)
        if self.told is not None:
            self.told()

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(self._order)
