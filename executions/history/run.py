"""One run as its page tells it: use of its limits, time line, output, how to ask for it again."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connection
from django.utils.safestring import SafeString

from executions.history import ansi
from executions.history.visible import visible
from executions.models import Execution

SHOWN_BYTES = 256 << 10
"""Of each stream: the first half and the last; all of it is a link away."""
OPEN_LINES = 200
MIB = 1 << 20
STREAMS = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Use:
    """A meter: `used` of `limit`, in the unit that `told` speaks of."""

    name: str
    used: float
    limit: float
    told: str

    @property
    def percent(self) -> int:
        return round(100 * self.used / self.limit) if self.limit else 0


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the time line. `start` and `width` are percent of all of it."""

    name: str
    milliseconds: int
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Printed:
    name: str
    size: int
    head: SafeString
    tail: SafeString
    left_out: int
    """Bytes between head and tail."""
    folded: bool


def uses(run: Execution) -> list[Use]:
    """What was measured, against its limit."""
    found = []
    if run.max_memory_bytes is not None:
        used = run.max_memory_bytes / MIB
        found.append(Use("Memory", used, run.memory_mb, f"{used:.1f} of {run.memory_mb} MiB"))
    if run.cpu_ms is not None and run.wall_ms:
        cores = run.cpu_ms / run.wall_ms
        told = f"{cores:.2f} of {run.cpu_cores:g} cores ({run.cpu_ms / 1000:.2f} s)"
        found.append(Use("CPU", cores, run.cpu_cores, told))
    if run.wall_ms is not None:
        seconds = run.wall_ms / 1000
        told = f"{seconds:.1f} of {run.wall_clock_secs} s"
        found.append(Use("Time", seconds, run.wall_clock_secs, told))
    return found


def time_line(run: Execution) -> list[Span]:
    parts = [
        (name, milliseconds)
        for name, milliseconds in (
            ("queue", run.queue_ms),
            ("pull", run.pull_ms),
            ("start", run.start_ms),
            ("run", run.wall_ms),
        )
        if milliseconds is not None
    ]
    total = sum(milliseconds for _, milliseconds in parts) or 1
    spans, start = [], 0.0
    for name, milliseconds in parts:
        width = 100 * milliseconds / total
        spans.append(Span(name, milliseconds, round(start, 2), round(max(width, 0.3), 2)))
        start += width
    return spans


def printed(run: Execution) -> list[Printed]:
    """Both streams; no more of them is read than is shown."""
    half = SHOWN_BYTES // 2
    columns = ", ".join(
        f"octet_length({name}), substring({name} FROM 1 FOR {half}), "
        f"substring({name} FROM greatest({half}, octet_length({name}) - {half}) + 1)"
        for name in STREAMS
    )
    sql = f"SELECT {columns} FROM executions_executionoutput WHERE execution_id = %s"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [run.pk])
        row = cursor.fetchone() or (0, b"", b"") * 2
    return [_printed(name, *row[3 * at : 3 * at + 3]) for at, name in enumerate(STREAMS)]


def _printed(name: str, size: int, head: bytes, tail: bytes) -> Printed:
    head, tail = bytes(head), bytes(tail)
    left_out = size - len(head) - len(tail)
    if not left_out:
        head, tail = head + tail, b""
    folded = head.count(b"\n") + tail.count(b"\n") > OPEN_LINES or size > SHOWN_BYTES // 4
    return Printed(name, size, ansi.html(head), ansi.html(tail), left_out, folded)


def as_curl(run: Execution, base_url: str) -> str:
    """Every character of the body that isn't ASCII is escaped by JSON: nothing hides in it."""
    body = {
        "image": run.image,
        "cmd": run.cmd,
        "env": run.env,
        "cwd": run.cwd,
        "files": run.files,
        "limits": _limits(run),
        "network": run.network,
        "persist": run.persist,
        "labels": run.labels,
    }
    given = {name: value for name, value in body.items() if value}
    return (
        f"curl {shlex.quote(f'{base_url}/api/v1/executions/')} \\\n"
        '  -H "Authorization: Bearer $BOXER_TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(given))}"
    )


def as_python(run: Execution, base_url: str) -> str:
    host = base_url.partition("://")
    limits = ", ".join(f"{name}={value!r}" for name, value in _limits(run).items())
    return "\n".join(
        (
            "import os",
            "",
            "from boxer import BoxerClient, ResourceLimits",
            "",
            'token = os.environ["BOXER_TOKEN"]',
            f'with BoxerClient(f"{host[0]}://token:{{token}}@{host[2]}") as client:',
            "    result = client.run(",
            *(f"        {line}," for line in _arguments(run)),
            f"        limits=ResourceLimits({limits}),",
            "    )",
            "print(result.stdout)",
        )
    )


def _arguments(run: Execution) -> Iterator[str]:
    """`ascii` escapes whatever could hide."""
    yield f"image={run.image!a}"
    yield f"cmd={run.cmd!a}"
    if run.env:
        yield f"env={run.env!a}"
    if run.cwd != "/":
        yield f"cwd={run.cwd!a}"
    if run.files:
        yield f"files={run.files!a}"
    if run.persist:
        yield "persist=True"
    if run.network != "none":
        yield f"network={run.network!a}"


def _limits(run: Execution) -> dict[str, float]:
    names = ("cpu_cores", "memory_mb", "pids_limit", "wall_clock_secs", "nofile")
    return {name: getattr(run, name) for name in names}


def left_out(run: Execution) -> list[tuple[str, str]]:
    """Path and reason of what lay in /output and wasn't stored."""
    return [
        (visible(str(one.get("path", ""))), visible(str(one.get("reason", ""))))
        for one in run.left_out
    ]
