"""Programs that try to get out of their sandbox, or at what keeps them in: each attempt fails."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from executions.sandbox.spec import End
from tests.fixtures_sandbox import House, run_spec

CALLS = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
def call(function, *arguments):
    ctypes.set_errno(0)
    result = function(*arguments)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def tried(action):
    try: action(); return "done"
    except OSError as error: return errno.errorcode[error.errno]
def disk(path):
    os.mknod(path, 0o60666, os.makedev(254, 0))  # gVisor lets everybody; nothing is behind it
    os.open(path, os.O_RDWR)
os.makedirs("/tmp/d", exist_ok=True)
told = {
    "mount tmpfs": call(libc.mount, b"x", b"/tmp/d", b"tmpfs", 0, None),
    "bind mount": call(libc.mount, b"/dev/.boxer", b"/tmp/d", b"", 4096, None),
    "remount": call(libc.mount, b"", b"/", b"", 32, None),
    "umount": call(libc.umount2, b"/output", 2),
    "pivot_root": call(libc.syscall, 155, b"/tmp", b"/tmp/d"),
    "chroot": tried(lambda: os.chroot("/tmp")),
    "sethostname": call(libc.sethostname, b"x", 1),
    "mknod": tried(lambda: os.mknod("/output/disk", 0o60666, os.makedev(254, 0))),
    "setuid": tried(lambda: os.setuid(0)),
    "setgid": tried(lambda: os.setgid(0)),
    "chown": tried(lambda: os.chown("/tmp/d", 0, 0)),
    "ptrace first": call(libc.ptrace, 16, 1, None, None),
    "read memory": tried(lambda: os.open("/proc/1/mem", os.O_RDONLY)),
    "first's root": tried(lambda: os.listdir("/proc/1/root/")),
    "first's cwd": tried(lambda: os.listdir("/proc/1/cwd/")),
    "first's log": tried(lambda: os.open("/proc/1/fd/2", os.O_WRONLY | os.O_APPEND)),
    "first's log again": tried(lambda: os.truncate("/proc/1/fd/2", 1 << 40)),
    "device of memory": tried(lambda: disk("/tmp/disk")),
    "device of shm": tried(lambda: disk("/dev/shm/disk")),
    "kill first": tried(lambda: os.kill(1, 9)),
    "init_module": call(libc.syscall, 175, b"", 0, b""),
    "reboot": call(libc.reboot, 0x1234567),
    "settime": call(libc.syscall, 227, 0, ctypes.byref((ctypes.c_long * 2)(1, 1))),
    "swapon": call(libc.swapon, b"/tmp/d", 0),
    "bpf": call(libc.syscall, 321, 0, None, 0),
    "userfaultfd": call(libc.syscall, 323, 0),
    "open_by_handle_at": call(libc.syscall, 304, -100, b"\\0" * 128, 0),
    "sysctl": tried(lambda: os.open("/proc/sys/kernel/hostname", os.O_WRONLY)),
    "core pattern": tried(lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
    "sysrq": tried(lambda: os.open("/proc/sysrq-trigger", os.O_WRONLY | os.O_CREAT)),
    "sys": tried(lambda: os.open("/sys/kernel/uevent_helper", os.O_WRONLY | os.O_CREAT)),
    "our tools": tried(lambda: os.open("/dev/.boxer/sh", os.O_RDWR)),
    "our tools' directory": tried(lambda: os.open("/dev/.boxer/new", os.O_WRONLY | os.O_CREAT)),
    "remove our tools": tried(lambda: os.unlink("/dev/.boxer/sh")),
    "rename our tools": tried(lambda: os.rename("/dev/.boxer", "/dev/x")),
    "replace a mount": tried(lambda: os.rename("/output", "/tmp/output")),
    "image": tried(lambda: os.open("/usr/bin/new", os.O_WRONLY | os.O_CREAT)),
    "image's shell": tried(lambda: os.open("/bin/sh", os.O_RDWR)),
    "host's name": tried(lambda: os.open("/etc/hostname", os.O_WRONLY | os.O_CREAT)),
    "tun": call(libc.ioctl, os.open("/dev/net/tun", os.O_RDWR), 0x400454ca, b"\\0" * 40)
        if os.access("/dev/net/tun", os.W_OK) else "ENOENT",
}
print(json.dumps(told))
"""


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_privileged_calls_and_paths_are_refused(house: House, umask: int) -> None:
    before = os.umask(umask)
    try:
        result = house.py(CALLS)
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert {what for what, answer in told.items() if answer == "done"} == set()
    assert len(told) > 35


UNSHARED = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000 | 0x00020000 | 0x40000000 | 0x20000000))
try:
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write("0 65534 1")
except OSError: pass
def tried(action):
    try: return action()
    except OSError: return None
