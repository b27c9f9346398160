"""The client's parts by themselves: events, configuration, places, endings; and what it may use."""

import ast
import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from cli import config, places
from cli.app import app
from cli.endings import ending
from cli.errors import ClientError
from cli.events import parse
from cli.transfers import upload_of
from tests import documents

ROOT = documents.ROOT
PROJECT = tomllib.loads(documents.read("pyproject.toml"))


# ── What it is made of ───────────────────────────────────────────────────────────────────────────


def test_it_imports_the_standard_library_its_extra_and_itself() -> None:
    extra = PROJECT["project"]["optional-dependencies"]["cli"]
    allowed = {"cli", *(pin.partition("==")[0] for pin in extra), *sys.stdlib_module_names}
    files = sorted((ROOT / "cli").rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= allowed, file


def test_its_pins_are_those_of_the_tests() -> None:
    pinned = (documents.read("requirements.txt") + documents.read("requirements-dev.txt")).split()
    extra = PROJECT["project"]["optional-dependencies"]["cli"]
    assert set(extra) <= set(pinned)


def test_the_distribution_has_all_of_it_and_a_command() -> None:
    packages = {
        ".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "cli").rglob("*.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages
    module, _, name = PROJECT["project"]["scripts"]["boxer"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def commands() -> set[str]:
    found = {f"boxer {_name(command)}" for command in app.registered_commands}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            found.add(f"boxer {group.name} {_name(command)}")
    return found


def _name(command: Any) -> str:
    return str(command.name or command.callback.__name__)


def test_every_command_is_in_the_readme_and_nothing_else() -> None:
    section = documents.section(documents.read("README.md"), "The command line client")
    first, second = section.split("| exit code |")
    told = {" ".join(w for w in row[0].strip("`").split() if w.islower()) for row in
            documents.rows(first)}  # fmt: skip
    assert told == commands()
    codes = {row[0].strip("`") for row in documents.rows(f"| exit code |{second}")}
    assert {"125", "124", "123", "122", "130"} <= codes


def test_every_option_that_the_readme_names_is_there() -> None:
    section = documents.section(documents.read("README.md"), "The command line client")
    command = typer.main.get_command(app)
    known = set(_options(command))
    code = "\n".join([*documents.quoted(section), *documents.blocks(section, "sh")])
    lines = [line.partition(" -- ")[0] for line in code.splitlines() if "python -m" not in line]
    words = {word for line in lines for word in line.split()}
    named = {word for word in words if word.startswith("-") and len(word) > 1}
    assert {"-f", "-o", "--stdin"} <= named
    assert named <= known


def _options(command: Any) -> list[str]:
    found = [name for param in command.params for name in param.opts]
    for below in getattr(command, "commands", {}).values():
        found += _options(below)
    return found


# ── Events ───────────────────────────────────────────────────────────────────────────────────────


def test_events_are_read_however_they_are_cut() -> None:
    sent = b': hello\n\nid: 3\r\nevent: a\r\ndata: {"x":\r\ndata: 1}\r\n\r\nevent: b\ndata: {}\n\n'
    for size in (1, 2, 7, len(sent)):
        chunks = [sent[at : at + size] for at in range(0, len(sent), size)]
        found = [(one.name, one.data, one.id) for one in parse(chunks)]
        assert found == [("a", {"x": 1}, "3"), ("b", {}, "")]


def test_an_event_without_its_end_is_none() -> None:
    assert list(parse([b"event: a\ndata: {}\n"])) == []


def test_an_event_that_isnt_an_object_is_an_error() -> None:
    with pytest.raises(ClientError, match="isn't a JSON object"):
        list(parse([b"data: 1\n\n"]))


# ── Configuration ────────────────────────────────────────────────────────────────────────────────


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert config.place(env) == config.Place(config.DEFAULT_URL, "")
    ours = config.Place("https://boxer.example/base", "of-file")
    config.store(ours, config.config_file(env))
    assert config.place(env) == ours
    assert config.place({**env, "BOXER_TOKEN": "mine"}).token == "mine"
    assert config.place({**env, "BOXER_URL": "https://boxer.example/base/"}) == ours
    other = config.place({**env, "BOXER_URL": "https://other.example"})
    assert other == config.Place("https://other.example", "")
    inside = config.place({**env, "BOXER_URL": "https://token:in%21side@other.example"})
    assert inside == config.Place("https://other.example", "in!side")


@pytest.mark.parametrize(
    "url", ["boxer.example", "ftp://x", "http://", "http://x:port", "http://x?q"]
)
def test_a_url_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ClientError, match="BOXER_URL: must be a URL like"):
        config.place({"BOXER_URL": url, "HOME": "/nonexistent"})


@pytest.mark.parametrize("text", ["url = ", "url = 1", 'other = "x"', 'url = "nothing"'])
def test_a_file_that_is_wrong_is_named(text: str, tmp_path: Path) -> None:
    env = {"XDG_CONFIG_HOME": str(tmp_path)}
    config.config_file(env).parent.mkdir()
    config.config_file(env).write_text(text)
    with pytest.raises(ClientError, match=r"boxer/config\.toml"):
        config.place(env)


def test_a_token_with_a_line_break_is_refused_unseen() -> None:
    with pytest.raises(ClientError) as caught:
        config.checked_token("s3cret\r\nX-Header: 1", "BOXER_TOKEN")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "readable"),
    [
        ("http://boxer.example", True),
        ("https://boxer.example", False),
        ("http://127.0.0.2:1", False),
        ("http://[::1]:1", False),
        ("http://localhost", False),
    ],
)
def test_who_can_read_a_token_on_the_way(url: str, readable: bool) -> None:
    assert config.Place(url, "token").is_readable_on_the_way is readable


