"""boxer run and boxer rerun."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import config, interrupts, terminal
from cli.api import EXECUTIONS, Api, Unanswered, execution_path
from cli.errors import ClientError
from cli.transfers import download, left_files, upload, upload_of
from cli.watching import Printed, see_through

MOST_STDIN_BYTES = 10 << 20
"""What the service's BOXER_STDIN_LIMIT_BYTES can be at most: nothing endless is read."""

Detach = Annotated[
    bool, typer.Option("--detach", "-d", help="Don't wait: print the execution's id.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Home = Annotated[
    Path | None,
    typer.Option("-o", metavar="DIR", help="Take what the program leaves in /output to DIR."),
]
Force = Annotated[bool, typer.Option("--force", help="Let -o replace files.")]


def run(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="As a registry serves it.")],
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD…", help="The program and its arguments.")
    ],
    file: Annotated[
        list[str] | None,
        typer.Option("-f", metavar="FILE[:PATH]", help="Put FILE into the sandbox at /PATH."),
    ] = None,
    home: Home = None,
    force: Force = False,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Read all of our standard input, and give it that.")
    ] = False,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="K=V", help="K alone hands on our own."),
    ] = None,
    cwd: Annotated[str | None, typer.Option("--cwd", metavar="PATH", help="Absolute.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=N", help="For example memory_mb=512."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="MODE", help="none, sandbox or host.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="To find it by.")
    ] = None,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run a command in a sandbox of its own; end with the command's exit code.

    124: it was stopped after its time. 123: it printed too much. 122: somebody cancelled it.
    125: Boxer or this client failed. Ctrl-C cancels it.
    """
    if detach and home:
        raise ClientError("-o: not with --detach; later: boxer files get --run ID -o DIR")
    request: dict[str, Any] = {"image": image, "cmd": command, "persist": home is not None}
    request["env"] = [_variable(given) for given in env or []]
    request["limits"] = dict(_limit(given) for given in limit or [])
    request["labels"] = dict(_pair(given, "--label") for given in label or [])
    given = {"cwd": cwd, "network": network}
    request |= {name: value for name, value in given.items() if value is not None}
    _check_text(request)
    uploads = [upload_of(given) for given in file or []]
    if stdin:
        request |= {"stdin": base64.b64encode(_stdin()).decode(), "stdin_encoding": "base64"}
    with Api(config.place()) as api:
        request["files"] = upload(api, uploads)
        _submit(api, EXECUTIONS, image, request, _After(home, force, detach, as_json))


def rerun(
    exec_id: Annotated[str, typer.Argument(metavar="ID")],
    home: Home = None,
    force: Force = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Run the same again, on the digest that ran; end as `boxer run` does."""
    with Api(config.place()) as api:
        path = execution_path(exec_id, "rerun/")
        _submit(api, path, exec_id, None, _After(home, force, detach, as_json))


class _After:
    """What is to become of a run that was accepted."""

    def __init__(self, home: Path | None, force: bool, detach: bool, as_json: bool) -> None:
        self.home = home
        self.force = force
        self.detach = detach
        self.as_json = as_json


def _submit(api: Api, path: str, what: str, request: object, after: _After) -> None:
    with interrupts.held_back():  # a signal must not lose the id of what has been accepted
        try:
            execution = api.post(path, what, request)
        except Unanswered as error:
            raise ClientError(f"{error.message}; it may run all the same: boxer ps") from None
    if after.detach:
        if after.as_json:
            terminal.write_json(execution)
        else:
            terminal.write_line(execution["exec_id"])
        interrupts.check()
        return
    printed = Printed() if after.as_json else None
    watched = see_through(api, execution, printed)
    if printed is not None:
        texts = {
            "stdout": printed.stdout.decode(errors="replace"),
            "stderr": printed.stderr.decode(errors="replace"),
        }
        terminal.write_json(watched.execution | texts)
    if after.home is not None and watched.execution.get("status") == "finished":
        _take_home(api, watched.execution, after.home, force=after.force)
    raise typer.Exit(watched.code)


def _take_home(api: Api, execution: dict[str, Any], home: Path, *, force: bool) -> None:
    exec_id = execution["exec_id"]
    download(api, exec_id, left_files(api, exec_id), home, force=force)
    for skipped in execution.get("left_out") or []:
        terminal.say(f"left out: {', '.join(map(str, skipped.values()))}")


def _stdin() -> bytes:
    content = sys.stdin.buffer.read(MOST_STDIN_BYTES + 1)
    if len(content) > MOST_STDIN_BYTES:
        raise ClientError(f"--stdin: more than {MOST_STDIN_BYTES >> 20} MiB, which no Boxer takes")
    return content


def _check_text(request: dict[str, Any]) -> None:
    """Arguments are bytes to the system, and text to the API."""
    try:
        json.dumps(request, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ClientError("run: an argument isn't UTF-8, which the API takes alone") from None


def _variable(given: str) -> str:
    """K=V, or K alone for our own."""
    if "=" in given:
        return given
    if given not in os.environ:
        raise ClientError(f"--env {given}: isn't set here, and has no =VALUE")
    return f"{given}={os.environ[given]}"


def _pair(given: str, option: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise ClientError(f"{option} {given}: must be NAME=VALUE")
    return name, value


def _limit(given: str) -> tuple[str, float]:
    name, value = _pair(given, "--limit")
    try:
        return name, int(value) if value.isdigit() else float(value)
    except ValueError:
        raise ClientError(f"--limit {given}: must be NAME=NUMBER") from None
