"""Pure: the one order of two streams, cut anywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Piece:
    """`position`: bytes of both streams before it."""

    position: int
    stream: int
    data: bytes

    @property
    def end(self) -> int:
        return self.position + len(self.data)


def pieces(
    streams: Sequence[bytes | bytearray], turns: Sequence[int], start: int = 0
) -> Iterator[Piece]:
    """What was printed from position `start` on, in pieces of at most PIECE_BYTES.

    `turns` are lengths, of stdout and stderr in turn. They may speak of more than there is (what
    runsc itself said last is taken out of stderr), or of less (of a run that kept no record).
    """
    position, taken = 0, [0, 0]
    for number, length in enumerate([*turns, *_rest(streams, turns)]):
        stream = number % 2
        begin = taken[stream]
        end = min(begin + length, len(streams[stream]))
        taken[stream] = end
        skipped = min(max(0, start - position), end - begin)
        for at in range(begin + skipped, end, PIECE_BYTES):
            data = bytes(streams[stream][at : min(at + PIECE_BYTES, end)])
            yield Piece(position + at - begin, stream, data)
        position += end - begin


def _rest(streams: Sequence[bytes | bytearray], turns: Sequence[int]) -> list[int]:
    """Turns for what the record doesn't speak of, beginning with the stream whose turn it is."""
    if turns:
        return []
    return [len(stream) for stream in streams]
