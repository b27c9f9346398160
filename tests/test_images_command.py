"""`manage.py images`, as an administrator types it."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from executions.audit import keeping
from executions.audit.models import Entry as AuditEntry
from executions.sandbox.images import ImageStore
from tests.made_images import Entry, oci_image
from tests.registry import Registry

pytestmark = pytest.mark.django_db

MANAGE = [sys.executable, str(Path(__file__).parent.parent / "manage.py"), "images"]


@pytest.fixture
def home(tmp_path: Path, settings: object) -> Path:
    settings.BOXER_HOME = tmp_path  # type: ignore[attr-defined]
    return tmp_path


def images(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    call_command("images", *map(str, words))
    return capsys.readouterr().out


def an_image(path: Path, content: bytes = b"x") -> Path:
    return oci_image(path, [[Entry("file", content)]])


def test_images_are_imported_listed_and_removed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images(capsys, "list") == "No images.\n"
    out = images(capsys, "import", an_image(tmp_path / "image"), "boxer.local/tools:1")
    assert "boxer.local/tools:1 sha256:" in out
    assert "boxer.local/tools:1" in images(capsys, "list")
    (listed,) = json.loads(images(capsys, "list", "--json"))
    assert listed["references"] == ["boxer.local/tools:1"]
    assert listed["size"] > 0
    assert listed["digest"] in out
    assert listed["last_used"].endswith("+00:00")
    assert images(capsys, "remove", listed["digest"]) == f"Removed {listed['digest']}\n"
    assert json.loads(images(capsys, "list", "--json")) == []


def test_images_are_pruned_to_a_size(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        layout = an_image(tmp_path / name, name.encode() * 10_000)
        images(capsys, "import", layout, f"boxer.local/{name}")
    out = images(capsys, "prune", "--keep-bytes", 50_000)
    assert "Removed boxer.local/one:latest" in out
    assert len(json.loads(images(capsys, "list", "--json"))) == 1


@pytest.mark.parametrize("bad", ["-1", "1.5", "much", "1GB"])
def test_a_size_that_is_no_number_of_bytes_is_named(home: Path, bad: str) -> None:
    with pytest.raises(CommandError, match=f"{bad}.* is not a number of bytes"):
        call_command("images", "prune", f"--keep-bytes={bad}")


def test_pulling_tells_each_phase_and_goes_on_after_a_failure(
    home: Path, tmp_path: Path, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = registry.push(an_image(tmp_path / "image"), "command:1")
    good, absent = registry.reference("command:1"), registry.reference("absent:1")
    with pytest.raises(CommandError, match="2 of 3 could not be pulled"):
        call_command("images", "pull", "dir:/etc", absent, good)
    out, err = capsys.readouterr()
    assert f"{good}: resolving\n" in out
    assert f"{good} {digest}" in out
    assert "\r" not in out
    assert "'dir:/etc' is not an image reference" in err
    assert f"{absent}: its registry has no such image" in err


def test_an_image_in_use_is_not_removed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(capsys, "import", an_image(tmp_path / "image"), "boxer.local/used")
    store = ImageStore(home / "images", size_limit=1, pull_timeout=1, tag_ttl=1)
    with store.hold("boxer.local/used"), pytest.raises(CommandError, match="a run is using it"):
        call_command("images", "remove", "boxer.local/used")


def test_an_error_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    for words in (["remove", "boxer.local/absent"], ["import", "/absent", "boxer.local/a"]):
        env = {**os.environ, "BOXER_HOME": str(tmp_path)}
        done = subprocess.run([*MANAGE, *words], capture_output=True, text=True, env=env)
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "absent" in done.stderr


def test_on_a_terminal_one_line_is_updated(tmp_path: Path) -> None:
    layout = an_image(tmp_path / "image")
    ours, theirs = pty.openpty()
    env = {**os.environ, "BOXER_HOME": str(tmp_path / "home")}
    argv = [*MANAGE, "import", str(layout), "boxer.local/tools:1"]
    process = subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        pass  # EIO: the other end is closed.
    os.close(ours)
    assert process.wait(30) == 0
    assert shown.count(b"\n") == 1
    assert b"\r\x1b[K" in shown
    assert b"boxer.local/tools:1 sha256:" in shown.rsplit(b"\r\x1b[K")[-1]


def test_what_is_done_by_hand_is_in_the_audit_log(home: Path, tmp_path: Path) -> None:
    call_command("images", "import", str(an_image(tmp_path / "image")), "boxer.local/tools:1")
    call_command("images", "remove", "boxer.local/tools:1")
    entries = AuditEntry.objects.filter(object_id="boxer.local/tools:1").order_by("id")
    assert [entry.verb for entry in entries] == ["image_imported", "image_removed"]
    assert all(entry.username.startswith("local:") for entry in entries)


def test_without_a_database_it_is_there_when_there_is_one_again(home: Path, tmp_path: Path) -> None:
    env = {**os.environ, "BOXER_HOME": str(home)}
    layout = an_image(tmp_path / "image")
    argv = [*MANAGE, "import", str(layout), "boxer.local/spooled:1"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert not AuditEntry.objects.filter(object_id="boxer.local/spooled:1").exists()
    (home / "audit-spool" / "odd.json").write_text("[]")
    keeping.chain_and_note(home)
    entry = AuditEntry.objects.get(object_id="boxer.local/spooled:1")
    assert (entry.verb, entry.username[:6]) == ("image_imported", "local:")
    assert entry.details["done_at"]
    assert entry.seq is not None
    assert [file.name for file in (home / "audit-spool").iterdir()] == ["odd.bad"]
