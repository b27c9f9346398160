"""The client with a token: against a whole Boxer."""

import json
import stat
from pathlib import Path

import pytest

from tests.client import BOXER, Terminal, boxer, environment
from tests.cutting_proxy import CuttingProxy
from tests.fixtures_accounts import Account, make_accounts
from tests.stack import Stack
from tests.stack_access import execution

COUNT = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; echo error $i >&2; sleep 0.05; done"


@pytest.fixture(scope="module")
def operator(stack: Stack) -> Account:
    return make_accounts(stack, ernie=["Operators"])["ernie"]


def test_after_a_login_runs_are_the_users(
    stack: Stack, operator: Account, accounts: dict[str, Account], busybox_reference: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    with Terminal(*BOXER, "login", cwd=tmp_path, env=environment("", tmp_path)) as terminal:
        terminal.wait_for("URL")
        terminal.press(f"{stack.base_url}\n")
        terminal.wait_for("Token")
        terminal.press(f"{operator.token}\n")
        assert terminal.wait() == 0, terminal.seen
    assert operator.token not in terminal.seen
    file = tmp_path / ".config/boxer/config.toml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    exec_id = boxer("", tmp_path, "run", "-d", "busybox", "--", "true").stdout.decode().strip()
    assert execution(stack, exec_id)["owner_id"] == operator.user_id
    carol = {"BOXER_TOKEN": accounts["carol"].token}
    others = boxer(stack.base_url, tmp_path, "logs", exec_id, env=carol)
    assert (others.returncode, others.stdout) == (125, b"")
    assert others.stderr.decode().startswith(f"boxer: {exec_id}: there is no execution")


def test_quotas_are_shown(stack: Stack, accounts: dict[str, Account], tmp_path: Path) -> None:
    carol = {"BOXER_TOKEN": accounts["carol"].token}
    shown = boxer(stack.base_url, tmp_path, "quota", env=carol)
    assert (shown.returncode, shown.stderr) == (0, b"")
    rows = {line.split()[0]: line.split() for line in shown.stdout.decode().splitlines() if line}
    assert rows["QUOTA"] == ["QUOTA", "USED", "LIMIT", "FREES", "AT"]
    assert rows["runs_queued"][1:] == ["0", "-"]
    told = json.loads(boxer(stack.base_url, tmp_path, "quota", "--json", env=carol).stdout)
    assert told["runs_queued"]["used"] == 0


def test_images_are_pulled_ahead_and_listed_by_who_may(
    stack: Stack,
    operator: Account,
    accounts: dict[str, Account],
    busybox_reference: str,
    tmp_path: Path,
) -> None:
    ours = {"BOXER_TOKEN": operator.token}
    pulled = boxer(stack.base_url, tmp_path, "pull", "busybox", env=ours)
    assert (pulled.returncode, pulled.stderr) == (0, b"")
    digest = pulled.stdout.decode().strip()
    listed = boxer(stack.base_url, tmp_path, "images", env=ours)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert [digest[:19] in line for line in listed.stdout.decode().splitlines()].count(True) == 1
    missing = boxer(stack.base_url, tmp_path, "pull", "no-such-image", env=ours)
    assert missing.returncode == 125
    assert missing.stderr.startswith(b"boxer: no-such-image: failed: ")
    carol = {"BOXER_TOKEN": accounts["carol"].token}
    for arguments in (["images"], ["pull", "busybox"]):
        refused = boxer(stack.base_url, tmp_path, *arguments, env=carol)
        assert (refused.returncode, refused.stdout) == (125, b"")
        assert b": not allowed: " in refused.stderr
        assert refused.stderr.count(b"\n") == 1


def test_output_has_no_gap_however_often_the_connection_breaks(
    stack: Stack, busybox_reference: str, tmp_path: Path
) -> None:
    with CuttingProxy(stack.base_url, after_bytes=3000) as proxy:
        done = boxer(proxy.url, tmp_path, "run", "busybox", "--", "/bin/sh", "-c", COUNT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "".join(f"line {number}\n" for number in range(1, 41))
    assert done.stderr.decode() == "".join(f"error {number}\n" for number in range(1, 41))
    assert proxy.cuts >= 2
