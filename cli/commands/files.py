"""boxer files: the file store, and what runs left."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cli import config, places, terminal
from cli.api import Api
from cli.commands.looking import Json
from cli.errors import ClientError
from cli.transfers import LeftFile, download, left_files, upload, upload_of

app = typer.Typer(help="Files: put them in, see and get what runs left.", rich_markup_mode=None)


@app.command()
def ls(exec_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """List what a run left in /output."""
    with Api(config.place()) as api:
        found = left_files(api, exec_id)
    if as_json:
        shown = [{"path": one.path, "size": one.size, "sha256": one.sha256} for one in found]
        terminal.write_json(shown)
    else:
        terminal.write_table(["SIZE", "PATH"], ([one.size, one.path] for one in found))


@app.command()
def put(
    files: Annotated[list[str], typer.Argument(metavar="FILE[:PATH]…")],
) -> None:
    """Store files, and print their paths there; a file that was at a path is replaced."""
    with Api(config.place()) as api:
        for path in upload(api, [upload_of(given) for given in files]):
            terminal.write_line(path)


@app.command()
def get(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH…")] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", help="Below this run's /output; all without PATH."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option("-o", metavar="DIR", help="Where to; without it, to stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files.")] = False,
) -> None:
    """Get stored files, or what a run left."""
    if not paths and run is None:
        raise ClientError("files get: names no PATH, and no --run")
    with Api(config.place()) as api:
        if run is not None:
            _of_run(api, run, paths or [], home, force)
            return
        for path in paths or []:
            with api.stream("/files", path, params={"path": path}) as response:
                chunks = response.iter_bytes(1 << 16)
                if home is None:
                    for chunk in chunks:
                        terminal.write(chunk)
                else:
                    etag = re.fullmatch('"([0-9a-f]{64})"', response.headers.get("ETag", ""))
                    digest = etag[1] if etag else ""
                    places.receive(home, path, chunks, digest=digest, force=force)


def _of_run(api: Api, exec_id: str, paths: list[str], home: Path | None, force: bool) -> None:
    found = left_files(api, exec_id)
    by_path = {one.path: one for one in found}
    for path in paths:
        if path not in by_path:
            raise ClientError(f"{exec_id} left no file {path}")
    chosen: list[LeftFile] = [by_path[path] for path in paths] if paths else found
    if home is not None:
        download(api, exec_id, chosen, home, force=force)
    elif not paths:
        raise ClientError("files get: wants -o DIR for all files of a run")
    else:
        for one in chosen:
            with api.stream(one.route(exec_id), one.path) as response:
                for chunk in response.iter_bytes(1 << 16):
                    terminal.write(chunk)
