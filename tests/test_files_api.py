"""POST /files and GET /files: what a client sends, what it gets, and what a bad one is told."""

import gc
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from filestore.models import Blob, StoredFile
from tests.fixtures_storage import StorageUnderTest

transactional = pytest.mark.django_db(transaction=True)

BOUNDARY = "----boxer"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture
def client(transactional_db: None, disk: StorageUnderTest, anonymous: User) -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of uploads lie meanwhile; whatever a test does, none stays."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def upload(client: Client, path: str, content: bytes, **more: Any) -> Any:
    return client.post("/files", {"path": path, "file": SimpleUploadedFile("x", content), **more})


def part(name: str, content: bytes, *, filename: str | None = None, more: str = "") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{more}\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def post(client: Client, *parts: bytes, content_type: str = MULTIPART) -> Any:
    return client.generic("POST", "/files", b"".join(parts), content_type=content_type)


def refused(response: Any, status: int, code: str, *words: str) -> None:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    answer = response.json()
    assert answer["code"] == code, answer
    for word in words:
        assert word in answer["error"]
    assert "Traceback" not in answer["error"]


# ── Uploading ────────────────────────────────────────────────────────────────────────────────────


@transactional
@pytest.mark.parametrize("content", [b"", b"hello", b"\r\n--", bytes(range(256)) * 20_000])
def test_an_upload_is_answered_with_its_path_and_can_be_downloaded(
    client: Client, temporary_files: Path, content: bytes
) -> None:
    response = upload(client, "/workspace//./script.py", content)
    assert (response.status_code, response.json()) == (200, {"path": "workspace/script.py"})
    for spelling in ("workspace/script.py", "/workspace/script.py", "./workspace//script.py"):
        back = client.get("/files", {"path": spelling})
        assert back.status_code == 200
        assert back.getvalue() == content
    assert not list(temporary_files.iterdir())


@transactional
def test_an_upload_replaces_what_was_at_its_path(client: Client, disk: StorageUnderTest) -> None:
    upload(client, "a", b"before")
    upload(client, "a", b"after")
    assert client.get("/files?path=a").getvalue() == b"after"
    assert len(disk.objects()) == 1


@transactional
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", ["path", "empty"]),
        ("/", ["path", "names no file"]),
        ("../../etc/cron.d/x", ["path", "'..'"]),
        ("a/../b", ["path", "'..'"]),
        ("a\0b", ["path", "U+0000"]),
        ("a\rb", ["path", "U+000D"]),
        ("a" * 256, ["path", "255"]),
        ("a/" * 2050, ["path", "4096"]),
        ("output/boxer-1/x", ["path", "reserved"]),
        ("/./output", ["path", "reserved"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_path_is_refused_and_nothing_is_stored(
    client: Client, disk: StorageUnderTest, temporary_files: Path, path: str, words: list[str]
) -> None:
    refused(upload(client, path, b"x" * (3 << 20)), 400, "invalid_path", *words)
    assert not disk.objects()
    assert not list(temporary_files.iterdir())


@transactional
def test_a_path_that_is_not_utf8_is_refused(client: Client) -> None:
    file = part("file", b"x", filename="x")
    refused(post(client, part("path", b"a\xff"), file, END), 400, "invalid_path", "UTF-8")
    refused(client.get("/files?path=a%FF"), 400, "invalid_path", "UTF-8")


@transactional
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([part("path", b"a"), END], ["file", "missing"]),
        ([part("file", b"x", filename="x"), END], ["path", "missing"]),
        ([part("path", b"a"), part("file", b"x"), END], ["file", "filename"]),
        ([part("path", b"a"), part("file", b"x", filename=""), END], ["file"]),
        (
            [part("path", b"a"), *[part("file", b"x", filename="x")] * 2, END],
            ["file", "more than once"],
        ),
        (
            [part("path", b"a"), part("file", b"x"), part("file", b"x", filename="x"), END],
            ["file", "more than once"],
        ),
        (
            [*[part("path", b"a")] * 2, part("file", b"x", filename="x"), END],
            ["path", "more than once"],
        ),
        (
            [part("path", b"a", filename="p"), part("file", b"x", filename="x"), END],
            ["path", "text"],
        ),
        ([END], ["file", "missing"]),
        ([], ["file", "missing"]),
    ],
)
def test_a_field_that_is_missing_doubled_or_of_the_wrong_kind_is_named(
    client: Client, temporary_files: Path, parts: list[bytes], words: list[str]
) -> None:
    refused(post(client, *parts), 400, "invalid", *words)
    assert not StoredFile.objects.exists()
    assert not list(temporary_files.iterdir())


