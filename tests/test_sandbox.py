"""What a program sees inside a sandbox: an image, itself, and nothing of the host."""

import json
import os
import secrets
import socket
from pathlib import Path

import pytest

from executions.sandbox.spec import End
from tests.fixtures_sandbox import MIB, House, file, run_spec

LOOK_AROUND = """
import json, os, socket, platform
def tried(action):
    try: return repr(action())
    except OSError as error: return type(error).__name__
def lines(path): return open(path).read().splitlines()
status = dict(line.split(":\\t", 1) for line in lines("/proc/self/status") if ":\\t" in line)
environs = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: environs.append(open(f"/proc/{pid}/environ").read())
    except OSError: pass
print(json.dumps({
    "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
    "caps": {name: status[name] for name in status if name.startswith("Cap")},
    "no_new_privs": __import__("ctypes").CDLL(None).prctl(39, 0, 0, 0, 0),
    "hostname": socket.gethostname(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "pids": sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit()),
    "first": open("/proc/1/comm").read().strip(),
    "environs": environs,
    "environ": dict(os.environ),
    "mounts": [line.split()[1:4] for line in lines("/proc/mounts")],
    "modes": {path: oct(os.stat(path).st_mode) for path in ("/", "/tmp", "/dev/shm", "/output")},
    "writes": {path: tried(lambda: open(f"{path}/new", "w") and "written") for path in
               ("", "/etc", "/usr/bin", "/proc", "/sys", "/dev", "/dev/.boxer",
                "/tmp", "/dev/shm", "/output")},
    "devices": sorted(os.listdir("/dev")),
    "root": sorted(os.listdir("/")),
    "fds": sorted(os.listdir("/proc/self/fd")),
    "umask": oct(os.umask(0)),
    "cgroups": tried(lambda: os.listdir("/sys/fs/cgroup")),
    "stdin": open(0).read(),
    "shm": open("/dev/zero", "rb").read(3).hex(),
}))
"""


def test_a_program_is_nobody_in_a_world_of_its_own(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secrets.token_hex(16)
    monkeypatch.setenv("BOXER_SECRET_KEY", secret)
    result = house.py(LOOK_AROUND, image_env=["LANG=C.UTF-8"], env=["MINE=1"])
    assert (result.end, result.exit_code, result.stderr) == (End.EXITED, 0, b"")
    seen = json.loads(result.stdout)
    assert seen["ids"] == [[65534] * 3, [65534] * 3, []]
    assert set(seen["caps"].values()) == {"0" * 16}
    assert seen["no_new_privs"] == 1
    assert seen["hostname"] == "boxer"
    assert seen["interfaces"] == ["lo"]
    assert len(seen["pids"]) == 2
    assert seen["first"] == "init"
    assert seen["environ"].keys() == {"PATH", "LANG", "MINE", "HOME"}
    assert secret not in result.stdout.decode()
    kinds = {point: kind for point, kind, _ in seen["mounts"]}
    assert kinds["/proc"] == "proc"
    assert kinds["/sys"] == "sysfs"
    assert kinds["/tmp"] == kinds["/dev/shm"] == "tmpfs"
    options = {point: options.split(",") for point, _, options in seen["mounts"]}
    assert all("ro" in options[point] for point in ("/", "/sys", "/dev/.boxer"))
    assert seen["modes"]["/tmp"] == seen["modes"]["/dev/shm"] == "0o41777"
    assert seen["modes"]["/"] == seen["modes"]["/output"] == "0o40755"
    writable = {path for path, told in seen["writes"].items() if "written" in told}
    assert writable == {"/tmp", "/dev/shm", "/output"}
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "shm"} <= set(seen["devices"])
    assert not {"kmsg", "mem", "kvm", "vda", "sda", "loop0"} & set(seen["devices"])
    assert seen["fds"] == ["0", "1", "2", "3"]
    assert (seen["umask"], seen["stdin"], seen["shm"]) == ("0o22", "", "000000")
    assert str(house.home) not in result.stdout.decode()


