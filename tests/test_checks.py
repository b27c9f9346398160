"""The system checks say what a host lacks and what installs it, and keep time-outs in order."""

import os
import struct
import time
from pathlib import Path

import pytest
from django.core.checks import CheckMessage, run_checks
from pytest_django.fixtures import Settings

from executions import checks
from executions.sandbox.cgroups import Hierarchy


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


@pytest.mark.parametrize(
    ("version", "found"),
    [
        ("release-20221219.0", ["boxer.E003"]),
        ("0.0~20221219.0", ["boxer.E003"]),
        ("release-20231217.9", ["boxer.E003"]),
        ("release-20231218.0", ["boxer.W002"]),
        ("0.0~20240729.0", ["boxer.W002"]),
        ("release-20250318.0", ["boxer.W002"]),
        ("release-20250319.0", []),
        ("release-20260105.0-12-gabcdef123456", []),
        ("VERSION_MISSING", ["boxer.W001"]),
        ("1234567890123", ["boxer.W001"]),
    ],
)
def test_the_age_of_runsc_is_judged_by_its_version(version: str, found: list[str]) -> None:
    assert ids(checks.judge_runsc("/usr/bin/runsc", version)) == found


def test_a_fit_host_has_nothing_but_doubts() -> None:
    messages = run_checks(tags=[checks.TAG], include_deployment_checks=True)
    assert [message.msg for message in messages if message.level >= 40] == []


def test_a_runsc_that_is_no_program_is_named(settings: Settings, tmp_path: Path) -> None:
    settings.BOXER_RUNSC_PATH = str(tmp_path / "runsc")
    [message] = checks.check_runsc()
    assert message.id == "boxer.E002"
    assert str(tmp_path / "runsc") in message.msg
    assert "bookworm-backports" in str(message.hint)


def test_a_busybox_that_needs_libraries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in checks.TOOLS:
        (tmp_path / name).symlink_to("/bin/ls" if name == "busybox" else "/usr/bin/catatonit")
    monkeypatch.setenv("PATH", str(tmp_path))
    [message] = checks.check_tools()
    assert message.id == "boxer.E005"
    assert message.hint == "apt-get install busybox-static"


@pytest.mark.parametrize(
    "content",
    [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x02" + b"\0" * 20],
)
def test_what_is_no_program_at_all_is_not_taken_for_a_static_one(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "busybox"
    file.write_bytes(content)
    assert not checks.is_static(file)


def test_a_program_with_a_broken_header_is_not_taken_for_a_static_one(tmp_path: Path) -> None:
    file = tmp_path / "busybox"
    header = bytearray(b"\x7fELF\x02" + b"\0" * 59)
    struct.pack_into("<Q", header, 32, 1 << 40)
    struct.pack_into("<HH", header, 54, 56, 9)
    file.write_bytes(header)
    assert not checks.is_static(file)


def test_without_cgroups_the_start_is_refused_unless_that_was_asked_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("22 1 0:21 / /proc rw - proc proc rw\n")
    of_host = Hierarchy.of_host
    monkeypatch.setattr(Hierarchy, "of_host", lambda group: of_host(group, mountinfo))
    [message] = checks.check_cgroups()
    assert message.id == "boxer.E006"
    assert "BOXER_IGNORE_CGROUPS" in message.msg
    settings.BOXER_IGNORE_CGROUPS = True
    assert ids(checks.check_cgroups()) == ["boxer.W003"]


def test_the_check_of_cgroups_leaves_none() -> None:
    assert checks.check_cgroups() == []
    assert list(Path("/sys/fs/cgroup").glob(f"**/boxer-check-{os.getpid()}")) == []


def test_time_outs_out_of_order_are_an_error(settings: Settings) -> None:
    assert checks.check_order_of_timeouts() == []
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"retry": settings.Q_CLUSTER["timeout"]}
    assert ids(checks.check_order_of_timeouts()) == ["boxer.E008"]


def test_kvm_without_its_device_is_an_error(settings: Settings) -> None:
    settings.BOXER_PLATFORM = "kvm"
    expected = [] if os.access("/dev/kvm", os.R_OK | os.W_OK) else ["boxer.E007"]
    assert ids(checks.check_platform()) == expected


def test_the_host_is_not_looked_at_with_every_command() -> None:
    began = time.perf_counter()
    messages = run_checks(tags=[checks.TAG])
    assert time.perf_counter() - began < 0.02
    assert messages == []
