"""What every test run stands on: made before Django reads its settings, gone after the last test.

A pytest plugin (see addopts in pyproject.toml). The home is made here; PostgreSQL starts with the
first test that wants a database (tests/conftest.py).
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.leftovers import leftovers

LOG_BYTES = 6000

_homes: list[Path] = []


def new_home() -> Path:
    """A home of its own, short enough for sockets; removed at the end, whatever happens."""
    home = Path(tempfile.mkdtemp(prefix="boxer-", dir="/tmp"))
    _homes.append(home)
    return home


def homes() -> tuple[Path, ...]:
    """Every home that this run has made."""
    return tuple(_homes)


def clean_environment() -> None:
    """Settings of whoever runs the tests must not reach them; loopback is never proxied."""
    for name in list(os.environ):
        if name.startswith("BOXER_") or name in {"DATABASE_URL", "CONTAINERS_REGISTRIES_CONF"}:
            del os.environ[name]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"


def remove_homes() -> None:
    for home in _homes:
        shutil.rmtree(home, ignore_errors=True)


clean_environment()
HOME = new_home()
os.environ["BOXER_HOME"] = str(HOME)
atexit.register(remove_homes)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Every fixture is torn down by now: whatever is still there makes the run fail."""
    found = leftovers(_homes)
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nleft behind by the tests:\n{lines}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    remove_homes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the services it used have printed."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            log = getattr(value, "log", None)
            if isinstance(log, str):
                report.sections.append((f"log of {name}", log[-LOG_BYTES:]))
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks for leftovers goes last; pytest-randomly has shuffled by now."""
    items.sort(key=lambda item: item.path.name.startswith("test_zz_"))
