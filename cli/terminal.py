"""What people see: on stderr in words, on stdout what was asked for."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from cli.errors import ClientError
from cli.interrupts import Interrupted


class Unwritable(ClientError):
    """Our output can't be written: a full disk, for example."""


def console(*, stderr: bool) -> Console:
    """Made when it is used: rich looks at the stream, NO_COLOR and TERM then.

    Nothing in brackets or between colons is markup: it comes from servers and programs.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def plain(text: object) -> str:
    """On one line and without what a terminal would obey."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )


def say(message: str, *, style: str = "bold") -> None:
    line = Text.assemble(("boxer:", style), " ", plain(message))
    console(stderr=True).print(line, soft_wrap=True)


def complain(message: str) -> None:
    say(message, style="bold red")


def write(data: bytes, *, stderr: bool = False) -> None:
    """Bytes as they are, at once.

    Raises Interrupted(SIGPIPE) when nobody reads them any more, and Unwritable.
    """
    stream = (sys.stderr if stderr else sys.stdout).buffer
    try:
        stream.write(data)
        stream.flush()
    except OSError as error:
        # Python flushes once more at its end; there it must not fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if isinstance(error, BrokenPipeError):
            raise Interrupted(signal.SIGPIPE) from None
        name = "stderr" if stderr else "stdout"
        raise Unwritable(f"{name}: {error.strerror}") from None


def write_line(text: object) -> None:
    write(f"{plain(text)}\n".encode())


def write_json(value: Any) -> None:
    write(f"{json.dumps(value, ensure_ascii=False, indent=2)}\n".encode(errors="replace"))


def write_json_line(value: Any) -> None:
    write(f"{json.dumps(value)}\n".encode())


def write_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns, whole for grep and awk; where somebody looks, the last is cut at the edge."""
    out = console(stderr=False)
    table = [list(headings), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    for number, row in enumerate(table):
        above = [set_cell_size(cell, width) for cell, width in zip(row, widths[:-1], strict=False)]
        line = "  ".join([*above, row[-1]]).rstrip()
        if out.is_terminal:
            if cell_len(line) > out.width and sum(widths[:-1]) + 2 * len(above) < out.width:
                line = set_cell_size(line, out.width - 1) + "…"
            out.print(Text(line, style="" if number else "bold"), soft_wrap=True)
        else:
            write(f"{line}\n".encode(errors="replace"))


def transfers() -> Progress:
    """Bars of bytes; only where somebody looks, and gone when they are done."""
    err = console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def counting() -> Progress:
    """A bar of how many have ended; only where somebody looks, and gone when they have."""
    err = console(stderr=True)
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


@contextmanager
def above(progress: Progress) -> Iterator[None]:
    """What is written meanwhile stands where the bar was; the bar comes back beneath it."""
    progress.live.stop()
    yield
    if not progress.disable:
        progress.live.start()