WHOLE = part("path", b"a") + part("file", b"content", filename="x")


@transactional
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (WHOLE, MULTIPART),
        (WHOLE[:-5], MULTIPART),
        (WHOLE + END[:-6], MULTIPART),
        (WHOLE + END, "multipart/form-data"),
        (WHOLE + END, "multipart/form-data; boundary="),
        (WHOLE + END, "multipart/form-data; boundary=" + "b" * 210),
        (WHOLE + END, "multipart/form-data; boundary=another"),
        (b"no multipart at all", MULTIPART),
        (
            part("path", b"a")
            + part("file", b"%%%", filename="x", more="Content-Transfer-Encoding: base64\r\n")
            + END,
            MULTIPART,
        ),
        (part("path", b"a") * 1100 + WHOLE + END, MULTIPART),
        (part("file", b"a", filename="x") * 120 + WHOLE + END, MULTIPART),
    ],
)
def test_malformed_multipart_is_refused_whole(
    client: Client, temporary_files: Path, body: bytes, content_type: str
) -> None:
    response = post(client, body, content_type=content_type)
    assert response.status_code == 400, response.content
    assert set(response.json()) >= {"error", "code"}
    assert not StoredFile.objects.exists()
    gc.collect()
    assert not list(temporary_files.iterdir())


@transactional
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "*/*", "nonsense"])
def test_another_content_type_is_refused(client: Client, content_type: str) -> None:
    response = post(client, WHOLE, END, content_type=content_type)
    assert response.status_code in (400, 415), response.content
    assert not StoredFile.objects.exists()


@transactional
def test_the_upload_limit_is_exact(
    client: Client, settings: Any, disk: StorageUnderTest, temporary_files: Path
) -> None:
    settings.BOXER_UPLOAD_LIMIT_BYTES = 3_000_000
    assert upload(client, "a", b"x" * 3_000_000).status_code == 200
    refused(upload(client, "a", b"x" * 3_000_001), 413, "too_large", "file", "3000000 bytes")
    assert client.head("/files?path=a")["Content-Length"] == "3000000"
    settings.BOXER_UPLOAD_LIMIT_BYTES = 10
    refused(upload(client, "b", b"x" * 11), 413, "too_large", "10 bytes")
    assert upload(client, "b", b"x" * 10).status_code == 200
    assert len(disk.objects()) == 2
    gc.collect()
    assert not list(temporary_files.iterdir())


@transactional
def test_a_filename_of_the_client_means_nothing(client: Client, disk: StorageUnderTest) -> None:
    hostile = part("file", b"x", filename="../../../etc/passwd")
    assert post(client, part("path", b"a"), hostile, END).json() == {"path": "a"}
    assert disk.objects() == {Blob.objects.get().name}


@transactional
def test_a_storage_that_fails_is_not_shown_to_the_client(
    client: Client, disk: StorageUnderTest
) -> None:
    disk.break_it()
    response = upload(client, "a", b"x")
    refused(response, 503, "storage_failed")
    assert str(disk.place) not in response.content.decode()
    assert not StoredFile.objects.exists()


# ── Downloading ──────────────────────────────────────────────────────────────────────────────────


@transactional
def test_a_download_is_an_attachment_that_no_browser_runs(client: Client) -> None:
    page = b"<script>alert(1)</script>"
    upload(client, "site/index.html", page)
    response = client.get("/files", {"path": "site/index.html"}, headers={"Accept": "text/html"})
    assert response.getvalue() == page
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"] == 'attachment; filename="index.html"'
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["Content-Length"] == str(len(page))
    assert response["ETag"] == f'"{hashlib.sha256(page).hexdigest()}"'
    assert response["Accept-Ranges"] == "bytes"


@transactional
@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ('a".exe', r'attachment; filename="a\".exe"'),
        ("a\\b", r'attachment; filename="a\\b"'),
        ("a;b=c", 'attachment; filename="a;b=c"'),
        ("ü\u2028.txt", "attachment; filename*=utf-8''%C3%BC%E2%80%A8.txt"),
    ],
)
def test_a_hostile_name_stays_inside_its_quotes(
    client: Client, name: str, disposition: str
) -> None:
    upload(client, f"d/{name}", b"x")
    response = client.get("/files", {"path": f"d/{name}"})
    assert response["Content-Disposition"] == disposition
    response.close()


