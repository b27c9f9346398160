"""The documents say what is so: settings, routes, commands, errors, examples, tests."""

import argparse
import ast
import errno
import inspect
import json
import os
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import boxer
import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework import exceptions

import cli.config
from boxer_site.errors import STATUS
from executions import errors
from executions.api.answers import BLAMES_THE_REQUEST
from executions.api.schema import NotReadySerializer, StoppedSerializer
from executions.api.serializers import (
    HealthSerializer,
    ReadinessSerializer,
    RunRequestSerializer,
    RunResponseSerializer,
)
from filestore import errors as file_errors
from filestore.api.error_shape import ErrorSerializer
from filestore.api.schema import StoredPathSerializer
from tests import documents

README = documents.read("README.md")
SECURITY = documents.read("SECURITY.md")
CHANGELOG = documents.read("CHANGELOG.md")
OURS = frozenset({"boxer_site", "executions", "filestore"})

COMMANDS_ALONE = frozenset({"image_in_use", "image_not_built"})
"""Codes of errors that no route can meet."""

SHAPES = (
    RunResponseSerializer,
    StoredPathSerializer,
    HealthSerializer,
    ReadinessSerializer,
)


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────


def settings_table() -> dict[str, str]:
    table = [row for row in documents.rows(documents.section(README, "Settings")) if row[1]]
    found = {row[0].strip("`"): row[1] for row in table}
    assert len(found) == len(table), "a variable is there twice"
    return found


def test_every_setting_is_in_the_readme_and_nothing_else() -> None:
    assert set(settings_table()) == {setting.name for setting in documents.settings()}


@pytest.mark.parametrize("setting", documents.settings(), ids=lambda setting: setting.name)
def test_a_settings_default_is_the_one_that_the_readme_tells(setting: documents.Setting) -> None:
    told = settings_table()[setting.name]
    if setting.default in (None, ""):
        assert told, "words, or a dash"
        assert documents.quoted(told) != [told.strip("`")], "it has no fixed default"
    else:
        assert told == f"`{documents.as_given(setting.default)}`"


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_no_document_names_a_variable_that_nobody_reads(name: str) -> None:
    named = set(re.findall(r"\bBOXER_[A-Z0-9_]+\b", documents.read(name)))
    # Each can be read from a file too (boxer_site/env.py).
    named = {found.removesuffix("_FILE") for found in named}
    assert named <= {*(setting.name for setting in documents.settings()), *cli.config.VARIABLES}


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────


def make_targets() -> set[str]:
    found = re.search(r"^\.PHONY: (.+)$", documents.read("Makefile"), re.MULTILINE)
    assert found
    return set(found[1].split())


def test_make_targets_are_the_ones_that_the_documents_name() -> None:
    code = " ".join([*documents.quoted(README), *re.findall(r"^    .*$", README, re.MULTILINE)])
    named = set(re.findall(r"\bmake ([a-z]+)\b", code))
    assert named == make_targets()


def test_make_help_names_every_target() -> None:
    shown = set(re.findall(r"@echo 'make ([a-z]+)", documents.read("Makefile")))
    assert shown == make_targets() - {"help"}


def test_every_command_of_ours_is_in_the_readme_and_no_other_is_named() -> None:
    labels = {config.name: config.label for config in apps.get_app_configs()}
    known = get_commands()
    ours = {name for name, app in known.items() if labels.get(str(app)) in OURS}
    named = set(re.findall(r"manage\.py ([a-z]+)", README))
    assert ours <= named <= set(known)


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Its options, and its subcommands with theirs."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield name
                yield from options_of(below)


def command_lines() -> list[tuple[str, list[str]]]:
    """Commands that the README quotes, with the options and the lower-case words after them."""
    lines = [text for text in documents.quoted(README) if text.startswith("manage.py ")]
    words = [line.split()[1:] for line in lines]
    return [(line[0], [w for w in line[1:] if not w.isupper() and ":" not in w]) for line in words]


