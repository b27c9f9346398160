"""The control socket of a sandbox: what `runsc exec` says over it, said without starting runsc.

A start of that binary costs more than all that it does then. The protocol is runsc's own (gVisor's
pkg/urpc and pkg/sentry/control: a JSON object each way, descriptors beside it) and may change with
any release, so it is spoken only to those it was tried with; every other gets `runsc exec`.
"""

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from executions.sandbox.shell import Pipes, Shell
from executions.sandbox.spec import SandboxError

RELEASES = frozenset({"20240729.0"})
"""As `strace runsc exec` showed for each of them."""
ANSWER_SECS = 30.0
ANSWER_BYTES = 1 << 16
"""Far above any answer: the other side is the sandbox's kernel, which is not to be trusted."""

_NO_CAPABILITIES = {
    f"{kind}Caps": 0 for kind in ("Permitted", "Inheritable", "Effective", "Bounding", "Ambient")
}


class ControlError(SandboxError):
    """The socket isn't there, or says something else than expected."""


def is_spoken(version: str) -> bool:
    """Whether a runsc that calls itself `version` has been tried."""
    found = re.search(r"\d{8}\.\d+", version)
    return found is not None and found[0] in RELEASES


def open_shell(path: Path, sandbox_id: str, process: Mapping[str, Any]) -> Shell:
    """Execute a process of a booted sandbox; the shell's `status` is the call that waits for it.

    `process` is what `runsc exec --process` takes. Raises ControlError, and then nothing runs.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with Pipes() as pipes:
            try:
                connection.settimeout(ANSWER_SECS)
                connection.connect(str(path))
                arguments = {
                    "filename": "",
                    "argv": process["args"],
                    "envv": process["env"],
                    "wd": process["cwd"],
                    "KUID": process["user"]["uid"],
                    "KGID": process["user"]["gid"],
                    "ExtraKGIDs": [],
                    "Capabilities": _NO_CAPABILITIES,
                    "StdioIsPty": False,
                    "GuestFDs": [0, 1, 2],
                    "ContainerID": sandbox_id,
                }
                call = _call("ExecuteAsync", arguments)
                if socket.send_fds(connection, [call], list(pipes.theirs)) != len(call):
                    raise ControlError("the control socket doesn't take a call")
                pid = _result(_answer(connection))
                connection.sendall(_call("WaitPID", {"PID": pid, "CID": sandbox_id}))
                connection.settimeout(None)
            except OSError as error:
                raise ControlError(f"the control socket: {error}") from error
            return Shell(*pipes.keep(), connection.detach(), 0)
    except BaseException:
        connection.close()
        raise


def exit_code(answer: bytes) -> int | None:
    """What WaitPID told: an exit code, -N for signal N; None when it told neither."""
    with contextlib.suppress(ControlError):
        status = _result(answer)
        if os.WIFSIGNALED(status) or os.WIFEXITED(status):
            return os.waitstatus_to_exitcode(status)
    return None


def _call(method: str, argument: object) -> bytes:
    return json.dumps({"method": f"containerManager.{method}", "arg": argument}).encode()


def _answer(connection: socket.socket) -> bytes:
    """One JSON object: it ends where it is whole, since nothing frames it."""
    deadline = time.monotonic() + ANSWER_SECS
    said = b""
    while len(said) < ANSWER_BYTES and time.monotonic() < deadline:
        chunk = connection.recv(ANSWER_BYTES - len(said))
        said += chunk
        if not chunk or _is_whole(said):
            break
    return said


def _is_whole(said: bytes) -> bool:
    try:
        json.loads(said)
    except (ValueError, RecursionError):
        return False
    return True


def _result(answer: bytes) -> int:
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        raise ControlError(f"the control socket said {answer[:200]!r}") from None
    match told:
        case {"success": True, "result": int(result)} if 0 <= result < 1 << 31:
            return result
        case {"success": False, "err": str(error)}:
            raise ControlError(f"the sandbox says: {error[:500]}")
    raise ControlError(f"the control socket said {answer[:200]!r}")