def test_no_process_of_the_sandbox_holds_a_variable_of_ours(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the host either: what breaks out of gVisor finds no password."""
    secret = secrets.token_hex(16)
    monkeypatch.setenv("DATABASE_URL", f"postgres://boxer:{secret}@db/boxer")
    with house.sandbox() as sandbox:
        pids = sandbox._cgroup.pids()
        assert len(pids) >= 2
        for pid in pids:
            assert secret.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_no_file_of_the_host_is_there(house: House) -> None:
    with Path(house.home / "secret").open("w") as secret:
        secret.write("x")
    result = house.sh(
        f"cat {house.home}/secret; cat /proc/1/root{house.home}/secret; ls -d /home /work /root/*; "
        "find / -name secret -not -path '/proc/*' 2>/dev/null; ls /"
    )
    names = set(result.stdout.decode().split())
    assert names == {
        *("bin", "dev", "etc", "output", "proc", "root", "sys", "tmp", "usr", "var"),
    }


def test_without_a_network_only_its_own_loopback_is_there(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = house.py(
            """
import socket, sys, threading
def tried(address):
    try: socket.create_connection(address, 2); return "connected"
    except OSError as error: return error.strerror or type(error).__name__
for host in ("127.0.0.1", "192.0.2.1", "169.254.169.254", "2001:db8::1"):
    print(host, tried((host, int(sys.argv[1]))))
own = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=own.accept, daemon=True).start()
print("own", tried(own.getsockname()))
try: socket.getaddrinfo("example.com", 80)
except OSError as error: print("name", error.errno)
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except OSError: print("no packets")
""",
            str(port),
        )
    told = dict(line.split(" ", 1) for line in result.stdout.decode().splitlines())
    assert told["127.0.0.1"] == "Connection refused"
    assert told["192.0.2.1"] in {"No route to host", "Network is unreachable"}
    assert told["169.254.169.254"] in {"No route to host", "Network is unreachable"}
    assert told["2001:db8::1"] in {"No route to host", "Network is unreachable"}
    assert told["own"] == "connected"
    assert int(told["name"]) < 0
    assert told["no"] == "packets"


def namespace(pid: str, kind: str) -> Path:
    return Path(f"/proc/{pid}/ns/{kind}").readlink()


def threads(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def test_namespaces_are_not_the_host_s(house: House) -> None:
    semaphores = "import ctypes; print(ctypes.CDLL(None).semget(0x626f78, 1, 0o1666))"
    with house.sandbox(rootfs=house.python) as sandbox:
        result = sandbox.execute(run_spec(sandbox, ["python3", "-c", semaphores]), ())
        assert int(result.stdout) >= 0
        mine = {namespace("self", kind) for kind in ("mnt", "net")}
        kernel = max(sandbox._cgroup.pids(), key=threads)
        theirs = {namespace(str(kernel), kind) for kind in ("mnt", "net")}
    assert not mine & theirs
    assert "0x00626f78" not in Path("/proc/sysvipc/sem").read_text()


def test_inputs_are_read_only_wherever_they_are(house: House) -> None:
    places = ("work/in.txt", "tmp/in.txt", "tmp/a/b/in.txt", "etc/passwd", "bin/true", "var/x/y/z")
    result = house.run(
        *("sh", "-c", "for f; do cat /$f; (echo x > /$f); rm -f /$f; cat /$f; done", "sh", *places),
        inputs=[file(path, f"<{path}>".encode()) for path in places],
    )
    assert result.stdout.decode() == "".join(f"<{path}>" * 2 for path in places)


def test_an_input_may_be_a_program(house: House) -> None:
    """It isn't executable, as an upload isn't: the interpreter reads it."""
    result = house.run("sh", "/work/run.sh", "a b", inputs=[file("work/run.sh", b'echo "$0:$1"')])
    assert result.stdout == b"/work/run.sh:a b\n"


def test_many_inputs_of_all_sizes_arrive_whole(house: House) -> None:
    inputs = [file(f"data/{number}", os.urandom(number * 1000)) for number in range(200)]
    inputs.append(file("big", b"\xff" * (9 * MIB)))
    result = house.sh("cat /data/* | wc -c; wc -c < /big; ls /data | wc -l", inputs=inputs)
    assert result.stdout.split() == [str(1000 * 199 * 100).encode(), str(9 * MIB).encode(), b"200"]


def test_files_that_are_put_under_tmp_leave_it_writable(house: House) -> None:
    inputs = [file(f"tmp/in/{number}") for number in range(64)]
    result = house.sh("ls /tmp/in | wc -l; echo new > /tmp/new && cat /tmp/new", inputs=inputs)
    assert result.stdout.split() == [b"64", b"new"]


def test_a_hostile_image_still_gets_our_mounts(house: House, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "bin").mkdir(parents=True)
    (image / "etc").mkdir()
    (image / "bin" / "sh").write_bytes((house.rootfs / "bin" / "busybox").read_bytes())
    (image / "bin" / "sh").chmod(0o755)
    for name, target in {
        "proc": "/etc",
        "output": "/etc",
        "tmp": "../../..",
        "sys": "loop",
    }.items():
        (image / name).symlink_to(target)
    (image / "dev").write_text("a file")
    before = sorted(Path("/etc").iterdir())
    result = house.sh(
        "echo x > /output/x; echo y > /tmp/y; read v < /proc/self/stat && echo ${v%% *}; "
        "echo $(echo /etc/* /output/* /tmp/* /dev/null)",
        rootfs=image,
    )
    assert result.stdout.split()[1:] == [b"/etc/*", b"/output/x", b"/tmp/y", b"/dev/null"]
    assert sorted(Path("/etc").iterdir()) == before


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_whatever_the_worker_s_umask_is_a_run_works(house: House, umask: int) -> None:
    before = os.umask(umask)
    try:
        result = house.sh(
            "cat /a/b/in /tmp/in; cd /new/cwd; umask; echo x > /output/x; ls -l /output",
            inputs=[file("a/b/in", b"1"), file("tmp/in", b"2")],
            cwd="/new/cwd",
        )
    finally:
        os.umask(before)
    assert result.stdout.startswith(b"120022\n")
    assert b"-rw-r--r--" in result.stdout


def test_only_root_of_the_host_can_enter_a_sandbox_s_directory(house: House) -> None:
    with house.sandbox() as sandbox:
        for path in (house.host.directory, house.host.directory / sandbox.id):
            assert path.stat().st_mode & 0o077 == 0