found = [
    tried(lambda: os.open("/dev/.boxer/sh", os.O_RDWR)),
    tried(lambda: os.kill(1, 9) or "killed"),
    tried(lambda: os.mknod("/output/disk", 0o60666, os.makedev(254, 0)) or "made"),
    tried(lambda: os.listdir("/proc/1/root/")),
]
libc.mount(b"none", b"/", b"", 32 | 4096, None)
found.append(tried(lambda: os.open("/usr/bin/new", os.O_WRONLY | os.O_CREAT)))
print(found)
"""


def test_a_user_namespace_of_one_s_own_opens_nothing(house: House) -> None:
    result = house.py(UNSHARED)
    assert result.stdout.splitlines()[-1] == b"[None, None, None, None, None]"


def test_a_set_user_id_program_gives_nothing(house: House, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "bin").mkdir(parents=True)
    busybox = (house.rootfs / "bin" / "busybox").read_bytes()
    for name in ("sh", "id", "busybox"):
        (image / "bin" / name).write_bytes(busybox)
        (image / "bin" / name).chmod(0o6755)
    result = house.sh("id -u; id -g; cp /bin/id /output/id; chmod 6755 /output/id", rootfs=image)
    assert result.stdout.split()[:2] == [b"65534", b"65534"]


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.is_file()
    }


def test_tools_of_ours_cannot_be_overwritten_while_they_run(house: House) -> None:
    """The trick of runc's CVE-2019-5736: through /proc/self/exe and other descriptors."""
    before = digests(house.home / "tools")
    script = """
/dev/.boxer/sh -c '
    exec 3</proc/self/exe
    for target in /proc/self/exe /proc/self/fd/3 /proc/1/exe /dev/.boxer/init /dev/.boxer/env; do
        (echo owned > $target) 2>/dev/null && echo "wrote $target"
        (echo owned >> $target) 2>/dev/null && echo "appended to $target"
        chmod 777 $target 2>/dev/null && echo "changed $target"
    done'
echo tried
"""
    assert house.sh(script).stdout == b"tried\n"
    assert digests(house.home / "tools") == before


def test_an_image_that_is_shared_stays_as_it_was(house: House) -> None:
    before = sorted(str(path) for path in house.rootfs.rglob("*"))
    house.sh("echo x > /bin/new; mkdir /new /output/x /tmp/x; rm -rf /* 2>/dev/null", cwd="/a/b")
    assert sorted(str(path) for path in house.rootfs.rglob("*")) == before
    assert house.sh("ls -d /a /new /tmp/x /output/x").stdout == b""


def test_runs_do_not_see_each_other(house: House) -> None:
    with house.sandbox() as one, house.sandbox() as other:
        script = "echo mine > /tmp/mine; echo mine > /output/mine; echo mine > /dev/shm/mine"
        one.execute(run_spec(one, ["sh", "-c", f"{script}; sleep 99 & exit 0"]), ())
        look = "ls /tmp /output /dev/shm | grep mine; ps | grep '[s]leep 99'; echo looked"
        result = other.execute(run_spec(other, ["sh", "-c", look]), ())
    assert result.stdout == b"looked\n"


RACE = """
import os, threading
def flip(name, target):
    while True:
        try:
            os.symlink(target, f"/output/.{name}"); os.rename(f"/output/.{name}", f"/output/{name}")
            os.unlink(f"/output/{name}"); os.mkdir(f"/output/{name}")
            open(f"/output/{name}/passwd", "w").write("ours"); os.unlink(f"/output/{name}/passwd")
            os.rmdir(f"/output/{name}")
        except OSError: pass
for name, target in (("a", "/etc"), ("b", "../../../../../../etc"), ("c", "/proc/1/root/etc")):
    threading.Thread(target=flip, args=(name, target), daemon=True).start()
print("racing", flush=True)
threading.Event().wait()
"""


def test_directories_that_become_links_while_we_look_lead_nowhere(house: House) -> None:
    """outputs() is for a sandbox that is dead; not even a living one may lead it astray."""
    secret = Path("/etc/passwd").read_bytes()
    read, write = os.pipe()
    with house.sandbox(rootfs=house.python) as sandbox:
        child = os.fork()
        if child == 0:
            try:
                spec = run_spec(sandbox, ["python3", "-c", RACE], wall_clock_secs=20)
                sandbox.execute(spec, (), interrupt=read)
            finally:
                os._exit(0)
        time.sleep(1.5)
        seen = []
        for _ in range(300):
            try:
                seen += [file.contents.read() for file in sandbox.outputs().files()]
            except OSError:
                continue  # it vanished between two looks: no harm
        os.write(write, b"x")
        os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert secret not in seen
    assert set(seen) <= {b"", b"ours"}


@pytest.mark.parametrize(
    "script",
    [
        "import os\nfor p in range(2, 40000):\n  try: os.kill(p, 9)\n  except OSError: pass",
        "import os, signal\nos.killpg(1, 9)",
        "import os\nopen('/proc/self/oom_score_adj', 'w').write('-1000')",
        "import ctypes; ctypes.string_at(0)",
        "import mmap\nwhile True: mmap.mmap(-1, 1 << 40)",
    ],
)
def test_what_would_harm_a_shared_kernel_harms_the_run_alone(house: House, script: str) -> None:
    result = house.py(script, wall_clock_secs=5)
    assert result.end is not End.BROKEN
    assert house.sh("echo alive").stdout == b"alive\n"
