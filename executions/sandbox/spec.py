"""What a run is given and what it gives back: frozen values that cross the sandbox's border."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO


class SandboxError(Exception):
    """Something of ours failed: a tool, a mount, a cgroup, a registry; never the program."""

    code = "infra_error"


@dataclass(frozen=True, slots=True)
class Limits:
    """Effective limits of one run."""

    cpu_cores: float
    memory_mb: int
    """MiB that the program may use; the sandbox's own overhead comes on top."""
    pids_limit: int
    wall_clock_secs: int
    nofile: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of what a run may leave on the host, the same for every run."""

    output_bytes: int
    """stdout and stderr, each."""
    output_dir_bytes: int
    output_dir_files: int
    tmp_bytes: int


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that appears read-only at `/{path}`; `path` is clean and relative."""

    path: str
    open: Callable[[], BinaryIO]
    """Its contents, to be closed by whoever asked."""
    executable: bool = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    exec_id: str
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    """`K=V`; these win over the image's."""
    cwd: str
    network: str
    limits: Limits
    inputs: tuple[InputFile, ...] = ()
    stdin: bytes = b""


class End(enum.StrEnum):
    """How the program ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    INTERRUPTED = "interrupted"
    """Ended from outside: the service stops, or somebody cancelled it."""
    BROKEN = "infra_error"
    """The sandbox died of something that is none of the above."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed a sandbox's network while it lived."""

    sent_bytes: int
    """IPv4 packets, headers included, that the rules let out."""
    received_bytes: int
    refused: int
    """Attempts to connect that the rules refused; a datagram is one, too."""


@dataclass(frozen=True, slots=True)
class RunResult:
    end: End
    exit_code: int | None
    """As a shell gives it: 128 + signal for a program that a signal ended. None when it never ended
    by itself."""
    signal: int | None
    stdout: bytes
    stderr: bytes
    wall_ms: int
    cpu_ms: int | None
    max_memory_bytes: int | None
    """Peak of what the run used above the booted sandbox. None where nothing measures it."""
    order: tuple[int, ...] = ()
    """In which order stdout and stderr were read, see Transcript.order."""
    detail: str = ""
    """Why, for End.BROKEN."""
    traffic: Traffic | None = None
    """None where it had no network of its own."""