# ── Places ───────────────────────────────────────────────────────────────────────────────────────


def receive(directory: Path, path: str, *, force: bool = False) -> None:
    places.receive(directory, path, [b"new"], digest="", force=force)


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"old")
    home = tmp_path / "home"
    home.mkdir()
    (home / "sub").symlink_to(outside)
    (home / "link").symlink_to(outside / "file")
    (home / "dangling").symlink_to(outside / "made")
    for force in (False, True):
        with pytest.raises(ClientError, match="a link or a file is in the way"):
            receive(home, "sub/file", force=force)
    for name in ("link", "dangling"):
        with pytest.raises(ClientError, match="is there already"):
            receive(home, name)
        receive(home, name, force=True)
        assert not (home / name).is_symlink()
        assert (home / name).read_bytes() == b"new"
    assert [one.name for one in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b"old"


def test_a_file_where_a_directory_is_wanted_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "d").mkdir()
    with pytest.raises(ClientError, match="in the way"):
        receive(tmp_path, "a/b", force=True)
    with pytest.raises(ClientError, match="d: "):
        receive(tmp_path, "d", force=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "d"]


def test_where_files_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "a:b").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/c").write_bytes(b"")
    found = {given: upload_of(given).path for given in ("a", "a:b", "./a", "a:/x/y", "sub/c")}
    assert found == {"a": "a", "a:b": "a:b", "./a": "a", "a:/x/y": "x/y", "sub/c": "sub/c"}
    assert upload_of(str(tmp_path / "sub/c")).path == "c"
    assert upload_of("sub/../a").path == "a"
    with pytest.raises(ClientError, match="nothing after the colon"):
        upload_of("sub/c:")


# ── Endings ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("execution", "code", "said"),
    [
        ({"status": "finished", "outcome": "exited", "exit_code": 3}, 3, ""),
        ({"status": "finished", "outcome": "signalled", "exit_code": 137, "signal": 9}, 137, ""),
        ({"status": "finished", "outcome": "out_of_memory", "exit_code": 137}, 137, "memory"),
        ({"status": "finished", "outcome": "timed_out", "exit_code": None}, 124, "stopped"),
        ({"status": "finished", "outcome": "output_limit", "error": "much"}, 123, "much"),
        ({"status": "finished", "outcome": "infra_error", "error": "disk"}, 125, "disk"),
        ({"status": "cancelled", "outcome": "", "error": "expired"}, 122, "expired"),
        ({}, 125, "removed"),
    ],
)
def test_every_ending_has_its_code(execution: dict[str, Any], code: int, said: str) -> None:
    found = ending(execution)
    assert found.code == code
    assert said in found.message
    assert bool(said) == bool(found.message)
