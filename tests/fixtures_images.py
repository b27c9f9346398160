"""Session fixtures: a registry on loopback, and images in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from executions.sandbox.images import ImageStore
from tests.lying_registry import LyingRegistry
from tests.made_images import busybox_image, python_image
from tests.registry import Registry


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """Stands in for docker.io too: the containers tools' configuration points to it."""
    before = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    with Registry() as server:
        os.environ["CONTAINERS_REGISTRIES_CONF"] = str(server.registries_conf)
        yield server
        if before is None:
            del os.environ["CONTAINERS_REGISTRIES_CONF"]
        else:
            os.environ["CONTAINERS_REGISTRIES_CONF"] = before


@pytest.fixture(scope="session")
def busybox_reference(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A busybox by a reference that names no host: it goes by way of docker.io's stand-in."""
    layout: Path = busybox_image(tmp_path_factory.mktemp("busybox") / "layout")
    registry.push(layout, "library/busybox:latest")
    return "busybox:latest"


@pytest.fixture(scope="session")
def python_reference(registry: Registry) -> str:
    registry.push(python_image(), "library/python:3.12-slim")
    return "python:3.12-slim"


@pytest.fixture
def lying_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingRegistry]:
    """The containers tools reach it by plain HTTP for the length of the test."""
    with LyingRegistry(tmp_path) as server:
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(server.registries_conf))
        yield server


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", size_limit=64 << 20, pull_timeout=30, tag_ttl=300)
