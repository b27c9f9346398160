"""What the documents say, and what the code says of the same things, for tests to compare."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("boxer_site", "executions", "filestore")
DOCUMENTS = ("README.md", "SECURITY.md", "CHANGELOG.md")

CODE_ARGUMENT = {
    # Functions that are given an error's code, and where among their arguments it stands.
    "error_response": 2,
    "_answer": 3,
    "answer": 3,
    "begin": 2,
    "_failed": 1,
}


def read(name: str) -> str:
    return (ROOT / name).read_text()


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────


def section(document: str, title: str) -> str:
    """What stands beneath a heading of the second level."""
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL
    )
    assert found, f"no section {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Cells of every row of the tables in `text`, without their headings."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if set("".join(cells)) <= {"-"} and any(cells):
            found.pop()  # what stands above the rule is the heading
        else:
            found.append(cells)
    return found


def quoted(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(document: str) -> set[str]:
    """What links of the form #… may name."""
    titles = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


def has_test(name: str) -> bool:
    """Whether there is the file of tests, and the function in it that `file::function` names."""
    file, _, function = name.partition("::")
    if not (ROOT / file).is_file():
        return False
    if not function:
        return True
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    defined = {n.name for n in ast.walk(ast.parse(read(file))) if isinstance(n, kinds)}
    return function in defined


# ── Source ───────────────────────────────────────────────────────────────────────────────────────


@cache
def trees() -> tuple[ast.Module, ...]:
    """Every module of ours that runs in a service."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return tuple(ast.parse(file.read_text(), file.name) for file in files)


def nodes() -> Iterator[ast.AST]:
    for tree in trees():
        yield from ast.walk(tree)


@cache
def texts() -> str:
    """All string constants of the code, f-strings' parts included, and the set-up script."""
    constants = (node.value for node in nodes() if isinstance(node, ast.Constant))
    return "\n".join([*(value for value in constants if isinstance(value, str)), scripts()])


def scripts() -> str:
    return "\n".join(file.read_text() for file in sorted((ROOT / "scripts").iterdir()))


@dataclass(frozen=True, slots=True)
class Setting:
    name: str
    default: object
    """None when it depends on the host or on another setting."""


@cache
def settings() -> tuple[Setting, ...]:
    """Every variable that settings.py reads through boxer_site/env.py, each once."""
    found: dict[str, Setting] = {}
    for node in ast.walk(ast.parse(read("boxer_site/settings.py"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "env"
        ):
            name = ast.literal_eval(node.args[0])
            found.setdefault(name, Setting(name, _default(node)))
    return tuple(found.values())


def _default(call: ast.Call) -> object:
    if len(call.args) < 2:
        return ""
    names = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
    if names:
        return None
    # Only constants and shifts of them are left.
    return eval(compile(ast.Expression(call.args[1]), "settings", "eval"), {})  # noqa: S307


def as_given(default: object) -> str:
    """A default as one would set it in the environment."""
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(default) if isinstance(default, tuple) else str(default)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────


def error_codes() -> set[str]:
    """Every code that the source gives to an error which something raises or answers."""
    called = {_name(node.func) for node in nodes() if isinstance(node, ast.Call)}
    found: set[str] = set()
    for node in nodes():
        if isinstance(node, ast.ClassDef) and node.name in called:
            found.update(code for item in node.body for code in _of_class(item))
        elif isinstance(node, ast.Call):
            found.update(_of_call(node))
        elif isinstance(node, ast.Assign):
            found.update(_of_pair(node))
    return found - {""}


def _of_class(item: ast.stmt) -> list[str]:
    """`code = "…"` in a class's body."""
    names = {_name(target) for target in item.targets} if isinstance(item, ast.Assign) else set()
    is_code = bool(names & {"code", "default_code"})
    return _text(item.value) if isinstance(item, ast.Assign) and is_code else []


def _of_pair(node: ast.Assign) -> list[str]:
    """`error, code = …, "…"`."""
    target, value = node.targets[0], node.value
    if not (isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)):
        return []
    pairs = zip(target.elts, value.elts, strict=False)
    return [text for name, part in pairs if _name(name) == "code" for text in _text(part)]


def _of_call(call: ast.Call) -> list[str]:
    named = [item.value for item in call.keywords if item.arg in {"code", "error_code"}]
    place = CODE_ARGUMENT.get(_name(call.func))
    if place is not None and len(call.args) > place:
        named.append(call.args[place])
    return [text for value in named for text in _text(value)]


def _name(node: ast.expr) -> str:
    return str(getattr(node, "id", None) or getattr(node, "attr", ""))


def _text(node: ast.expr) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
