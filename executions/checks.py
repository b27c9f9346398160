"""Django system checks of the host: tools, their versions, cgroups, and the order of time-outs.

Those that look at the host take tens of milliseconds, so they don't run with every command: `up`
and `worker` ask for them, and `manage.py check --deploy --tag boxer`.
"""

import os
import re
import shutil
import struct
from pathlib import Path
from typing import cast

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.core.checks import Warning as Caution

from executions.host import sandbox_network
from executions.sandbox.cgroup import CgroupError
from executions.sandbox.cgroups import Hierarchy
from executions.sandbox.runsc import Runsc, RunscError

TAG = "boxer"

OLDEST_RUNSC = 20231218
"""From here on systrap is there and runs without a kernel option."""
RUNSC_WITHOUT_CVE_2025_2713 = 20250319

TOOLS = {
    # program: (Debian's package, what it is for)
    "skopeo": ("skopeo", "pulls images"),
    "umoci": ("umoci", "unpacks images"),
    "busybox": ("busybox-static", "starts the command in a sandbox"),
    "catatonit": ("catatonit", "is PID 1 of a sandbox"),
}
STATIC = ("busybox", "catatonit")
"""These run inside sandboxes of images that may have no libraries at all."""

INSTALL_RUNSC = (
    "make setup, or on Debian 12: apt-get install -t bookworm-backports runsc, or put gVisor's own "
    "release (https://gvisor.dev/docs/user_guide/install/) on PATH or at BOXER_RUNSC_PATH"
)


def install(*packages: str) -> str:
    return f"apt-get install {' '.join(packages)}"


@register(TAG, deploy=True)
def check_root(**_: object) -> list[CheckMessage]:
    if os.geteuid() == 0:
        return []
    why = "Workers must run as root: mounts, cgroups and network namespaces want it."
    return [Error(why, hint="sudo -E …", id="boxer.E001")]


@register(TAG, deploy=True)
def check_runsc(**_: object) -> list[CheckMessage]:
    binary = settings.BOXER_RUNSC_PATH or shutil.which("runsc")
    if not binary:
        return [Error("runsc (gVisor) is missing.", hint=INSTALL_RUNSC, id="boxer.E002")]
    try:
        version = Runsc(binary, settings.BOXER_PLATFORM, Path("/nonexistent")).version()
    except RunscError as error:
        return [Error(f"runsc can't be run: {error}", hint=INSTALL_RUNSC, id="boxer.E002")]
    return judge_runsc(binary, version)


def judge_runsc(binary: str, version: str) -> list[CheckMessage]:
    """`version` is release-20240729.0, 0.0~20240729.0 (Debian), or nothing we know."""
    date = re.search(r"(?<!\d)(20\d{6})(?!\d)", version)
    if date is None:
        why = f"{binary} doesn't say how old it is ({version}); needed: {OLDEST_RUNSC} or newer."
        return [Caution(why, id="boxer.W001")]
    if int(date[1]) < OLDEST_RUNSC:
        why = f"{binary} is too old ({version}): {OLDEST_RUNSC} or newer is needed."
        return [Error(why, hint=INSTALL_RUNSC, id="boxer.E003")]
    if int(date[1]) < RUNSC_WITHOUT_CVE_2025_2713:
        why = (
            f"{binary} ({version}) has CVE-2025-2713: local users of the host may gain privileges."
        )
        newer = f"Install a release from {RUNSC_WITHOUT_CVE_2025_2713} or later."
        return [Caution(why, hint=newer, id="boxer.W002")]
    return []


@register(TAG, deploy=True)
def check_tools(**_: object) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for program, (package, purpose) in TOOLS.items():
        path = shutil.which(program)
        if path is None:
            why = f"{program} is missing: it {purpose}."
            found.append(Error(why, hint=install(package), id="boxer.E004"))
        elif program in STATIC and not is_static(Path(path)):
            why = f"{path} is not linked statically: it {purpose}, whatever the image holds."
            found.append(Error(why, hint=install(package), id="boxer.E005"))
    return found


def is_static(program: Path) -> bool:
    """Whether a 64-bit ELF program names no interpreter (PT_INTERP; see elf(5))."""
    with program.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02" or len(header) < 64:
            return False
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    if not count or size < 4 or len(table) != size * count:
        return False
    kinds = [struct.unpack_from("<I", table, at)[0] for at in range(0, len(table), size)]
    return 3 not in kinds


@register(TAG, deploy=True)
def check_cgroups(**_: object) -> list[CheckMessage]:
    if settings.BOXER_IGNORE_CGROUPS:
        why = "BOXER_IGNORE_CGROUPS is set: limits of CPU and memory are not enforced."
        return [Caution(why, id="boxer.W003")]
    try:
        hierarchy = Hierarchy.of_host(f"boxer-check-{os.getpid()}")
        probe = hierarchy.cgroup("probe")
        try:
            probe.create()
        finally:
            probe.remove()
            hierarchy.remove_group()
    except (CgroupError, OSError) as error:
        hint = (
            "Mount cgroup v2 (or v1 with cpu, cpuacct, memory and pids) writable at /sys/fs/cgroup."
        )
        return [Error(f"cgroups can't be used: {error}", hint=hint, id="boxer.E006")]
    return []


@register(TAG, deploy=True)
def check_sandbox_network(**_: object) -> list[CheckMessage]:
    if os.geteuid() != 0:
        return []  # only root can look; see check_root
    lack = sandbox_network().lack()
    if not lack:
        return []
    why = f"Runs with network `sandbox` are refused: {lack}."
    hint = install("nftables", "containernetworking-plugins")
    return [Caution(why, hint=hint, id="boxer.W004")]


@register(TAG, deploy=True)
def check_platform(**_: object) -> list[CheckMessage]:
    if settings.BOXER_PLATFORM != "kvm" or os.access("/dev/kvm", os.R_OK | os.W_OK):
        return []
    why = "BOXER_PLATFORM=kvm, and /dev/kvm can't be opened."
    return [Error(why, hint="BOXER_PLATFORM=systrap works everywhere.", id="boxer.E007")]


@register(TAG)
def check_order_of_timeouts(**_: object) -> list[CheckMessage]:
    """The longest run ends before the queue gives it up, and that comes before redelivery."""
    longest = settings.BOXER_PULL_TIMEOUT_SECS + settings.BOXER_MAX_LIMITS["wall_clock_secs"]
    timeout, retry = (cast("int", settings.Q_CLUSTER[name]) for name in ("timeout", "retry"))
    if longest < timeout < retry:
        return []
    why = (
        f"Time-outs are out of order: the longest run ({longest} s) must be shorter than "
        f"Q_CLUSTER's timeout ({timeout} s), and that shorter than its retry ({retry} s)."
    )
    return [Error(why, id="boxer.E008")]
