"""Every promise that the doctor tries, in the order in which it does."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from executions.doctor import isolation, keeping, limits, unpacking
from executions.doctor.findings import Finding, State, found_out
from executions.doctor.ward import Ward, open_ward


@dataclass(frozen=True, slots=True)
class Probe:
    name: str
    promise: str
    show: Callable[[Ward], str]
    quick: bool = False


@dataclass(frozen=True, slots=True)
class StoreProbe:
    """One that isn't about this host."""

    name: str
    promise: str
    show: Callable[[], str]


PROBES = (
    Probe("runsc", "gVisor runs a program", isolation.runsc, True),
    Probe("runsc-flaws", "no known flaw lets a program out", isolation.runsc_flaws, True),
    Probe("nobody", "a program has no privilege", isolation.nobody, True),
    Probe("image", "an image can't be written to", isolation.image_is_read_only, True),
    Probe("host-hidden", "a program can't see the host", isolation.host_is_hidden, True),
    Probe("network-none", "no network reaches nothing", isolation.network_none, True),
    Probe("memory", "memory is limited", limits.memory, True),
    Probe("unpacker", "an image can't leave its root", unpacking.unpacker, True),
    Probe("neighbours", "sandboxes can't see each other", isolation.neighbours_are_hidden),
    Probe("network-sandbox", "its network reaches no host", isolation.network_sandbox),
    Probe("cpu", "CPU is limited", limits.cpu),
    Probe("wall-clock", "time is limited", limits.wall_clock),
    Probe("output", "what is printed is limited", limits.output),
    Probe("pids", "processes are limited", limits.pids),
    Probe("nofile", "open files are limited", limits.nofile),
    Probe("tmp", "/tmp is limited", limits.tmp),  # noqa: S108
    Probe("shm", "/dev/shm is limited", limits.shm),  # noqa: S108
    Probe("output-bytes", "/output is limited", limits.output_directory),
    Probe("output-files", "files in /output are limited", limits.output_files),
)
STORE_PROBES = (
    StoreProbe("database", "the database keeps rows", keeping.database),
    StoreProbe("storage", "the storage keeps contents", keeping.storage),
)
NAMES = ("host", *(probe.name for probe in (*PROBES, *STORE_PROBES)))


def examine_host(*, quick: bool) -> list[Finding]:
    """What this host's sandboxes keep. Where there can't be any, one finding says why."""
    chosen = [probe for probe in PROBES if probe.quick or not quick]
    found: list[Finding] = []

    def admit() -> str:
        with open_ward() as ward:
            found.extend(
                found_out(probe.name, probe.promise, partial(probe.show, ward)) for probe in chosen
            )
        return ""

    opened = found_out("host", "sandboxes can be made here, and leave nothing", admit)
    return found if opened.state is State.KEPT else [*found, opened]


def examine_stores() -> list[Finding]:
    return [found_out(probe.name, probe.promise, probe.show) for probe in STORE_PROBES]