@pytest.mark.parametrize(("name", "words"), command_lines(), ids=str)
def test_the_commands_options_exist(name: str, words: list[str]) -> None:
    app = get_commands()[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    parser = command.create_parser("manage.py", name)
    options = set(options_of(parser))
    asked = [word for word in words if word.startswith("--") or name == "images"]
    assert {word.rstrip("…") for word in asked if word.rstrip("…").islower()} <= options


# ── Routes ───────────────────────────────────────────────────────────────────────────────────────


def routes(patterns: list[Any], prefix: str = "/") -> Iterator[tuple[str, str]]:
    """(method, path) of each; a view that tells no actions answers GET."""
    for pattern in patterns:
        path = f"{prefix}{pattern.pattern}"
        if path in {"/admin/login/", "/admin/logout/"}:
            continue  # our own in place of the admin's
        if isinstance(pattern, URLResolver) and pattern.app_name == "admin":
            yield "GET", path  # its pages are Django's, one for each model and action
        elif isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, path)
        else:
            assert isinstance(pattern, URLPattern)
            page: Any = getattr(pattern.callback, "view_class", None)
            answered = [
                name
                for name in ("get", "post")
                if hasattr(page, name) and name in page.http_method_names
            ]
            actions = getattr(pattern.callback, "actions", None) or answered or ("get",)
            yield from ((method.upper(), path) for method in actions if method != "head")


def test_every_route_is_in_the_readme_and_nothing_else() -> None:
    table = documents.rows(documents.section(README, "The API"))
    told = {tuple(name.split()) for row in table for name in documents.quoted(row[0])}
    assert {entry for entry in told if len(entry) == 2} == set(routes(get_resolver().url_patterns))


def test_every_key_of_a_request_and_an_answer_is_in_the_readme() -> None:
    table = documents.rows(documents.section(README, "The API"))
    named = [name for row in table for name in documents.quoted(row[0]) if " " not in name]
    keys = [*RunRequestSerializer().fields, *RunResponseSerializer().fields]
    assert sorted(named) == sorted(keys)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────


def errors_table() -> dict[str, int]:
    table = documents.rows(documents.section(README, "Errors"))
    found = {row[1].strip("`"): int(row[0]) for row in table}
    assert len(found) == len(table), "a code is there twice"
    return found


def framework_codes() -> dict[str, int]:
    """What Django REST framework answers by itself."""
    kinds = [kind for _, kind in inspect.getmembers(exceptions, inspect.isclass)]
    answered = [kind for kind in kinds if issubclass(kind, exceptions.APIException)]
    return {str(kind.default_code): kind.status_code for kind in answered}


def test_every_error_code_is_in_the_readme() -> None:
    missing = documents.error_codes() - COMMANDS_ALONE - set(errors_table())
    assert missing == set()


def test_no_error_code_is_in_the_readme_that_nothing_answers() -> None:
    unknown = set(errors_table()) - documents.error_codes() - set(framework_codes())
    assert unknown == set()


def domain_errors() -> list[type[Any]]:
    members = [*inspect.getmembers(errors), *inspect.getmembers(file_errors)]
    kinds = (errors.BoxerError, file_errors.FilestoreError)
    return [kind for _, kind in members if inspect.isclass(kind) and issubclass(kind, kinds)]


def test_statuses_are_the_ones_that_the_readme_tells() -> None:
    told = errors_table()
    for kind in domain_errors():
        status = next((status for known, status in STATUS if issubclass(kind, known)), 500)
        assert told.get(kind.code, status) == status, kind
    for code in BLAMES_THE_REQUEST:
        assert told[code] == 400, code
    for code in set(told) & set(framework_codes()) - documents.error_codes():
        assert told[code] == framework_codes()[code], code


def test_messages_that_the_readme_explains_are_said_by_something() -> None:
    table = documents.rows(documents.section(README, "When something is missing"))
    said = f"{documents.texts()}\n{os.strerror(errno.EADDRINUSE)}"
    named = [text for row in table for text in documents.quoted(row[0])]
    assert len(named) > 10
    assert [text for text in named if text not in said] == []


