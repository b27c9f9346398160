"""boxer ps, logs, cancel and rm."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli import config, terminal
from cli.api import EXECUTIONS, Api, execution_path
from cli.errors import FAILED, ClientError
from cli.watching import watch

PAGE = 200
"""The most that the API gives at once."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON, nothing else.")]


def ps(
    status: Annotated[
        str | None,
        typer.Option(metavar="WORD", help="queued, pulling, running, finished or cancelled."),
    ] = None,
    outcome: Annotated[
        str | None, typer.Option(metavar="WORD", help="exited, timed_out, out_of_memory, …")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="As requested.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="All of these.")] = None,
    command: Annotated[str | None, typer.Option(metavar="TEXT", help="Text in it.")] = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Made after, ISO 8601.")] = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Made before, ISO 8601.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(metavar="USER", help="For those who see everybody's.")
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List executions, newest first."""
    with Api(config.place()) as api:
        found = _executions(
            api,
            count,
            status=status,
            outcome=outcome,
            image=image,
            label=label or [],
            command=command,
            created_after=_moment(after, "--after"),
            created_before=_moment(before, "--before"),
            owner=owner,
        )
    if as_json:
        terminal.write_json(found)
        return
    rows = ([*_row(execution)] for execution in found)
    terminal.write_table(["ID", "STATUS", "CODE", "CREATED", "TIME", "IMAGE", "COMMAND"], rows)


def _executions(api: Api, count: int, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < count:
        limit = min(PAGE, count - len(found))
        page = api.get(EXECUTIONS, "ps", limit=limit, cursor=cursor, **filters)
        found += page["results"]
        if (cursor := page["next"]) is None:
            break
    return found


def _row(execution: dict[str, Any]) -> list[str]:
    code = execution["exit_code"]
    return [
        execution["exec_id"],
        execution["outcome"] or execution["status"],
        "" if code is None else str(code),
        _shown(execution["created_at"]),
        shown_secs(execution["wall_ms"]),
        execution["image"],
        " ".join(execution["cmd"]),
    ]


def _shown(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def shown_secs(wall_ms: int | None) -> str:
    return "" if wall_ms is None else f"{wall_ms / 1000:.1f} s"


def _moment(given: str | None, option: str) -> str | None:
    """With a zone: ours, where it has none."""
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise ClientError(f"{option} {given}: must be a time like 2026-11-28T12:00") from None
    return moment.astimezone(UTC).isoformat()


def logs(
    exec_id: Annotated[str, typer.Argument(metavar="ID")],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the run ends.")
    ] = False,
) -> None:
    """Print what a run has printed so far, stdout to stdout and stderr to stderr."""
    with Api(config.place()) as api:
        execution = api.get(execution_path(exec_id), exec_id)
        watch(api, execution, so_far=not follow)


def cancel(exec_ids: Annotated[list[str], typer.Argument(metavar="ID…")]) -> None:
    """Cancel runs: what waits never starts, what runs is killed."""
    _each(exec_ids, lambda api, one: api.post(execution_path(one, "cancel/"), one))


def rm(exec_ids: Annotated[list[str], typer.Argument(metavar="ID…")]) -> None:
    """Remove runs that have ended, with their output and files."""
    _each(exec_ids, lambda api, one: api.ask("DELETE", execution_path(one), one, dict))


def _each(exec_ids: list[str], do: Callable[[Api, str], object]) -> None:
    """Print those that it was done to; one that fails keeps none of the others from it."""
    failed = False
    with Api(config.place()) as api:
        for exec_id in exec_ids:
            try:
                do(api, exec_id)
                terminal.write_line(exec_id)
            except ClientError as error:
                terminal.complain(error.message)
                failed = True
    if failed:
        raise typer.Exit(FAILED)
