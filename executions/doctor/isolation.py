"""A program sees and reaches nothing of the host, nor of another sandbox."""

import contextlib
import io
import secrets
import socket
from dataclasses import dataclass

from executions.doctor.findings import Broken, Doubtful, Skipped
from executions.doctor.flaws import flaws_of
from executions.doctor.ward import Ward, execute
from executions.sandbox.spec import End, InputFile, RunResult

NOBODY = "65534"
MOST_PROCESSES = 6
"""The first process, the shell and what it starts; a host has more."""
NOWHERE = "192.0.2.1"
"""Of a network for documentation (RFC 5737)."""

# Between the lines that begin with == stands what each probe looks at. The paths of the host are
# tried as they are there; of a process its number and what it was started with are asked for.
_LOOK = """
echo == mark; echo {mark}
echo == status; id -u; id -g; grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/self/status
echo == written; for path in /new /bin/new /dev/.boxer/new; do touch $path 2>/dev/null && echo $path
done
echo == files; for path in {paths}; do [ -e $path ] && echo $path; done
echo == processes; ls /proc | grep '^[0-9]'
echo == reached; for to in {targets}; do
timeout 2 nc -w 1 $to {port} </dev/null >/dev/null 2>&1 && echo $to; done
echo == interfaces; grep -o '[a-z0-9]*:' /proc/net/dev
echo == end
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What one program saw, and what it was offered."""

    found: dict[str, list[str]]
    mark: str
    targets: list[str]
    visitor: str
    """Who came to the host's listening socket meanwhile; empty for nobody."""


def look(ward: Ward) -> Look:
    """Four probes look at what one program saw: it is run once. Raises SandboxError, Broken."""
    if "look" not in ward.seen:
        ward.seen["look"] = _look(ward)
    seen = ward.seen["look"]
    assert isinstance(seen, Look)  # noqa: S101
    return seen


def _look(ward: Ward) -> Look:
    mark, file = secrets.token_hex(8), ward.area / "of-the-host"
    file.write_text("of the host")
    paths = [file, f"/proc/1/root{file}", ward.area, "/etc/shadow", "/etc/hostname", "/boot"]
    with socket.create_server(("", 0), family=socket.AF_INET) as server:
        targets = ["127.0.0.1", *_addresses(), NOWHERE]
        script = _LOOK.format(
            mark=mark,
            paths=" ".join(map(str, paths)),
            targets=" ".join(targets),
            port=server.getsockname()[1],
        )
        said = _said(ward.run(script))
        server.setblocking(False)
        try:
            connection, peer = server.accept()
            connection.close()
            visitor = str(peer[0])
        except BlockingIOError:
            visitor = ""
    sections = (part.partition("\n") for part in said.split("== ")[1:])
    return Look({name: text.split() for name, _, text in sections}, mark, targets, visitor)


def runsc(ward: Ward) -> str:
    seen = look(ward)
    if seen.found.get("mark") != [seen.mark] or "end" not in seen.found:
        raise Broken(f"a program didn't say what it was to say: {seen.found}")
    return f"{ward.runsc_version} ran a program on {ward.host.runsc.platform}"


def runsc_flaws(ward: Ward) -> str:
    flaws = flaws_of(ward.runsc_version)
    if flaws is None:
        raise Doubtful(f"{ward.runsc_version} doesn't say how old it is")
    told = "; ".join(f"{flaw.name}: {flaw.meaning} ({flaw.source})" for flaw in flaws)
    if any(flaw.escape for flaw in flaws):
        raise Broken(f"{ward.runsc_version} has {told}")
    if flaws:
        raise Doubtful(f"{ward.runsc_version} has {told}")
    return f"{ward.runsc_version} has none of those that are known here"


def _said(result: RunResult) -> str:
    if result.end is not End.EXITED:
        raise Broken(f"the program ended otherwise ({result.end}): {result.detail}")
    return result.stdout.decode(errors="replace")


