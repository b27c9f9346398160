"""Boots a virtual machine that runs the sandbox library on cgroup v2 and tells what it saw."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from tests.qemu.initramfs import Initramfs
from tests.qemu.kernel_package import Kernel

PROJECT = Path(__file__).resolve().parents[2]
MEMORY_MB = 1536
START_SECS = 45
"""Until our code begins in it: 5 to 10 s. An emulated machine has been seen to hang before that."""
BOOT_SECS = 120
"""Until the machine has switched itself off; without acceleration it takes a third of that."""
STARTED = b"in_guest begins"
CPU = "max,cx16=off,la57=off"
"""Without compare-and-swap of 16 bytes, which QEMU 7.2 at times emulates wrongly: kernels crash."""
PROGRAMS = ("busybox", "catatonit", "runsc")

# gVisor can't pivot out of the initramfs, so everything moves into a tmpfs first.
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t tmpfs -o size=90% tmpfs /new
/bin/busybox cp -a /machine/. /new/
exec /bin/busybox switch_root /new /init
"""
IN_TMPFS = f"""\
#!/bin/busybox sh
export PATH=/bin PYTHONPATH="{PROJECT}" PYTHONDONTWRITEBYTECODE=1
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp /run && chmod 1777 /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup2 /sys/fs/cgroup
insmod /overlay.ko
ip link set lo up
stty raw -F /dev/ttyS1
timeout {BOOT_SECS} "$(cat /python)" -m tests.qemu.in_guest >/dev/ttyS1
echo "in_guest ended with $?"
reboot -f
"""


class GuestFailed(Exception):
    """The machine didn't come to its end; the message has the last of what it said."""


def boot(kernel: Kernel, directory: Path) -> dict[str, dict[str, Any]]:
    """What tests/qemu/in_guest.py answered, by the names of its questions. Raises GuestFailed.

    Leaves nothing but files in `directory`, and the machine is dead.
    """
    initramfs = directory / "initramfs"
    build(initramfs, kernel)
    console, answers = directory / "console", directory / "answers"
    machine = _machine(kernel, initramfs, console, answers)
    try:
        if not _run(machine, console) and not _run(machine, console):
            raise GuestFailed(f"nothing begins in {START_SECS} s: {_tail(console)}")
    except subprocess.TimeoutExpired as error:
        raise GuestFailed(f"not done in {BOOT_SECS} s: {_tail(console)}") from error
    finally:
        initramfs.unlink()
    lines = answers.read_bytes().decode(errors="replace").splitlines()
    if not lines or lines[-1].strip() != "end":
        raise GuestFailed(f"{len(lines)} answers, then: {_tail(console)}")
    return {answer.pop("question"): answer for answer in map(json.loads, lines[:-1])}


def _machine(kernel: Kernel, initramfs: Path, console: Path, answers: Path) -> list[str]:
    options = "console=ttyS0 loglevel=4 panic=-1 mitigations=off nokaslr random.trust_cpu=on"
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", CPU, "-smp", "2"),
        *("-m", str(MEMORY_MB), "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-nic", "none"),
        *("-serial", f"file:{console}", "-serial", f"file:{answers}"),
        *("-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", options),
    ]


def _run(argv: list[str], console: Path) -> bool:
    """Whether our code began in the machine, which is dead at the end. Raises TimeoutExpired."""
    with (console.parent / "qemu.log").open("wb") as log:
        machine = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    began = time.monotonic()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            machine.wait(START_SECS)
        if not console.exists() or STARTED not in console.read_bytes():
            return False
        machine.wait(began + BOOT_SECS - time.monotonic())
        return True
    finally:
        machine.kill()
        machine.wait()


def _tail(console: Path) -> str:
    said = console.read_bytes().decode(errors="replace") if console.exists() else ""
    qemu = (console.parent / "qemu.log").read_text(errors="replace")
    return f"{qemu[-500:]}\n{said[-3000:]}"


# ── What is in it ────────────────────────────────────────────────────────────────────────────────


def build(path: Path, kernel: Kernel) -> None:
    """From this machine's own files, 1 s: programs, Python, and the modules that are imported."""
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    imported = _imported(python)
    with Initramfs(path) as archive:
        archive.directory("new")
        archive.copy(_program("busybox"), "bin/busybox")
        archive.text("init", INIT, 0o755)
        archive.text("machine/init", IN_TMPFS, 0o755)
        archive.text("machine/python", str(python))
        archive.copy(kernel.overlay, "machine/overlay.ko")
        for name in PROGRAMS:
            archive.copy(_program(name), f"machine/bin/{name}")
        for file in (python, *imported, *_shared_libraries([python, *imported])):
            archive.copy(file, f"machine{file}")


def _program(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise GuestFailed(f"{name} is not installed")
    return Path(found)


def _imported(python: Path) -> list[Path]:
    """Files of every module that the script in the guest imports, and what they compile to."""
    script = (
        "import sys, runpy, tests.qemu.in_guest\n"
        "for module in list(sys.modules.values()):\n"
        "    print(getattr(module, '__file__', None) or '')\n"
        "    print(getattr(module, '__cached__', None) or '')\n"
    )
    done = subprocess.run(
        [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}); {script}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        raise GuestFailed(f"{python}: {done.stderr}")
    found = {Path(line) for line in done.stdout.splitlines() if line}
    # Which codec is used depends on the locale.
    found.update(Path(sysconfig.get_path("stdlib"), "encodings").glob("*.py"))
    return sorted(path for path in found if path.is_file())


def _shared_libraries(files: list[Path]) -> list[Path]:
    """What the dynamic linker would load for these; by the paths at which it looks."""
    binaries = [str(file) for file in files if file.suffix == ".so" or file.parent.name == "bin"]
    answer = subprocess.run(["ldd", *binaries], capture_output=True, text=True, timeout=30)
    return [Path(path) for path in sorted(set(re.findall(r"(/\S+) \(0x", answer.stdout)))]
