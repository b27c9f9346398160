"""The Python image that is built where no registry answers."""

import subprocess
from pathlib import Path

import pytest

from executions.sandbox.debian_image import ImageNotBuilt, build_python_image, machine_source
from executions.sandbox.images import ImageStore
from tests.made_images import python_image

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEBIAN = f"""\
Types: deb deb-src
# a comment
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYRING}

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main
"""
UBUNTU = """\
# deb cdrom:[Ubuntu]/ noble main
deb-src http://mirror.test/ubuntu noble main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/ubuntu noble main universe # why
deb http://mirror.test/ubuntu noble-updates main
"""
ROLLING = """\
deb http://mirror.test/debian stable-updates main
deb http://mirror.test/debian stable main
"""
INLINE_KEY = """\
Types: deb
URIs: http://other.test/
Suites: noble
Components: extra

Enabled: no
Types: deb
URIs: http://off.test/ubuntu
Suites: noble
Components: main

Types: deb
URIs: http://mirror.test/ubuntu
Suites: noble
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
"""


def machine(root: Path, codename: str, files: dict[str, str]) -> Path:
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/os-release").write_text(f'ID=x\nVERSION_CODENAME={codename}\nNAME="y"\n')
    for name, text in files.items():
        (root / "etc/apt" / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("codename", "name", "text", "line"),
    [
        (
            "bookworm",
            "sources.list.d/debian.sources",
            DEBIAN,
            f"deb [signed-by={KEYRING}] http://mirror.test/debian bookworm main",
        ),
        (
            "noble",
            "sources.list",
            UBUNTU,
            "deb [signed-by=/k.gpg] http://mirror.test/ubuntu noble main",
        ),
        (
            "noble",
            "sources.list.d/ubuntu.sources",
            INLINE_KEY,
            "deb http://mirror.test/ubuntu noble main",
        ),
        (
            "bookworm",
            "sources.list",
            ROLLING,
            "deb http://mirror.test/debian stable main",
        ),
    ],
)
def test_packages_come_from_where_the_machine_gets_its_own(
    tmp_path: Path, codename: str, name: str, text: str, line: str
) -> None:
    assert machine_source(machine(tmp_path, codename, {name: text})).line == line


def test_a_machine_without_sources_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ImageNotBuilt, match="bookworm"):
        machine_source(machine(tmp_path, "bookworm", {"sources.list": "# nothing\n"}))


def test_a_build_that_fails_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageNotBuilt, match="mmdebstrap"):
        build_python_image(tmp_path / "out" / "image.tar")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_the_image_runs_python_and_knows_nothing_of_the_machine_it_was_built_on(
    tmp_path: Path,
) -> None:
    store = ImageStore(tmp_path / "store", size_limit=1 << 30, pull_timeout=60, tag_ttl=300)
    store.import_archive(python_image(), "boxer.local/python:debian")
    with store.hold("boxer.local/python:debian") as image:
        argv = [
            "/usr/sbin/chroot",
            str(image.rootfs),
            "python3",
            "-c",
            "import json, ssl, asyncio; print(6 * 7)",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": "/usr/bin"})
        assert done.stdout == "42\n", done.stderr
        for name in ("etc/hostname", "etc/resolv.conf", "etc/apt/sources.list"):
            assert not (image.rootfs / name).exists()
        assert not list((image.rootfs / "etc/apt").glob("*/*mmdebstrap*"))
        assert any(item.startswith("PATH=") for item in image.env)
        special = subprocess.run(
            ["find", image.rootfs, "(", "-type", "b", "-o", "-type", "c", ")"],
            capture_output=True,
        )
        assert special.stdout == b""