# ── Examples ─────────────────────────────────────────────────────────────────────────────────────


def json_blocks() -> list[dict[str, Any]]:
    return [json.loads(block) for block in documents.blocks(README, "json")]


def test_answers_that_the_readme_shows_have_the_apis_shape() -> None:
    shown = json_blocks()
    assert {"exit_code", "code", "path"} <= {key for answer in shown for key in answer}
    for answer in shown:
        if "code" in answer:
            assert errors_table()[answer["code"]] >= 400
            shapes = (ErrorSerializer, StoppedSerializer, NotReadySerializer)
            allowed = {key for shape in shapes for key in shape().get_fields()}
            assert {"error", "code"} <= set(answer) <= allowed
        else:
            assert any(set(answer) == set(shape().fields) for shape in SHAPES), answer


def test_requests_that_the_readme_shows_are_valid() -> None:
    bodies = [
        body
        for block in documents.blocks(README, "sh")
        for body in re.findall(r"/run [^\n]*-d '(.*?)'$", block, re.MULTILINE | re.DOTALL)
    ]
    assert len(bodies) >= 2
    for body in bodies:
        assert RunRequestSerializer(data=json.loads(body)).run_request("boxer-1").cmd


def test_the_clients_example_uses_what_the_client_has() -> None:
    [program] = documents.blocks(README, "python")
    tree = ast.parse(program)
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "boxer"
        for alias in node.names
    ]
    assert set(imported) <= set(boxer.__all__)
    known = dict(inspect.getmembers(boxer) + inspect.getmembers(boxer.BoxerClient))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func).rpartition(".")[2], call.keywords) for call in calls]
    assert {"BoxerClient", "upload_file", "run"} <= {name for name, _ in named}
    for name, keywords in named:
        if name != "print":
            assert {keyword.arg for keyword in keywords} <= set(
                inspect.signature(known[name]).parameters
            )


# ── Promises, versions, links ────────────────────────────────────────────────────────────────────


def test_every_promise_names_tests_that_exist() -> None:
    promises = documents.rows(documents.section(SECURITY, "What is promised"))
    assert len(promises) > 10
    for promise, tests in promises:
        files = documents.quoted(tests)
        assert files, promise
        assert all(file.startswith("tests/test_") for file in files), promise
    named = re.findall(r"tests/\w+\.py(?:::\w+)?", SECURITY + README)
    assert [test for test in named if not documents.has_test(test)] == []


def test_the_search_for_tests_finds_none_that_are_not_there() -> None:
    assert documents.has_test("tests/test_documents.py::test_links_lead_somewhere")
    assert not documents.has_test("tests/test_documents.py::test_nothing_of_the_kind")
    assert not documents.has_test("tests/test_nothing.py")


def test_the_changelog_has_this_version_first() -> None:
    project = tomllib.loads(documents.read("pyproject.toml"))["project"]
    versions = re.findall(r"^## \[([^\]]+)\]", CHANGELOG, re.MULTILINE)
    assert versions[0] == project["version"]


def test_marks_that_the_readme_names_exist() -> None:
    markers = tomllib.loads(documents.read("pyproject.toml"))["tool"]["pytest"]["ini_options"][
        "markers"
    ]
    named = set(re.findall(r"not (\w+)", documents.section(README, "Develop").split("'")[1]))
    assert named == {marker.partition(":")[0] for marker in markers}


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_what_stands_between_backticks_ends_on_its_line(name: str) -> None:
    lines = documents.read(name).splitlines()
    assert [line for line in lines if line.count("`") % 2 and not line.startswith("```")] == []


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = documents.read(name)
    for target in re.findall(r"\]\(([^)]+)\)", document):
        if target.startswith("#"):
            assert target[1:] in documents.anchors(document)
        elif not target.startswith("https://"):
            assert (documents.ROOT / target).is_file()
