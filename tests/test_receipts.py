"""Receipts say what ran, whatever is changed in one is found, and they can be run again."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import Client

from boxer_site import env
from executions import hosts, services
from executions.models import Execution, ExecutionInput, ExecutionStdin, Outcome
from executions.receipts import keys
from executions.receipts import services as receipts
from executions.services import Ending
from filestore import services as filestore
from tests.answers import error_of
from tests.stack import Stack, manage
from tests.stack_access import execution, upload

HOST = "11111111-1111-1111-1111-111111111111"
DIGEST = "sha256:" + "5b" * 32


def sha256(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


@pytest.fixture
def running(anonymous: User) -> Execution:
    hosts.started(host_id=HOST, name="here", workers=1, runsc_version="release-1")
    run = Execution.objects.create(
        owner=anonymous, image="busybox:1", cmd=["sh", "-c", "x"], env=["A=ä", "API_TOKEN=***"],
        files=["in.txt"], persist=True, labels={"ci": "7"}, cpu_cores=1.0, memory_mb=64,
        pids_limit=16, wall_clock_secs=5, nofile=64,
    )  # fmt: skip
    ExecutionInput.objects.create(execution=run, path="in.txt", **sha256(b"in"))
    ExecutionStdin.objects.create(execution=run, data=b"\0stdin")
    claimed = services.claim(exec_id=run.exec_id, host_id=HOST, worker="w")
    assert claimed is not None
    assert services.start(
        execution=claimed, image_digest=DIGEST, pull_ms=1, start_ms=2, platform="systrap"
    )
    return claimed


@pytest.fixture
def ended(running: Execution) -> Execution:
    filestore.store(
        owner_id=running.owner_id,
        path=f"output/{running.exec_id}/a/b.txt",
        source=io.BytesIO(b"left"),
    )
    ending = Ending(
        outcome=Outcome.EXITED, exit_code=3, stdout=b"\xffout", wall_ms=5, cpu_ms=4,
        left_out=[{"path": "pipe", "reason": "a FIFO"}],
    )  # fmt: skip
    assert services.finish(execution=running, ending=ending)
    return Execution.objects.get(pk=running.pk)


pytestmark = pytest.mark.django_db(transaction=True)


# ── What it says ─────────────────────────────────────────────────────────────────────────────────


def test_it_says_what_ran_and_what_came_of_it(client: Client, ended: Execution) -> None:
    answer = client.get(f"/api/v1/executions/{ended.exec_id}/receipt/")
    assert answer.status_code == 200
    said = answer.json()["receipt"]
    assert said["image"] == {"requested": "busybox:1", "digest": DIGEST}
    assert said["runtime"] == {"runsc_version": "release-1", "platform": "systrap"}
    assert (said["cmd"], said["cwd"], said["network"]) == (["sh", "-c", "x"], "/", "none")
    assert said["env"] == ["A=ä", "API_TOKEN=***"]
    assert said["limits"] == {
        "cpu_cores": 1, "memory_mb": 64, "pids_limit": 16, "wall_clock_secs": 5, "nofile": 64,
    }  # fmt: skip
    assert said["inputs"] == [{"path": "in.txt", **sha256(b"in")}]
    assert said["stdin"] == sha256(b"\0stdin")
    assert (said["stdout"], said["stderr"]) == (sha256(b"\xffout"), sha256(b""))
    assert said["outputs"] == [{"path": "a/b.txt", **sha256(b"left")}]
    assert said["left_out"] == [{"path": "pipe", "reason": "a FIFO"}]
    assert (said["end"]["outcome"], said["end"]["exit_code"]) == ("exited", 3)
    assert (said["usage"]["wall_ms"], said["usage"]["cpu_ms"]) == (5, 4)
    assert said["times"]["started_at"] <= said["times"]["finished_at"]
    request = said["request"]
    assert request["image"] == f"docker.io/library/busybox@{DIGEST}"
    assert base64.b64decode(request["stdin"]) == b"\0stdin"
    assert (request["files"], request["labels"]) == (["in.txt"], {"ci": "7"})


def test_one_that_runs_or_waits_has_none(client: Client, running: Execution) -> None:
    path = f"/api/v1/executions/{running.exec_id}/receipt/"
    error_of(client.get(path), 409, "not_ended")
    services.queue_again(execution=running)
    error_of(client.get(path), 409, "not_ended")


def test_one_that_never_ran_has_one(client: Client, anonymous: User) -> None:
    run = Execution.objects.create(
        owner=anonymous, image="busybox", cmd=["x"], cpu_cores=0.5, memory_mb=64, pids_limit=16,
        wall_clock_secs=5, nofile=64,
    )  # fmt: skip
    assert services.withdraw(exec_id=run.exec_id)
    said = client.get(f"/api/v1/executions/{run.exec_id}/receipt/").json()["receipt"]
    assert (said["end"]["status"], said["stdout"]) == ("cancelled", sha256(b""))
    assert said["request"]["image"] == "busybox"
    assert said["limits"]["cpu_cores"] == 0.5


def test_somebody_elses_is_404(client: Client, ended: Execution, bob: User) -> None:
    Execution.objects.filter(pk=ended.pk).update(owner=bob)
    error_of(client.get(f"/api/v1/executions/{ended.exec_id}/receipt/"), 404, "not_found")


# ── Verification ─────────────────────────────────────────────────────────────────────────────────


def test_anybody_can_verify_it_with_the_public_key(client: Client, ended: Execution) -> None:
    """By what the README says alone."""
    issued = client.get(f"/api/v1/executions/{ended.exec_id}/receipt/").json()
    key = client.get("/api/v1/receipt-key/").json()
    text = json.dumps(
        issued["receipt"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    public: Any = load_pem_public_key(key["public_key"].encode())
    public.verify(base64.b64decode(issued["signature"]["value"]), text)
    assert issued["signature"]["key"] == key["key"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*path, key))


def changed(whole: Any, path: tuple[Any, ...]) -> Any:
    """A copy with another value there."""
    copy = {"": deepcopy(whole)}
    parent: Any = copy
    for key in ("", *path)[:-1]:
        parent = parent[key]
    key = ("", *path)[-1]
    old = parent[key]
    if isinstance(old, bool) or old is None:
        parent[key] = 1 if old is None else not old
    elif isinstance(old, int | float):
        parent[key] = old + 1
    elif isinstance(old, str):
        parent[key] = old[:-1] + ("A" if old[-1:] != "A" else "B")
    elif isinstance(old, list):
        parent[key] = [*old, "more"]
    else:
        parent[key] = {**old, "more": 1}
    return copy[""]


def verify(tmp_path: Path, issued: Any, *arguments: str) -> None:
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(issued))
    call_command("receipt", "verify", str(file), *arguments, stdout=io.StringIO())


def test_a_change_of_any_field_is_found(ended: Execution, tmp_path: Path) -> None:
    issued = receipts.issue(execution=ended)
    verify(tmp_path, issued)
    paths = [path for path in leaves(issued) if path]
    assert len(paths) > 70
    for path in paths:
        forged = changed(issued, path)
        assert forged != issued
        with pytest.raises(CommandError) as raised:
            verify(tmp_path, forged)
        assert raised.value.returncode in (1, 2), path


def test_what_was_changed_is_named(
    ended: Execution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = receipts.issue(execution=ended)
    for path, told in {
        ("end", "exit_code"): "end.exit_code is 4, not 3",
        ("cmd", 2): 'cmd[2] is "A", not "x"',
        ("outputs", 0, "size"): "outputs[0].size is 5, not 4",
        ("usage",): "usage.more was added",
        ("inputs",): "inputs has 2 entries, not 1",
    }.items():
        with pytest.raises(CommandError, match="changed after it was signed"):
            verify(tmp_path, changed(issued, ("receipt", *path)))
        assert capsys.readouterr().err.strip() == told
    missing = deepcopy(issued)
    del missing["receipt"]["network"]
    with pytest.raises(CommandError):
        verify(tmp_path, missing)
    assert capsys.readouterr().err.strip() == "network is missing"


def test_a_valid_one_stays_valid_when_what_it_tells_of_has_changed(
    ended: Execution, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = receipts.issue(execution=ended)
    filestore.delete(owner_id=ended.owner_id, path=f"output/{ended.exec_id}/a/b.txt")
    verify(tmp_path, issued)
    assert capsys.readouterr().err.strip() == "by now: outputs has 1 entries, not 0"
    ended.delete()
    verify(tmp_path, issued)
    assert "not any more" in capsys.readouterr().err


def test_with_a_key_no_database_is_asked(ended: Execution, tmp_path: Path) -> None:
    issued = receipts.issue(execution=ended)
    pem = tmp_path / "key.pem"
    pem.write_text(keys.pem(keys.public_key()))
    ended.delete()
    verify(tmp_path, issued, "--key", str(pem))
    with pytest.raises(CommandError, match="changed after"):
        verify(tmp_path, changed(issued, ("receipt", "cwd")), "--key", str(pem))
    pem.write_text(keys.pem(Ed25519PrivateKey.generate().public_key()))
    with pytest.raises(CommandError, match="it names the key") as raised:
        verify(tmp_path, issued, "--key", str(pem))
    assert raised.value.returncode == 1
    pem.write_text("no key")
    with pytest.raises(CommandError) as raised:
        verify(tmp_path, issued, "--key", str(pem))
    assert raised.value.returncode == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"receipt": {}, "signature": {}}',
        '{"receipt": 1, "receipt": 2, "signature": {}}',
        '{"receipt": {"format": "boxer-receipt/1", "a": NaN}, "signature": {}}',
        "[" * 100_000,
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_what_is_no_receipt_is_told_apart(text: str | bytes) -> None:
    with pytest.raises(receipts.Unreadable):
        receipts.read(text)


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_is_the_operators_or_made_of_the_secret_key(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Ed25519PrivateKey.generate()
    pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    monkeypatch.setenv("BOXER_X", pem)
    derived = keys.pem(keys.public_key())
    try:
        settings.BOXER_RECEIPT_KEY = env.signing_key("BOXER_X")
        keys.forget()
        assert keys.pem(keys.public_key()) == keys.pem(made.public_key())
        settings.BOXER_RECEIPT_KEY, settings.SECRET_KEY = "", "another"
        keys.forget()
        assert keys.pem(keys.public_key()) not in (derived, keys.pem(made.public_key()))
    finally:
        keys.forget()
    monkeypatch.setenv("BOXER_X", "secret-that-is-no-key")
    with pytest.raises(ImproperlyConfigured, match="BOXER_X: must be an Ed25519") as raised:
        env.signing_key("BOXER_X")
    assert "secret-that" not in str(raised.value)


# ── Over HTTP ────────────────────────────────────────────────────────────────────────────────────


def receipt_of(stack: Stack, exec_id: str) -> Any:
    code, issued = stack.get(f"/api/v1/executions/{exec_id}/receipt/")
    assert code == 200
    return issued


def test_a_receipt_is_enough_to_run_exactly_that_again(
    stack: Stack, busybox_reference: str, tmp_path: Path
) -> None:
    upload(stack, "receipts/in.txt", b"given\n")
    secret = "not-to-be-told-7711"
    code, answer = stack.run(
        image=busybox_reference,
        cmd=["sh", "-c", "cat /receipts/in.txt; echo left > /output/o; exit 3"],
        env=[f"API_TOKEN={secret}"],
        files=["receipts/in.txt"],
        persist=True,
        limits={"memory_mb": 96},
    )
    assert code == 200
    first = receipt_of(stack, answer["exec_id"])
    said = first["receipt"]
    row = execution(stack, answer["exec_id"])
    assert row["runsc_version"] == said["runtime"]["runsc_version"] != ""
    assert said["runtime"]["platform"] == row["platform"] == "systrap"
    assert secret not in json.dumps(first)
    assert said["stdout"] == sha256(b"given\n")
    assert said["outputs"] == [{"path": "o", **sha256(b"left\n")}]

    code, again = stack.run(**said["request"])
    assert (code, again["exit_code"], again["image_digest"]) == (200, 3, said["image"]["digest"])
    second = receipt_of(stack, again["exec_id"])["receipt"]
    for name in ("runtime", "cmd", "limits", "network", "inputs", "stdout", "stderr", "outputs"):
        assert second[name] == said[name], name

    file = tmp_path / "receipt.json"
    shown = manage("receipt", "show", answer["exec_id"], home=stack.home)
    assert json.loads(shown.stdout) == first
    file.write_text(shown.stdout)
    valid = manage("receipt", "verify", str(file), home=stack.home)
    assert (valid.returncode, valid.stderr) == (0, ""), valid.stderr
    assert valid.stdout.startswith(f"valid: {answer['exec_id']}")
    pem, nowhere = tmp_path / "key.pem", {"DATABASE_URL": "postgresql://x@127.0.0.1:1/none"}
    pem.write_text(manage("receipt", "key", home=stack.home).stdout)
    with_key = ("receipt", "verify", str(file), "--key", str(pem))
    assert manage(*with_key, home=stack.home, env=nowhere).returncode == 0
    file.write_text(shown.stdout.replace('"exit_code": 3', '"exit_code": 0'))
    assert manage(*with_key, home=stack.home, env=nowhere).returncode == 1
    forged = manage("receipt", "verify", str(file), home=stack.home)
    assert forged.returncode == 1
    assert "end.exit_code is 0, not 3" in forged.stderr
