"""Ways to a running stack beside POST /run: its file store, and its database behind the API."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.lying_registry import LyingRegistry
from tests.made_images import Entry, busybox_entries, oci_image
from tests.registry import Registry
from tests.stack import Stack


def upload(stack: Stack, path: str, content: bytes) -> None:
    response = httpx.post(
        f"{stack.base_url}/files", data={"path": path}, files={"file": content}, timeout=30
    )
    assert (response.status_code, response.json()) == (200, {"path": path})


def download(stack: Stack, path: str) -> tuple[int, bytes]:
    response = httpx.get(f"{stack.base_url}/files", params={"path": path}, timeout=30)
    return response.status_code, response.content


def query(stack: Stack, sql: str, *parameters: object) -> list[dict[str, Any]]:
    """Rows of the stack's own PostgreSQL."""
    socket = stack.home / "postgres" / "socket"
    with (
        psycopg.connect(
            host=str(socket), user="postgres", dbname="boxer", connect_timeout=10
        ) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        cursor.execute(sql.encode(), parameters)
        return cursor.fetchall()


def execution(stack: Stack, exec_id: str) -> dict[str, Any]:
    """The row of an execution, with `stdout` and `stderr` as bytes once it has ended."""
    sql = """
        SELECT execution.*, stdout, stderr FROM executions_execution execution
        LEFT JOIN executions_executionoutput output ON output.execution_id = execution.id
        WHERE exec_id = %s
    """
    [row] = query(stack, sql, exec_id)
    return row


def newest_execution(stack: Stack) -> str:
    """Its id; empty when there is none yet."""
    rows = query(stack, "SELECT exec_id FROM executions_execution ORDER BY id DESC LIMIT 1")
    return str(rows[0]["exec_id"]) if rows else ""


def until(condition: Callable[[], object], what: str, timeout: float = 30) -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.05)
    return found


def marked_image(destination: Path, mark: str) -> Path:
    """An OCI layout of a busybox whose /mark tells it from every other."""
    return oci_image(destination, [[*busybox_entries(), Entry("mark", mark.encode())]])


@contextmanager
def second_registry(registry: Registry, home: Path) -> Iterator[LyingRegistry]:
    """One that counts and dawdles, which a stack that runs already reaches as well."""
    before = registry.registries_conf.read_text()
    with LyingRegistry(home) as server:
        registry.registries_conf.write_text(f"{before}\n{server.registries_conf.read_text()}")
        try:
            yield server
        finally:
            registry.registries_conf.write_text(before)
