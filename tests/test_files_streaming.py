"""The file store behind a real server: large files pass through without staying in memory."""

import hashlib
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import boxer
import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection

from filestore.models import StoredFile
from tests.fixtures_storage import StorageUnderTest

pytestmark = pytest.mark.django_db(transaction=True)

SIZE = 50 << 20
LITTLE = 16 << 20
"""What a process may grow by: far less than SIZE, more than noise."""


@dataclass(frozen=True)
class Server:
    """A web process of its own, over HTTP on loopback."""

    url: str
    pid: int
    temporary: Path

    def open_files(self, place: Path) -> int:
        """Files below `place` that the process has open, deleted ones too."""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found += str(entry.readlink()).startswith(f"{place}/")
        return found

    def forget_peak(self) -> int:
        """The most memory it has had resident becomes what it has now (proc(5)), in bytes."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.peak()

    def peak(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) << 10


@pytest.fixture
def server(
    transactional_db: None, anonymous: User, storage: StorageUnderTest, tmp_path: Path
) -> Iterator[Server]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    database = "host={HOST} user={USER} dbname={NAME}".format_map(connection.settings_dict)
    environment = os.environ | {
        "BOXER_UPLOAD_LIMIT_BYTES": str(SIZE),
        "BOXER_DB_POOL_SIZE": "4",
        "DATABASE_URL": database,
        "TMPDIR": str(temporary),
        **storage.environment(),
    }
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, fd = listening.getsockname()[1], listening.fileno()
        command = [sys.executable, "-m", "uvicorn", "boxer_site.asgi:application"]
        options = ["--fd", str(fd), "--lifespan", "off", "--ws", "none", "--log-level", "warning"]
        web = subprocess.Popen([*command, *options], env=environment, pass_fds=[fd])
    try:
        yield Server(f"http://127.0.0.1:{port}", web.pid, temporary)
    finally:
        web.terminate()
        web.wait(timeout=20)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that doesn't compress to nothing: each MiB is another."""
    file = tmp_path / "large"
    with file.open("wb") as out:
        for number in range(SIZE >> 20):
            out.write(hashlib.sha256(str(number).encode()).digest() * (1 << 15))
    return file


def upload(server: Server, path: str, file: IO[bytes]) -> httpx.Response:
    return httpx.post(f"{server.url}/files", data={"path": path}, files={"file": file}, timeout=60)


def download(server: Server, path: str, **headers: str) -> tuple[str, int]:
    """sha256 and size of what comes, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with httpx.stream(
        "GET", f"{server.url}/files", params={"path": path}, headers=headers, timeout=60
    ) as response:
        assert response.status_code in (200, 206), response.read()
        for chunk in response.iter_raw(64 << 10):
            digest.update(chunk)
            size += len(chunk)
        assert response.headers["Content-Length"] == str(size)
    return digest.hexdigest(), size


def test_fifty_megabytes_come_and_go_without_staying_in_memory(server: Server, large: Path) -> None:
    with large.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with io.BytesIO(b"warm") as small:
        upload(server, "small", small)
    download(server, "small")  # Now everything is imported.

    before = server.forget_peak()
    with large.open("rb") as file:
        assert upload(server, "large", file).json() == {"path": "large"}
    assert server.peak() - before < LITTLE

    before = server.forget_peak()
    assert download(server, "large") == (sha256, SIZE)
    assert server.peak() - before < LITTLE
    wait_until(lambda: server.open_files(server.temporary) == 0)
    assert not list(server.temporary.iterdir())


def test_a_range_of_a_large_file_is_that_range(server: Server, large: Path) -> None:
    with large.open("rb") as file:
        upload(server, "large", file)
        file.seek(SIZE - 1_000_000)
        end = file.read()
    assert download(server, "large", Range="bytes=-1000000") == (
        hashlib.sha256(end).hexdigest(),
        1_000_000,
    )


def test_a_file_over_the_limit_is_refused_while_it_comes(
    storage: StorageUnderTest, server: Server, large: Path
) -> None:
    with large.open("ab") as file:
        file.write(b"x")
    with large.open("rb") as file:
        response = upload(server, "large", file)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert not storage.objects()
    wait_until(lambda: server.open_files(server.temporary) == 0)


def test_a_body_without_a_declared_length_is_an_upload_like_any_other(server: Server) -> None:
    request = httpx.Request(
        "POST", f"{server.url}/files", data={"path": "a"}, files={"file": b"content" * 9999}
    )
    body = request.read()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    kind = {"Content-Type": request.headers["Content-Type"]}
    response = httpx.post(f"{server.url}/files", content=pieces(), headers=kind)
    assert response.json() == {"path": "a"}, response.text
    assert httpx.get(f"{server.url}/files?path=a").content == b"content" * 9999


def test_a_client_that_goes_away_while_it_downloads_leaves_no_open_file(
    storage: StorageUnderTest, server: Server, large: Path
) -> None:
    place = server.temporary if storage.kind == "s3" else Path(storage.place)
    with large.open("rb") as file:
        assert upload(server, "large", file).status_code == 200
    wait_until(lambda: server.open_files(place) == 0)
    with httpx.stream("GET", f"{server.url}/files?path=large") as response:
        assert response.status_code == 200
        pieces = response.iter_raw(1024)  # Letting go of it would hang up.
        assert len(next(pieces)) == 1024
        assert server.open_files(place) > 0
    wait_until(lambda: server.open_files(place) == 0)
    assert httpx.get(f"{server.url}/files?path=none").status_code == 404


def test_a_client_that_goes_away_while_it_uploads_leaves_nothing(
    storage: StorageUnderTest, server: Server
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /files HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\na\r\n'
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            + b"x"
            * 4_000_000
        )
        wait_until(lambda: server.open_files(server.temporary) > 0)
    wait_until(lambda: server.open_files(server.temporary) == 0)
    assert not StoredFile.objects.exists()
    assert not storage.objects()
    assert not list(server.temporary.iterdir())


def test_the_public_client_works_unchanged(server: Server, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "a.txt").write_bytes(b"a")
    (tree / "inner" / "empty").write_bytes(b"")
    with boxer.BoxerClient(server.url) as client:
        client.upload_file("script.py", b"print('hello')")
        assert client.download_file("script.py") == b"print('hello')"
        client.upload_file("empty", b"")
        assert client.download_file("empty") == b""
        with (tree / "a.txt").open("rb") as file:
            client.upload_file("from/a/file", file)
        assert client.download_file("from/a/file") == b"a"
        uploaded = client.upload_path(tree)
        assert sorted(uploaded) == ["tree/a.txt", "tree/inner/empty"]
        assert [client.download_file(path) for path in sorted(uploaded)] == [b"a", b""]
        with pytest.raises(boxer.BoxerAPIError):
            client.upload_file("../a", b"")
        with pytest.raises(boxer.BoxerAPIError):
            client.download_file("nothing")


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(250):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within 5 s")
