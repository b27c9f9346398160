"""A run, watched from here to its end."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

from rich.status import Status

from cli import interrupts, terminal
from cli.api import Api, execution_path
from cli.endings import ending
from cli.errors import ClientError
from cli.events import Event, follow

CANCEL_HINT = "Ctrl-C again leaves it alone"


@dataclass
class Printed:
    """What a run printed, when it is wanted whole instead of at once."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)


class _Waiting:
    """Says what is waited for, until there is output; only where somebody looks."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._stack = ExitStack()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        err = terminal.console(stderr=True)
        if err.is_terminal:
            self._status = self._stack.enter_context(err.status("waiting"))
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def tell(self, status: str) -> None:
        words = {"queued": "waiting for a worker", "pulling": f"pulling {self._image}"}
        if status in words and self._status is not None:
            self._status.update(terminal.plain(words[status]))
        else:
            self.stop()

    def stop(self) -> None:
        self._status = None
        self._stack.close()


def watch(
    api: Api,
    execution: dict[str, Any],
    printed: Printed | None = None,
    *,
    so_far: bool = False,
) -> dict[str, Any]:
    """Its output as it comes (or into `printed`), then the execution as it ended.

    `so_far` stops at what there is by now. Raises ClientError and Interrupted; the run goes on.
    """
    exec_id = execution["exec_id"]
    with _Waiting(execution.get("image", "")) as waiting:
        for event in follow(api, exec_id):
            if so_far and _is_up_to_date(event):
                return execution
            match event.name:
                case "status":
                    waiting.tell(str(event.data.get("status", "")))
                case "stdout" | "stderr":
                    waiting.stop()
                    _output(event, printed)
                case "end":
                    return event.data
    raise ClientError(f"{exec_id}: the events had no end")  # `follow` doesn't let that happen


def _is_up_to_date(event: Event) -> bool:
    """What a run uses is told once a second, after what it has printed until then."""
    return event.name == "usage" or event.data.get("status") in {"queued", "pulling"}


def _output(event: Event, printed: Printed | None) -> None:
    if printed is None:
        terminal.write(event.output, stderr=event.name == "stderr")
    else:
        (printed.stderr if event.name == "stderr" else printed.stdout).extend(event.output)


@dataclass(frozen=True, slots=True)
class Watched:
    """`code` is what the client is to end with."""

    execution: dict[str, Any]
    code: int


def see_through(api: Api, execution: dict[str, Any], printed: Printed | None = None) -> Watched:
    """Watch it; a signal cancels it. Raises ClientError, and Interrupted at a second signal."""
    exec_id = execution["exec_id"]
    try:
        interrupts.check()
        ended = watch(api, execution, printed)
    except interrupts.Interrupted as interruption:
        return Watched(_cancel(api, exec_id), interruption.code)
    except terminal.Unwritable:
        _cancel(api, exec_id)
        raise
    found = ending(ended)
    if found.message:
        terminal.complain(f"{exec_id}: {found.message}")
    return Watched(ended, found.code)


def _cancel(api: Api, exec_id: str) -> dict[str, Any]:
    terminal.say(f"cancelling {exec_id} ({CANCEL_HINT})")
    try:
        api.post(execution_path(exec_id, "cancel/"), exec_id)
    except ClientError as error:
        found: dict[str, Any] = api.get(execution_path(exec_id), exec_id)
        if found["status"] not in {"finished", "cancelled"}:
            raise ClientError(f"not cancelled: {error.message}") from None
        terminal.say(f"{exec_id}: had ended already")
        return found
    ended: dict[str, Any] = api.get(execution_path(exec_id), exec_id, wait=10)
    terminal.say(f"{exec_id}: {ended['status']}")
    return ended