def nobody(ward: Ward) -> str:
    """What the names mean: proc_pid_status(5)."""
    uid, gid, *rest = look(ward).found["status"]
    status = dict(zip(rest[::2], rest[1::2], strict=True))
    if (uid, gid) != (NOBODY, NOBODY):
        raise Broken(f"the program runs as {uid}:{gid}")
    capabilities = {name: value for name, value in status.items() if name.startswith("Cap")}
    if not capabilities or any(int(value, 16) for value in capabilities.values()):
        raise Broken(f"the program has capabilities: {capabilities}")
    if status.get("NoNewPrivs:", "1") != "1":
        raise Broken("the program may gain privileges by executing another")
    return f"{uid}:{gid}, without capabilities"


def image_is_read_only(ward: Ward) -> str:
    written = look(ward).found["written"]
    left = [path for path in ("new", "bin/new") if (ward.rootfs / path).exists()]
    if written or left:
        raise Broken(f"the program wrote to {' '.join(written or left)}")
    return "neither the image nor our tools in it could be written to"


def host_is_hidden(ward: Ward) -> str:
    seen = look(ward)
    if files := seen.found["files"]:
        raise Broken(f"the program sees of the host: {' '.join(files)}")
    processes = seen.found["processes"]
    if not 0 < len(processes) <= MOST_PROCESSES:
        raise Broken(f"the program sees {len(processes)} processes")
    return f"none of the host's files, {len(processes)} processes of its own"


def network_none(ward: Ward) -> str:
    """Something listened on every address of the host meanwhile."""
    seen = look(ward)
    if reached := seen.found["reached"]:
        raise Broken(f"the program reached {' '.join(reached)}")
    if seen.visitor:
        raise Broken(f"the host was reached from {seen.visitor}")
    if (interfaces := seen.found["interfaces"]) != ["lo:"]:
        raise Broken(f"the program has the interfaces {' '.join(interfaces)}")
    return f"its own loopback alone; out of reach: {', '.join(seen.targets)}"


def neighbours_are_hidden(ward: Ward) -> str:
    name = f"mark-{secrets.token_hex(8)}"
    mark = InputFile(name, lambda: io.BytesIO(b"a neighbour's"))
    with ward.sandbox(inputs=[mark]) as neighbour, ward.sandbox() as sandbox:
        places = " ".join(f"{place}/{name}" for place in ("/tmp", "/dev/shm", "/output"))  # noqa: S108
        told = _said(execute(neighbour, f"cat /{name}; touch {places}"))
        if told != "a neighbour's":
            raise Broken("a program doesn't see its own input")
        script = f"ls -d /{name} {places} 2>/dev/null; ls /output /tmp /dev/shm -A1 | grep mark"
        seen = _said(execute(sandbox, script)).split()
    if seen:
        raise Broken(f"a program sees files of another's sandbox: {' '.join(seen)}")
    return "two sandboxes at once saw nothing of each other"


METADATA = "169.254.169.254"
"""Where clouds give a machine its credentials."""


def network_sandbox(ward: Ward) -> str:
    """Something listened on every address of the host meanwhile; nothing is sent to the outside."""
    if lack := ward.host.network.lack():
        raise Skipped(f"this host can't give a run a network of its own: {lack}")
    with socket.create_server(("", 0), family=socket.AF_INET) as server:
        targets, port = ["127.0.0.1", *_addresses(), METADATA], server.getsockname()[1]
        script = (
            f"for to in {' '.join(targets)}; do timeout 2 nc -w 1 $to {port} </dev/null >/dev/null "
            "2>&1 && echo $to; done; grep -o '[a-z0-9]*:' /proc/net/dev"
        )
        result = ward.run(script, network="sandbox")
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection, address = server.accept()
            connection.close()
            raise Broken(f"the host was reached from {address[0]}")
    *reached, first, second = _said(result).split()
    if reached or {first, second} != {"lo:", "eth0:"}:
        raise Broken(f"the program reached, and has: {' '.join([*reached, first, second])}")
    return f"an interface of its own; out of reach: {', '.join(targets)}"


def _addresses() -> list[str]:
    """The host's IPv4 address towards the outside, where it has any; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(probe.getsockname()[0])]
