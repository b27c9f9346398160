"""Imports point one way: boxer_site ► executions ► filestore, in an app from the edge inwards."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("boxer_site", "executions", "filestore")
"""Each may import itself and what stands after it."""

LAYERS = {
    # Modules of an app by their first name; those of one layer may import each other.
    "api": 5,
    "views": 5,
    "urls": 5,
    "admin": 5,
    "tasks": 5,
    "management": 5,
    "administration": 5,
    "checks": 5,
    "history": 5,
    "cluster": 4,
    "runner": 4,
    "keeper": 4,
    "companion": 4,
    "services": 3,
    "submission": 3,
    "lifecycle": 3,
    "healing": 3,
    "cancellation": 3,
    "removal": 3,
    "retention": 3,
    "repetition": 3,
    "events": 3,
    "inputs": 3,
    "messages": 3,
    "models": 2,
    "audit": 2,
    "accounts": 3,
    "image_policy": 3,
    "quotas": 3,
    "idempotency": 3,
    "batches": 3,
    "admission": 3,
    "actor": 1,
    "errors": 1,
}
SANDBOX = "executions.sandbox"
SANDBOX_CALLERS = (
    *("runner", "companion", "host", "keeper", "image_store", "checks", "management", "cluster"),
    *(f"image_policy.{name}" for name in ("enforcement", "inventory", "prefetching")),
    *(f"doctor.{name}" for name in ("ward", "limits", "isolation", "unpacking")),
)
PURE = (f"{SANDBOX}.spec", f"{SANDBOX}.references")
"""Values that anyone of executions and boxer_site may use."""


class Import(NamedTuple):
    importer: str
    line: int
    imported: str

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    """Also those inside functions and under `if TYPE_CHECKING`."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            for alias in node.names:
                yield Import(name, node.lineno, f"{base}.{alias.name}")


def all_imports() -> list[Import]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [found for path in paths for found in imports_of(path)]


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def app_layer(module: str) -> int | None:
    """None for a module that has no layer of its own: it may stand anywhere in its app."""
    parts = module.split(".")
    if len(parts) < 2 or parts[0] not in PACKAGES[1:]:
        return None
    if len(parts) > 2 and (ROOT / parts[0] / parts[1] / "apps.py").is_file():
        # An app beneath the app: its modules have the same names.
        return LAYERS.get(parts[2], LAYERS.get(parts[1]))
    return LAYERS.get(parts[1])


IMPORTS = all_imports()


def offenders(wrong: list[Import]) -> str:
    return "\n".join(str(one) for one in wrong)


def test_the_imports_of_the_whole_repository_were_read() -> None:
    assert len(IMPORTS) > 500
    assert {one.importer.split(".")[0] for one in IMPORTS} == set(PACKAGES)


def test_no_package_imports_one_above_it() -> None:
    wrong = [
        one
        for rank, package in enumerate(PACKAGES)
        for above in PACKAGES[:rank]
        for one in IMPORTS
        if is_in(one.importer, package) and is_in(one.imported, above)
    ]
    assert not wrong, offenders(wrong)


def test_inside_an_app_no_layer_imports_one_above_it() -> None:
    wrong = []
    for one in IMPORTS:
        importer, imported = app_layer(one.importer), app_layer(one.imported)
        same_app = one.importer.split(".")[0] == one.imported.split(".")[0]
        if same_app and importer and imported and importer < imported:
            wrong.append(one)
    assert not wrong, offenders(wrong)


def test_only_who_runs_something_imports_the_sandbox_library() -> None:
    allowed = tuple(f"executions.{name}" for name in SANDBOX_CALLERS)
    wrong = [
        one
        for one in IMPORTS
        if is_in(one.imported, SANDBOX)
        and not is_in(one.importer, SANDBOX)
        and not any(is_in(one.importer, caller) for caller in allowed)
        and not any(is_in(one.imported, pure) for pure in PURE)
        and not is_in(one.importer, "boxer_site.management")
    ]
    assert not wrong, offenders(wrong)


def test_the_sandbox_library_imports_the_standard_library_and_itself() -> None:
    wrong = [
        one
        for one in IMPORTS
        if is_in(one.importer, SANDBOX)
        and not is_in(one.imported, SANDBOX)
        and one.imported != "executions"
        and one.imported.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong, offenders(wrong)


def test_pure_values_pull_nothing_else_of_the_sandbox_library_in() -> None:
    wrong = [one for one in IMPORTS if one.importer in PURE and is_in(one.imported, SANDBOX)]
    assert not [one for one in wrong if not any(is_in(one.imported, pure) for pure in PURE)]


def test_nothing_imports_the_tests() -> None:
    wrong = [one for one in IMPORTS if is_in(one.imported, "tests")]
    assert not wrong, offenders(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as c", ["a.b"]),
        ("from a import b, c", ["a.b", "a.c"]),
        ("def f():\n    from a.b import c", ["a.b.c"]),
        ("from . import x", ["executions.api.x"]),
        ("from .views import x", ["executions.api.views.x"]),
        ("from ..errors import x", ["executions.errors.x"]),
    ],
)
def test_imports_of_every_form_are_seen(
    source: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "executions" / "api" / "urls.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert [one.imported for one in imports_of(path)] == expected
