"""boxer images and boxer pull."""

from typing import Annotated, Any

import typer

from cli import config, terminal
from cli.api import Api
from cli.commands.looking import Json
from cli.errors import ClientError
from cli.interrupts import Interrupted, pause

IMAGES = "/api/v1/images/"
LOOK_SECS = 0.5


def images(as_json: Json = False) -> None:
    """List the images of every host."""
    with Api(config.place()) as api:
        found: list[dict[str, Any]] = api.get(IMAGES, "images")["images"]
    if as_json:
        terminal.write_json(found)
        return
    rows = (
        [
            ", ".join(image["references"]) or "-",
            image["digest"][:19],
            f"{(image['size'] or 0) / 1e6:.1f} MB",
            image["state"],
            image["host"],
        ]
        for image in found
    )
    terminal.write_table(["IMAGE", "DIGEST", "SIZE", "STATE", "HOST"], rows)


def pull(image: Annotated[str, typer.Argument(metavar="IMAGE")]) -> None:
    """Have an image brought in ahead of its first run; Ctrl-C calls that off."""
    with Api(config.place()) as api:
        found = api.post(f"{IMAGES}prefetch/", image, {"image": image})
        path = f"{IMAGES}prefetch/{found['id']}/"
        try:
            found = _until_ended(api, image, path, found)
        except Interrupted:
            api.ask("DELETE", path, image, dict)
            raise
    if found["state"] != "done":
        raise ClientError(f"{image}: {found['state']}: {found['error']}".rstrip(": "))
    terminal.write_line(found["digest"])


def _until_ended(api: Api, image: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
    with terminal.transfers() as progress:
        task = progress.add_task(terminal.plain(image), total=None)
        while found["state"] not in {"done", "failed", "cancelled"}:
            pause(LOOK_SECS)
            found = api.get(path, image)
            done, total = found["bytes_done"] or 0, found["bytes_total"] or None
            progress.update(task, completed=done, total=total)
    return found
