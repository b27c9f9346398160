"""Images from archives, and the upkeep of those that are here: listed, pruned, removed."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from executions.sandbox.images import (
    BadReference,
    ImageInUse,
    ImageNotFound,
    ImageStore,
    PullFailed,
)
from tests.lying_registry import LyingRegistry
from tests.test_images import everything_below, small_image, store_like

# ── Archives ─────────────────────────────────────────────────────────────────────────────────────


def docker_archive(layout: Path, target: Path) -> Path:
    argv = ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}"]
    subprocess.run([*argv, f"docker-archive:{target}:some/name:1"], check=True)
    return target


def oci_archive(layout: Path, target: Path) -> Path:
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}", f"oci-archive:{target}"],
        check=True,
    )
    return target


@pytest.mark.parametrize("kind", ["layout", "oci", "docker"])
def test_an_archive_is_told_by_its_content_and_imported(
    store: ImageStore, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = small_image(tmp_path / "image")
    if kind == "layout":
        path = layout
    elif kind == "oci":
        path = oci_archive(layout, tmp_path / "file")
    else:
        path = docker_archive(layout, tmp_path / "file")
    awkward = path.rename(tmp_path / "an: awkward -name")
    imported = store.import_archive(awkward, "boxer.local/tools:1")
    monkeypatch.setattr(subprocess, "Popen", None)
    with store_like(store, tag_ttl=0).hold("boxer.local/tools:1") as image:
        assert image == imported
        assert (image.rootfs / "word").read_bytes() == b"one"
    assert len(everything_below(store)) == 1


def test_importing_again_replaces_what_the_name_means(store: ImageStore, tmp_path: Path) -> None:
    store.import_archive(small_image(tmp_path / "one", b"one"), "boxer.local/app")
    store.import_archive(small_image(tmp_path / "two", b"two"), "boxer.local/app")
    with store.hold("boxer.local/app") as image:
        assert (image.rootfs / "word").read_bytes() == b"two"


def test_an_imported_name_of_a_registry_is_not_asked_for_there(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    name = f"{lying_registry.address}/app:latest"
    store.import_archive(small_image(tmp_path / "image"), name)
    with store_like(store, tag_ttl=0).hold(name):
        assert lying_registry.asked.total() == 0


def test_a_local_image_that_was_not_imported_is_not_found(store: ImageStore) -> None:
    with pytest.raises(ImageNotFound, match="import"), store.hold("boxer.local/absent"):
        pass


def test_what_is_no_archive_of_an_image_is_refused_by_name(
    store: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("hello"), io.BytesIO())
    for name in ("text", "empty", "folder", "tar", "absent"):
        with pytest.raises(PullFailed, match=str(tmp_path / name)):
            store.import_archive(tmp_path / name, "boxer.local/app")
    with pytest.raises(BadReference):
        store.import_archive(tmp_path / "tar", "boxer.local/app@sha256:" + "0" * 64)
    assert everything_below(store) == []
    assert store.list_images() == []


# ── Keeping ──────────────────────────────────────────────────────────────────────────────────────


def three_images(store: ImageStore, tmp_path: Path) -> list[str]:
    names = []
    for number in range(3):
        content = str(number).encode() * 100_000
        names.append(f"boxer.local/image:{number}")
        store.import_archive(small_image(tmp_path / f"image{number}", content), names[-1])
    for number, name in enumerate(names):
        image = store.cached(name)
        assert image
        os.utime(image.rootfs.parent, (1000 + number, 1000 + number))
    return names


def names_in(store: ImageStore) -> set[str]:
    return {name for image in store.list_images() for name in image.references}


def test_images_are_listed_with_their_names_last_used_first(
    store: ImageStore, tmp_path: Path
) -> None:
    assert store.list_images() == []
    names = three_images(store, tmp_path)
    assert [image.references for image in store.list_images()] == [(n,) for n in names[::-1]]
    with store.hold(names[0]):
        pass
    assert store.list_images()[0].references == (names[0],)


def test_pruning_removes_the_images_used_longest_ago_until_enough_is_freed(
    store: ImageStore, tmp_path: Path
) -> None:
    names = three_images(store, tmp_path)
    removed = store.prune(250_000)
    assert [image.references for image in removed] == [(names[0],)]
    assert names_in(store) == set(names[1:])
    assert len(everything_below(store)) == 2


def test_pruning_never_removes_an_image_in_use(store: ImageStore, tmp_path: Path) -> None:
    names = three_images(store, tmp_path)
    with store.hold(names[0]) as image:
        store_like(store).prune(0)
        assert (image.rootfs / "word").exists()
        assert names_in(store) == {names[0]}
    store.prune(0)
    assert store.list_images() == []


def test_an_image_in_use_cannot_be_removed_until_it_is_let_go(
    store: ImageStore, tmp_path: Path
) -> None:
    name = three_images(store, tmp_path)[0]
    with store.hold(name), store.hold(name) as image:
        with pytest.raises(ImageInUse, match=image.digest):
            store.remove(name)
        with pytest.raises(ImageInUse):
            store.remove(image.digest)
        assert store.cached(name) == image
    store.remove(name)
    assert store.cached(name) is None
    assert not image.rootfs.exists()


def test_removing_one_of_two_names_keeps_the_image(store: ImageStore, tmp_path: Path) -> None:
    layout = small_image(tmp_path / "image")
    store.import_archive(layout, "boxer.local/a")
    image = store.import_archive(layout, "boxer.local/b")
    store.remove("boxer.local/a")
    assert names_in(store) == {"boxer.local/b:latest"}
    store.remove(image.digest)
    assert store.list_images() == []
    assert everything_below(store) == []


def test_removing_what_is_not_here_says_so(store: ImageStore) -> None:
    for absent in ("boxer.local/absent", "sha256:" + "0" * 64, "python@sha256:" + "0" * 64):
        with pytest.raises(ImageNotFound, match="no such image"):
            store.remove(absent)


def test_a_removed_image_is_pulled_again(store: ImageStore, busybox_reference: str) -> None:
    first = store.pull(busybox_reference)
    store.remove(busybox_reference)
    with store.hold(busybox_reference) as image:
        assert image == first
        assert (image.rootfs / "bin/sh").is_symlink()
