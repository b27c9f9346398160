"""boxer login and boxer quota."""

import getpass
import sys
from typing import Annotated, Any

import typer

from cli import config, terminal
from cli.api import EXECUTIONS, Api
from cli.commands.looking import Json
from cli.errors import ClientError


def login(
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Where Boxer is; asked for else.")
    ] = None,
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Read the token from standard input.")
    ] = False,
) -> None:
    """Ask for a URL and a token, try them, and keep them for later commands."""
    known = config.place()
    if url is None:
        url = known.url if token_stdin else typer.prompt("URL", default=known.url, err=True)
    found = config.parse(url, "URL")
    if not found.token:
        found = config.Place(found.url, config.checked_token(_token(token_stdin), "token"))
    if found.is_readable_on_the_way:
        terminal.say(f"{found.url}: without https, others on the way can read the token")
    with Api(found) as api:
        api.get(EXECUTIONS, found.url, limit=1)
    file = config.config_file()
    config.store(found, file)
    terminal.say(f"{found.url} accepts {'the token' if found.token else 'anyone'}; kept in {file}")


def _token(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline()
    if not sys.stdin.isatty():
        raise ClientError("login: no terminal to ask for the token; --token-stdin reads it")
    return getpass.getpass("Token (none: just Enter): ")


def quota(as_json: Json = False) -> None:
    """Show your quotas, what is used of them, and when it frees."""
    with Api(config.place()) as api:
        found: dict[str, Any] = api.get("/api/v1/quota/", "quota")
    if as_json:
        terminal.write_json(found)
        return
    counts = {name: count for name, count in found.items() if _is_count(count)}
    rows = (
        [name, _shown(count["used"]), _shown(count["limit"]), count.get("frees_at") or ""]
        for name, count in counts.items()
    )
    terminal.write_table(["QUOTA", "USED", "LIMIT", "FREES AT"], rows)
    ceilings = (found.get("ceilings") or {}).items()
    others = [(name, value) for name, value in found.items() if name not in counts]
    rest = [*others, *ceilings]
    shown = [(name, value) for name, value in rest if name != "ceilings" and value is not None]
    if shown:
        terminal.write_line("")
        terminal.write_table(["MOST", "VALUE"], ([name, _shown(value)] for name, value in shown))


def _is_count(value: object) -> bool:
    return isinstance(value, dict) and {"used", "limit"} <= set(value)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return "-" if value is None else str(value)
