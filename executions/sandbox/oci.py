"""Pure: what a sandbox and a command in it look like as OCI runtime configuration.

Source: github.com/opencontainers/runtime-spec, config.md.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executions.sandbox.spec import RunSpec

NOBODY = 65534
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = "/dev/.boxer"
"""Where the sandbox finds our tools: `init` (catatonit), `sh` and `env` (busybox)."""
BOOT_NOFILE = 1 << 20
BOOT_NPROC = 1 << 20

RUN = f"{TOOLS}/run"
"""Where a waiting shell finds what it is to run; read-only, one directory for each sandbox."""
READY = b"ready\n"

# A shell is executed in the sandbox when it is booted, long before its run perhaps, and waits: that
# takes the start of runsc and of a process off the path of the run. A line on stdin sets it going.
_WAIT = f"""\
echo {READY.decode().strip()}
read -r __boxer_go || exit 125
. {RUN}/command
"""

# What the shell then does: go to the working directory (one beneath a mount of the sandbox, such as
# /tmp, is made here), set the run's resource limits (`runsc exec` knows none), find the command and
# become it, so that only the command is left. The search is spelled out because this busybox would
# run an applet of its own in place of the image's `ls`.
_LIMITS = """\
[ -d "$3" ] || mkdir -p -- "$3" 2>/dev/null
cd -P -- "$3" && ulimit -n "$1" && ulimit -u "$2" || exit 126
shift 3
"""
_FIND = """\
case $1 in
*/*) __boxer_found=$1 ;;
*)
    __boxer_rest=$PATH: __boxer_found=
    while [ -n "$__boxer_rest" ]; do
        __boxer_try=${__boxer_rest%%:*} __boxer_rest=${__boxer_rest#*:}
        __boxer_try=${__boxer_try:-.}/$1
        if [ -f "$__boxer_try" ] && [ -x "$__boxer_try" ]; then
            __boxer_found=$__boxer_try
            break
        fi
    done
    if [ -z "$__boxer_found" ]; then
        echo "boxer: $1: command not found" >&2
        exit 127
    fi
    ;;
esac
__boxer_name=$1
shift
"""
_BECOME = """\
unset SHLVL PWD OLDPWD
exec -a "$__boxer_name" -- "$__boxer_found" "$@"
"""
# HOME is what runsc has found in the image's /etc/passwd; the request's own comes later and wins.
_BECOME_WITH_ENV = f"""\
case $__boxer_found in
*=*)
    echo "boxer: $__boxer_found: can't be run with these names of variables" >&2
    exit 126
    ;;
esac
exec {TOOLS}/env -i -- ${{HOME+"HOME=$HOME"}} "$@"
"""
# Moves the first %d arguments to the end.
_ROTATE = """\
__boxer_left=%d
while [ $__boxer_left -gt 0 ]; do
    set -- "$@" "$1"
    shift
    __boxer_left=$((__boxer_left - 1))
done
"""
_SHELL_KEEPS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_CHANGES = frozenset(
    [
        "SHLVL",
        "PWD",
        "OLDPWD",
        "IFS",
        "OPTIND",
        "PS1",
        "PS2",
        "PS4",
        "LINENO",
        "RANDOM",
        "FUNCNAME",
        "MAIL",
        "MAILPATH",
        "HISTFILE",
        "EPOCHSECONDS",
        "EPOCHREALTIME",
        "ENV",
    ]
)


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path that appears read-only at `destination`."""

    source: Path
    destination: str


def environment(image_env: Sequence[str], request_env: Sequence[str]) -> list[str]:
    """The image's variables, the request's over them; PATH is always there."""
    merged = {"PATH": PATH}
    for pair in (*image_env, *request_env):
        name, _, value = pair.partition("=")
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def sandbox(
    *,
    rootfs: Path,
    output: Path,
    tools: Path,
    run: Path,
    tmp_bytes: int,
    binds: Sequence[Bind],
    netns: bool,
    netns_path: Path | None = None,
) -> dict[str, Any]:
    """config.json of a sandbox whose first process waits and reaps.

    That process is root without any capability, so that the program (nobody) can't signal it.
    `netns_path` names a network namespace to join; without it runsc makes one.
    """
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if netns:
        named = {"path": str(netns_path)} if netns_path else {}
        namespaces.append({"type": "network", **named})
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [f"{TOOLS}/init", "-P"],
            "env": [f"PATH={PATH}"],
            "cwd": "/",
            "capabilities": _no_capabilities(),
            "noNewPrivileges": True,
            "rlimits": [
                _rlimit("RLIMIT_NOFILE", BOOT_NOFILE),
                _rlimit("RLIMIT_NPROC", BOOT_NPROC),
                _rlimit("RLIMIT_CORE", 0),
            ],
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "boxer",
        "mounts": [
            _mount("/proc", "proc"),
            _mount("/dev", "tmpfs", "nosuid", "mode=755"),
            _mount("/dev/shm", "tmpfs", "nosuid", "nodev", "mode=1777", f"size={tmp_bytes}"),  # noqa: S108
            _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777", f"size={tmp_bytes}"),  # noqa: S108
            _bind(tools, TOOLS, "ro"),
            _bind(run, RUN, "ro"),
            _bind(output, "/output", "rw"),
            *(_bind(bind.source, bind.destination, "ro") for bind in binds),
        ],
        "linux": {"namespaces": namespaces},
    }


def shell() -> dict[str, Any]:
    """shell.json for `runsc exec`: the shell that waits for its command.

    runsc adds HOME, as the image's /etc/passwd has it for this user.
    """
    return {
        "terminal": False,
        "user": {"uid": NOBODY, "gid": NOBODY},
        "args": [f"{TOOLS}/sh", "-c", _WAIT, "boxer"],
        "env": [f"PATH={PATH}"],
        "cwd": "/",
        "capabilities": _no_capabilities(),
        "noNewPrivileges": True,
    }


def command(spec: RunSpec, image_env: Sequence[str]) -> str:
    """The script that turns the waiting shell into the run's command.

    A shell drops variables whose names aren't identifiers and changes some others. Where one of
    those is asked for, `env -i` passes all of them on as they are, at the cost of another exec.
    """
    env = environment(image_env, spec.env)
    names = [pair.partition("=")[0] for pair in env]
    limits = _quoted([str(spec.limits.nofile), str(spec.limits.pids_limit), spec.cwd])
    cmd = _quoted(spec.cmd)
    if all(_SHELL_KEEPS.fullmatch(name) and name not in _SHELL_CHANGES for name in names):
        exports = "".join(f"export {_assignment(pair)}\n" for pair in env)
        return f"{exports}set -- {limits} {cmd}\n{_LIMITS}{_FIND}{_BECOME}"
    path = next(pair for pair in env if pair.startswith("PATH="))
    return (
        f"export {_assignment(path)}\n"
        f"set -- {limits} {_quoted(env)} {cmd}\n"
        f"{_LIMITS}{_ROTATE % len(env)}{_FIND}"
        f'set -- "$__boxer_found" "$@"\n{_ROTATE % len(spec.cmd)}{_BECOME_WITH_ENV}'
    )


def _quoted(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _assignment(pair: str) -> str:
    name, _, value = pair.partition("=")
    return f"{name}={shlex.quote(value)}"


def _no_capabilities() -> dict[str, list[str]]:
    kinds = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {kind: [] for kind in kinds}


def _rlimit(kind: str, value: int) -> dict[str, Any]:
    return {"type": kind, "hard": value, "soft": value}


def _mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def _bind(source: Path, destination: str, mode: str) -> dict[str, Any]:
    options = ["bind", mode, "nosuid", "nodev"]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}
