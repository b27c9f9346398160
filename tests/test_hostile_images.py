"""Images and registries that mean harm: nothing outside of an image's root is touched."""

import gzip
import json
import os
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executions.sandbox.images import ImageError, ImageStore, ImageTooLarge, PullFailed
from tests.lying_registry import LyingRegistry
from tests.made_images import Entry, directory, hard_link, layer, oci_image, symlink

NAME = "boxer.local/hostile:1"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with one file; the test fails when anything about it changes."""
    path = tmp_path / "victim"
    path.mkdir(mode=0o751)
    (path / "keep").write_text("the host's")
    before = [seen(path), seen(path / "keep")]
    yield path
    assert [entry.name for entry in path.iterdir()] == ["keep"]
    assert (path / "keep").read_text() == "the host's"
    assert [seen(path), seen(path / "keep")] == before


def seen(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns, status.st_size


def up(victim: Path) -> str:
    return "../" * 30 + str(victim).removeprefix("/")


ESCAPES: dict[str, Callable[[Path], list[list[Entry]]]] = {
    "an absolute path": lambda v: [[Entry(f"{v}/new", b"x"), Entry(f"{v}/keep", b"x")]],
    "a path with dots": lambda v: [[Entry(f"{up(v)}/new", b"x"), Entry(f"{up(v)}/keep", b"x")]],
    "dots in the middle": lambda v: [[directory("a"), Entry(f"a/{up(v)}/keep", b"x")]],
    "through an absolute symlink": lambda v: [[symlink("d", str(v)), Entry("d/keep", b"x")]],
    "through a symlink with dots": lambda v: [[symlink("d", up(v)), Entry("d/keep", b"x")]],
    "through a symlink of the layer before": lambda v: [
        [symlink("d", str(v))],
        [Entry("d/keep", b"x"), Entry("d/new", b"x")],
    ],
    "onto a symlink to a file": lambda v: [[symlink("f", f"{v}/keep")], [Entry("f", b"x")]],
    "a mode through a symlink": lambda v: [[symlink("d", str(v)), directory("d/.", 0o777)]],
    "a directory over a symlink": lambda v: [[symlink("d", str(v)), directory("d", 0o777)]],
    "an absolute hard link": lambda v: [[hard_link("h", f"{v}/keep"), Entry("h", b"x")]],
    "a hard link with dots": lambda v: [[hard_link("h", f"{up(v)}/keep")]],
    "a hard link through a symlink": lambda v: [[symlink("d", str(v)), hard_link("h", "d/keep")]],
    "a hard link to a symlink": lambda v: [
        [symlink("s", f"{v}/keep"), hard_link("h", "s"), Entry("h", b"x")]
    ],
    "a whiteout with dots": lambda v: [[Entry("a")], [Entry(f"{up(v)}/.wh.keep")]],
    "a whiteout through a symlink": lambda v: [[symlink("d", str(v))], [Entry("d/.wh.keep")]],
    "an opaque whiteout through a symlink": lambda v: [
        [symlink("d", str(v))],
        [Entry("d/.wh..wh..opq")],
    ],
    "a whiteout of the parent": lambda _: [[directory("a")], [Entry(".wh...")]],
    "a whiteout of a directory's parent": lambda _: [[directory("a")], [Entry("a/.wh...")]],
    "a whiteout of the root": lambda _: [[Entry("a")], [Entry(".wh..")]],
    "a root that is a symlink": lambda v: [[symlink(".", str(v)), Entry("keep", b"x")]],
    "a root that is a symlink, named /": lambda v: [[symlink("/", str(v)), Entry("keep", b"x")]],
}


@pytest.mark.parametrize("kind", ESCAPES)
def test_unpacking_changes_nothing_outside_of_the_root(
    store: ImageStore, tmp_path: Path, victim: Path, kind: str
) -> None:
    bystander = store.import_archive(
        oci_image(tmp_path / "other", [[Entry("a", b"1")]]), "boxer.local/bystander"
    )
    layout = oci_image(tmp_path / "image", ESCAPES[kind](victim))
    failure = NAME
    try:
        image = store.import_archive(layout, NAME)
    except PullFailed as error:
        failure = str(error)
        assert store.cached(NAME) is None
        images = 1
    else:
        assert image.rootfs.is_dir()
        images = 2
    assert failure.startswith(NAME)
    assert len(store.list_images()) == images
    assert store.cached("boxer.local/bystander") == bystander
    assert (bystander.rootfs / "a").read_bytes() == b"1"
    assert {path.name for path in store.root.iterdir()} == {"images", "tags", "work", "attempts"}
    assert list((store.root / "work").iterdir()) == []


def test_device_nodes_are_taken_out(store: ImageStore, tmp_path: Path) -> None:
    entries = [
        Entry("sda", kind=tarfile.BLKTYPE, device=(8, 0), mode=0o666),
        Entry("deep/mem", kind=tarfile.CHRTYPE, device=(1, 1), mode=0o666),
        Entry("whiteout", kind=tarfile.CHRTYPE, device=(0, 0)),
        Entry("fifo", kind=tarfile.FIFOTYPE),
        Entry("file", b"x"),
    ]
    image = store.import_archive(oci_image(tmp_path / "image", [entries]), NAME)
    found = {path.name for path in image.rootfs.rglob("*")}
    assert found == {"deep", "fifo", "file"}


def test_attributes_that_steer_overlayfs_are_not_there(store: ImageStore, tmp_path: Path) -> None:
    attributes = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.other": "y",
        "SCHILY.xattr.user.kept": "y",
    }
    layout = oci_image(tmp_path / "image", [[Entry("file", b"x", pax=attributes)]])
    image = store.import_archive(layout, NAME)
    assert os.listxattr(image.rootfs / "file") == ["user.kept"]


def test_set_user_id_programs_and_closed_directories_stay_as_they_are_and_can_be_removed(
    store: ImageStore, tmp_path: Path
) -> None:
    entries = [
        Entry("suid", b"x", mode=0o4755),
        directory("closed", 0),
        directory("closed/inner", 0),
        Entry("closed/inner/file", b"x", mode=0),
        directory(".", 0),
    ]
    image = store.import_archive(oci_image(tmp_path / "image", [entries]), NAME)
    assert (image.rootfs / "suid").stat().st_mode & 0o7777 == 0o4755
    assert stat.S_IMODE((image.rootfs / "closed").stat().st_mode) == 0
    assert image.rootfs.parent.parent.stat().st_mode & 0o077 == 0
    store.remove(NAME)
    assert not image.rootfs.exists()


def test_names_that_are_no_text_can_be_removed(store: ImageStore, tmp_path: Path) -> None:
    entries = [Entry("new\nline", b"x"), Entry("\udcff\udcfe", b"x"), Entry("-rf", b"x")]
    image = store.import_archive(oci_image(tmp_path / "image", [entries]), NAME)
    assert len(list(image.rootfs.iterdir())) == 3
    store.remove(NAME)
    assert not image.rootfs.exists()


# ── Too much ─────────────────────────────────────────────────────────────────────────────────────


def limited(store: ImageStore, *, size: int = 8 << 20, files: int = 1000) -> ImageStore:
    return ImageStore(store.root, size_limit=size, pull_timeout=60, tag_ttl=300, files_limit=files)


def bomb(size: int, names: int = 1) -> bytes:
    """A gzip file a thousandth as large as what it unpacks to."""
    chunk = bytes(1 << 20)
    zeros = layer([Entry(f"zeros{n}", chunk * (size // names >> 20)) for n in range(names)])
    return gzip.compress(zeros, compresslevel=6, mtime=0)


@pytest.mark.parametrize("names", [1, 64], ids=["one file", "many files"])
def test_a_layer_that_unpacks_to_too_much_is_stopped(
    store: ImageStore, tmp_path: Path, names: int
) -> None:
    layout = oci_image(tmp_path / "image", [bomb(128 << 20, names)])
    with pytest.raises(ImageTooLarge, match=r"hostile:1: .*8388608 bytes"):
        limited(store).import_archive(layout, NAME)
    assert list((store.root / "work").iterdir()) == []
    assert store.list_images() == []


def test_too_many_files_are_stopped(store: ImageStore, tmp_path: Path) -> None:
    entries = [Entry(f"file{number}") for number in range(1200)]
    layout = oci_image(tmp_path / "image", [entries])
    with pytest.raises(ImageTooLarge, match="more than 1000 files"):
        limited(store).import_archive(layout, NAME)


def test_directories_nested_without_end_are_refused_and_removed(
    store: ImageStore, tmp_path: Path
) -> None:
    layout = oci_image(tmp_path / "image", [[Entry("d/" * 900 + "file", b"x")]])
    with pytest.raises(PullFailed, match="nested deeper"):
        store.import_archive(layout, NAME)
    assert list((store.root / "work").iterdir()) == []


def test_a_layer_that_is_larger_than_its_manifest_says_is_stopped(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    layout = oci_image(tmp_path / "image", [[Entry("noise", os.urandom(24 << 20))]])
    manifest = served_manifest(layout)
    manifest["layers"][0]["size"] = 1000
    serve_with(lying_registry, layout, manifest)
    with pytest.raises((ImageTooLarge, PullFailed)):
        limited(store).pull(f"{lying_registry.address}/app")
    assert list((store.root / "work").iterdir()) == []
    assert store.list_images() == []


# ── Lies ─────────────────────────────────────────────────────────────────────────────────────────


def served_manifest(layout: Path) -> dict:  # type: ignore[type-arg]
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    value: dict = json.loads((layout / "blobs/sha256" / digest).read_text())  # type: ignore[type-arg]
    return value


def serve_with(registry: LyingRegistry, layout: Path, manifest: object) -> None:
    registry.serve(layout, "app")
    registry.manifest("app", "latest", json.dumps(manifest).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"schemaVersion": 1, "fsLayers": []}',
        b'{"schemaVersion": 2, "layers": {}, "config": {}}',
        b'{"schemaVersion": 2, "layers": [1], "config": {}}',
        b'{"schemaVersion": 2, "layers": [{"size": -5}], "config": {}}',
        b'{"schemaVersion": 2, "layers": [{"size": "x"}], "config": {}}',
        b'{"schemaVersion": 2, "layers": [], "config": null}',
        b'{"schemaVersion": 2, "manifests": [null, 1, {"platform": 1}, {"digest": 1}]}',
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_is_none_fails_with_the_images_name(
    store: ImageStore, lying_registry: LyingRegistry, raw: bytes
) -> None:
    lying_registry.manifest("app", "latest", raw)
    name = f"{lying_registry.address}/app:latest"
    with pytest.raises(ImageError, match=name):
        store.pull(name)
    assert list((store.root / "work").iterdir()) == []


def test_a_layer_that_lies_elsewhere_is_not_fetched(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    layout = oci_image(tmp_path / "image", [[Entry("a", b"x")]])
    manifest = served_manifest(layout)
    manifest["layers"][0]["urls"] = [f"http://{lying_registry.address}/metadata"]
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest["layers"][0]["mediaType"] = foreign
    serve_with(lying_registry, layout, manifest)
    with pytest.raises(PullFailed, match="outside of its registry"):
        store.pull(f"{lying_registry.address}/app")
    assert lying_registry.asked["/metadata"] == 0


def test_another_manifest_than_the_digest_asked_for_is_refused(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    digest = lying_registry.serve(oci_image(tmp_path / "one", [[Entry("a", b"1")]]), "app")
    lying_registry.serve(oci_image(tmp_path / "two", [[Entry("a", b"2")]]), "app")
    other = lying_registry.answers["/v2/app/manifests/latest"]
    lying_registry.answers[f"/v2/app/manifests/{digest}"] = other
    with pytest.raises(PullFailed):
        store.pull(f"{lying_registry.address}/app@{digest}")


def test_a_layer_with_other_content_than_its_digest_is_refused(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    layout = oci_image(tmp_path / "image", [[Entry("a", b"1")]])
    lying_registry.serve(layout, "app")
    digest = served_manifest(layout)["layers"][0]["digest"]
    swapped = gzip.compress(layer([Entry("a", b"2")]), mtime=0)
    lying_registry.answers[f"/v2/app/blobs/{digest}"] = (200, swapped)
    with pytest.raises(PullFailed):
        store.pull(f"{lying_registry.address}/app")
    assert store.list_images() == []


def test_an_error_shows_no_credentials(
    store: ImageStore,
    lying_registry: LyingRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auth = tmp_path / "auth.json"
    # dXNlcjpodW50ZXIyaHVudGVyMg== is user:hunter2hunter2
    known = {"auths": {lying_registry.address: {"auth": "dXNlcjpodW50ZXIyaHVudGVyMg=="}}}
    auth.write_text(json.dumps(known))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auth))
    answer = b'{"errors": [{"code": "X", "message": "http://user:hunter2hunter2@h/?sig=hunter2"}]}'
    lying_registry.answers["/v2/app/manifests/latest"] = (400, answer)
    with pytest.raises(ImageError) as failed:
        store.pull(f"{lying_registry.address}/app")
    assert "hunter2" not in str(failed.value)
    assert "aHVudGVy" not in str(failed.value)


def test_a_registry_that_never_answers_is_given_up(
    store: ImageStore, lying_registry: LyingRegistry
) -> None:
    lying_registry.hanging.add("/v2/app/manifests/latest")
    short = ImageStore(store.root, size_limit=1 << 20, pull_timeout=1, tag_ttl=0)
    started = time.monotonic()
    with pytest.raises(ImageError) as failed:
        short.pull(f"{lying_registry.address}/app")
    assert failed.value.code == "pull_timeout"
    assert time.monotonic() - started < 3
    assert list((store.root / "work").iterdir()) == []