@transactional
def test_what_is_not_there_is_404_and_a_bad_path_400(client: Client) -> None:
    refused(client.get("/files?path=nothing"), 404, "not_found", "nothing")
    refused(client.get("/files"), 400, "invalid", "path", "missing")
    refused(client.get("/files?path=a&path=b"), 400, "invalid", "path", "more than once")
    refused(client.get("/files?path="), 400, "invalid_path", "empty")
    refused(client.get("/files?path=../a"), 400, "invalid_path", "'..'")
    refused(client.get("/files?path=a%00b"), 400, "invalid_path", "U+0000")


@transactional
def test_somebody_elses_file_is_404(client: Client, bob: User) -> None:
    upload(client, "a", b"x")
    StoredFile.objects.update(owner=bob)
    refused(client.get("/files?path=a"), 404, "not_found")
    upload(client, "a", b"mine")
    assert client.get("/files?path=a").getvalue() == b"mine"
    assert StoredFile.objects.at("a").count() == 2


@transactional
def test_head_answers_the_headers_alone(client: Client) -> None:
    upload(client, "a", b"0123456789")
    response = client.head("/files?path=a")
    assert (response.status_code, response.content) == (200, b"")
    assert response["Content-Length"] == "10"
    assert response["Content-Disposition"] == 'attachment; filename="a"'
    assert client.head("/files?path=b").status_code == 404
    assert client.head("/files?path=a", headers={"Range": "bytes=2-3"})["Content-Length"] == "2"


@transactional
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(client: Client, method: str) -> None:
    refused(client.generic(method, "/files?path=a"), 405, "method_not_allowed")


@transactional
@pytest.mark.parametrize(
    ("asked", "content", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_range_is_answered_with_that_part(
    client: Client, asked: str, content: bytes, content_range: str
) -> None:
    upload(client, "a", b"0123456789")
    response = client.get("/files?path=a", headers={"Range": asked})
    assert response.status_code == 206
    assert response.getvalue() == content
    assert response["Content-Range"] == content_range
    assert response["Content-Length"] == str(len(content))


@transactional
@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_a_range_outside_of_the_file_is_416(client: Client, asked: str) -> None:
    upload(client, "a", b"0123456789")
    response = client.get("/files?path=a", headers={"Range": asked})
    refused(response, 416, "range_not_satisfiable", "10 bytes")
    assert response["Content-Range"] == "bytes */10"


@transactional
@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=4-2", "lines=1-2", "bytes=-", "x", ""])
def test_a_range_that_is_not_understood_is_answered_with_the_whole(
    client: Client, asked: str
) -> None:
    upload(client, "a", b"0123456789")
    response = client.get("/files?path=a", headers={"Range": asked})
    assert (response.status_code, response.getvalue()) == (200, b"0123456789")
    assert "Content-Range" not in response.headers


@transactional
def test_a_client_that_has_the_contents_gets_304(client: Client) -> None:
    upload(client, "a", b"one")
    etag = client.head("/files?path=a")["ETag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        response = client.get("/files?path=a", headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response["ETag"] == etag
    upload(client, "a", b"two")
    changed = client.get("/files?path=a", headers={"If-None-Match": etag})
    assert (changed.status_code, changed.getvalue()) == (200, b"two")


@transactional
def test_a_range_of_contents_that_changed_meanwhile_is_answered_with_the_whole(
    client: Client,
) -> None:
    upload(client, "a", b"before")
    etag = client.head("/files?path=a")["ETag"]
    same = client.get("/files?path=a", headers={"Range": "bytes=1-2", "If-Range": etag})
    assert (same.status_code, same.getvalue()) == (206, b"ef")
    upload(client, "a", b"after!")
    other = client.get("/files?path=a", headers={"Range": "bytes=1-2", "If-Range": etag})
    assert (other.status_code, other.getvalue()) == (200, b"after!")


@transactional
def test_a_file_that_is_replaced_while_it_is_downloaded_arrives_whole(client: Client) -> None:
    before = os.urandom(1 << 20)
    upload(client, "a", before)
    response = client.get("/files?path=a")
    pieces = iter(response)
    first = next(pieces)
    upload(client, "a", b"after")
    assert first + b"".join(pieces) == before
    assert client.get("/files?path=a").getvalue() == b"after"


@transactional
def test_contents_that_vanished_from_the_storage_are_not_blamed_on_the_client(
    client: Client, disk: StorageUnderTest
) -> None:
    upload(client, "a", b"x")
    (Path(disk.place) / Blob.objects.get().name).unlink()
    refused(client.get("/files?path=a"), 503, "contents_gone")
