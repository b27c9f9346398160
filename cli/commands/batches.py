"""boxer batch and boxer batch-results."""

from collections import Counter
from typing import Annotated, Any

import typer

from cli import batches, config, interrupts, terminal
from cli.api import Api
from cli.batches import batch_path
from cli.commands.looking import shown_secs
from cli.errors import FAILED, ClientError
from cli.watching import CANCEL_HINT

SOME_FAILED = 1
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines, nothing else.")]


def batch(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON or JSON lines; - for stdin.")],
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Don't wait: print the batch's id.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run many at once: each result when it is there; end with 0 when all of them passed.

    1: some didn't. 125: Boxer or this client failed. Ctrl-C cancels the batch.
    """
    request = batches.read(file)
    with Api(config.place()) as api:
        with interrupts.held_back():  # a signal must not lose the id of what has been accepted
            found = batches.submit(api, file, request)
        if detach:
            if as_json:
                terminal.write_json_line(found)
            else:
                terminal.write_line(found["batch_id"])
            interrupts.check()
            return
        try:
            interrupts.check()
            code = _follow(api, found, as_json=as_json)
        except interrupts.Interrupted as interruption:
            _cancel(api, found["batch_id"])
            raise typer.Exit(interruption.code) from None
        except terminal.Unwritable:
            _cancel(api, found["batch_id"])
            raise
    raise typer.Exit(code)


def batch_results(
    batch_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False
) -> None:
    """Follow a batch from its first result; end as `boxer batch` does. Ctrl-C leaves it alone."""
    with Api(config.place()) as api:
        code = _follow(api, api.get(batch_path(batch_id), batch_id), as_json=as_json)
    raise typer.Exit(code)


def _follow(api: Api, found: dict[str, Any], *, as_json: bool) -> int:
    total, words = found["total"], Counter[str]()
    broken = False
    with terminal.counting() as progress:
        task = progress.add_task("", total=total)

        def tell(now: dict[str, Any]) -> None:
            if now["phase"] == "building":
                progress.update(task, description="building")
            elif not words and now["statuses"].get("running"):
                progress.update(task, description=f"{now['statuses']['running']} running")

        for result in batches.follow(api, found, tell):
            words[result["verdict"] or result["status"]] += 1
            broken = broken or result["outcome"] == "infra_error"
            with terminal.above(progress):
                if as_json:
                    terminal.write_json_line(result)
                else:
                    terminal.write_line(_line(result, len(str(total - 1))))
            progress.update(task, completed=words.total(), description=_counted(words))
    found = api.get(batch_path(found["batch_id"]), found["batch_id"])
    if found["error"]:
        hint = f" (boxer logs {found['entrypoint']})" if found["entrypoint"] else ""
        terminal.complain(f"{found['batch_id']}: {found['error']}{hint}")
    terminal.say(f"{found['batch_id']}: {total} ended: {_counted(words)}")
    if broken:
        return FAILED
    return 0 if words["passed"] == total else SOME_FAILED


def _counted(words: Counter[str]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(words.items()))


def _line(result: dict[str, Any], digits: int) -> str:
    code = "-" if result["exit_code"] is None else str(result["exit_code"])
    cells = (
        str(result["number"]).rjust(digits),
        (result["verdict"] or result["status"]).ljust(13),
        (result["outcome"] or "-").ljust(13),
        code.rjust(3),
        (shown_secs(result["wall_ms"]) or "-").rjust(7),
        result["remark"] or result["error"],
    )
    return "  ".join(cells).rstrip()


def _cancel(api: Api, batch_id: str) -> None:
    terminal.say(f"cancelling {batch_id} ({CANCEL_HINT})")
    try:
        api.post(batch_path(batch_id, "cancel/"), batch_id)
    except ClientError as error:
        if not api.get(batch_path(batch_id), batch_id)["ended"]:
            raise ClientError(f"not cancelled: {error.message}") from None
        terminal.say(f"{batch_id}: had ended already")
        return
    terminal.say(f"{batch_id}: cancelled")
