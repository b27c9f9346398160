"""The image store, against a real registry: what it pulls, keeps, asks again and removes."""

import json
import logging
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from executions.sandbox.images import (
    BadReference,
    ImageNotFound,
    ImageStore,
    ImageTooLarge,
    PullFailed,
)
from tests.lying_registry import LyingRegistry
from tests.made_images import (
    ARCHITECTURE,
    INDEX,
    Entry,
    Layout,
    add_image,
    busybox_image,
    oci_image,
)
from tests.registry import Registry


def small_image(path: Path, content: bytes = b"one", env: list[str] | None = None) -> Path:
    entries = [Entry("word", content, mode=0o640, uid=12, gid=34)]
    return oci_image(path, [entries], {"Env": env or []})


def store_like(
    store: ImageStore, *, tag_ttl: float = 300, size_limit: int = 64 << 20
) -> ImageStore:
    return ImageStore(store.root, size_limit=size_limit, pull_timeout=30, tag_ttl=tag_ttl)


def grow_old(store: ImageStore, reference: str) -> None:
    tag = store._tags.read(reference)
    assert tag
    store._tags.write(replace(tag, checked=time.time() - 100_000))


def everything_below(store: ImageStore) -> list[Path]:
    return [path for name in ("work", "attempts", "tags") for path in (store.root / name).iterdir()]


# ── Pulling ──────────────────────────────────────────────────────────────────────────────────────


def test_an_image_is_pulled_and_unpacked(store: ImageStore, busybox_reference: str) -> None:
    with store.hold(busybox_reference) as image:
        assert image.reference == "docker.io/library/busybox:latest"
        assert image.digest.startswith("sha256:")
        assert (image.rootfs / "bin/sh").readlink() == Path("busybox")
        assert image.size > (image.rootfs / "bin/busybox").stat().st_size
        assert any(item.startswith("PATH=") for item in image.env)


def test_the_digest_is_the_registrys_and_owners_and_modes_are_kept(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    digest = registry.push(small_image(tmp_path / "image"), "owners:1")
    with store.hold(registry.reference("owners:1")) as image:
        assert image.digest == digest
        status = (image.rootfs / "word").stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o640)


def test_nobody_but_its_owner_can_enter_the_store(
    store: ImageStore, busybox_reference: str
) -> None:
    store.pull(busybox_reference)
    assert store.root.stat().st_mode & 0o777 == 0o700


def test_layers_are_applied_in_order_with_their_whiteouts(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    layers = [[Entry("gone", b"1"), Entry("kept", b"1")], [Entry(".wh.gone"), Entry("kept", b"2")]]
    registry.push(oci_image(tmp_path / "image", layers), "layers:1")
    with store.hold(registry.reference("layers:1")) as image:
        assert [path.name for path in image.rootfs.iterdir()] == ["kept"]
        assert (image.rootfs / "kept").read_bytes() == b"2"


def test_only_variables_that_a_program_can_be_given_are_kept(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    env = ["A=1", "B=x=y", "EMPTY=", "=bad", "none", "NUL=\0", "LONE=\ud800", "L=" + "x" * 200_000]
    registry.push(small_image(tmp_path / "image", env=env), "env:1")
    assert store.pull(registry.reference("env:1")).env == ("A=1", "B=x=y", "EMPTY=")


def test_an_image_that_is_here_is_had_without_starting_a_program(
    store: ImageStore, busybox_reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.cached(busybox_reference) is None
    pulled = store.pull(busybox_reference)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert store.cached(busybox_reference) == pulled
    with store.hold(busybox_reference) as image:
        assert image == pulled
    with store_like(store).hold("docker.io/library/busybox:latest") as image:
        assert image == pulled


def test_holding_an_image_that_is_here_costs_well_under_a_millisecond(
    store: ImageStore, busybox_reference: str
) -> None:
    store.pull(busybox_reference)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        with store.hold(busybox_reference):
            times.append(time.perf_counter() - started)
    assert sorted(times)[100] < 0.001


def test_this_machines_image_is_chosen_from_an_index(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "both")
    other = add_image(layout, [[Entry("other")]], architecture="mips64le")
    ours = add_image(layout, [[Entry("ours")]])
    listed = [
        {**other, "platform": {"os": "linux", "architecture": "mips64le"}},
        {**ours, "platform": {"os": "windows", "architecture": ARCHITECTURE}},
        {**ours, "platform": {"os": "linux", "architecture": ARCHITECTURE}},
    ]
    index = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}, INDEX)
    layout.index([index])
    pushed = registry.push(layout.root, "both:1")
    assert pushed == index["digest"]
    for reference in (registry.reference("both:1"), registry.reference(f"both@{pushed}")):
        with store.hold(reference) as image:
            assert [path.name for path in image.rootfs.iterdir()] == ["ours"]
            assert image.digest == ours["digest"]
    assert store.cached(registry.reference(f"both@{pushed}"))


def test_an_index_without_this_machines_image_is_not_found_and_says_what_it_has(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "foreign")
    other = add_image(layout, [[Entry("other")]], architecture="mips64le")
    listed = [{**other, "platform": {"os": "linux", "architecture": "mips64le"}}]
    index = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}, INDEX)
    layout.index([index])
    registry.push(layout.root, "foreign:1")
    with pytest.raises(ImageNotFound, match="linux/mips64le"):
        store.pull(registry.reference("foreign:1"))


@pytest.mark.parametrize("name", ["absent:1", "deeply/nested/absent:1"])
def test_an_image_that_does_not_exist_is_not_found_by_name(
    store: ImageStore, registry: Registry, name: str
) -> None:
    with pytest.raises(ImageNotFound, match=name):
        store.pull(registry.reference(name))
    assert everything_below(store) == []


def test_access_denied_is_not_found(store: ImageStore, lying_registry: LyingRegistry) -> None:
    denied = b'{"errors": [{"code": "DENIED", "message": "requested access is denied"}]}'
    lying_registry.answers["/v2/secret/manifests/latest"] = (403, denied)
    with pytest.raises(ImageNotFound, match="denied"):
        store.pull(f"{lying_registry.address}/secret")


@pytest.mark.parametrize("status", [500, 503])
def test_a_registry_in_trouble_is_not_an_image_that_does_not_exist(
    store: ImageStore, lying_registry: LyingRegistry, status: int
) -> None:
    lying_registry.answers["/v2/app/manifests/latest"] = (status, b"{}")
    with pytest.raises(PullFailed, match="app:latest"):
        store.pull(f"{lying_registry.address}/app")


def test_a_bad_reference_touches_nothing(store: ImageStore) -> None:
    with pytest.raises(BadReference), store.hold("dir:/etc"):
        pass
    assert not store.root.exists()


# ── Asking again ─────────────────────────────────────────────────────────────────────────────────


def test_a_tag_that_moved_is_followed_once_it_has_grown_old(
    store: ImageStore, registry: Registry, tmp_path: Path
) -> None:
    name = registry.reference("moving:1")
    registry.push(small_image(tmp_path / "one", b"one"), "moving:1")
    first = store.pull(name)
    registry.push(small_image(tmp_path / "two", b"two"), "moving:1")
    with store.hold(name) as image:
        assert image == first
    grow_old(store, name)
    assert store.cached(name) is None
    with store.hold(name) as image:
        assert (image.rootfs / "word").read_bytes() == b"two"
    assert (first.rootfs / "word").read_bytes() == b"one"


def test_a_tag_that_did_not_move_is_not_downloaded_again(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    lying_registry.serve(small_image(tmp_path / "image"), "app")
    name = f"{lying_registry.address}/app:latest"
    store.pull(name)
    downloads = lying_registry.downloads()
    with store_like(store, tag_ttl=0).hold(name):
        assert lying_registry.downloads() == downloads
    assert lying_registry.asked["/v2/app/manifests/latest"] >= 2


def test_without_its_registry_an_image_that_is_here_still_runs_and_a_warning_says_so(
    store: ImageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Registry() as server:
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(server.registries_conf))
        server.push(small_image(tmp_path / "image"), "app:1")
        name = server.reference("app:1")
        first = store.pull(name)
        server.pause()
        grow_old(store, name)
        with caplog.at_level(logging.WARNING), store.hold(name) as image:
            assert image == first
        assert [name in record.getMessage() for record in caplog.records] == [True]
        assert store.cached(name) == first  # It isn't asked again at once.
        with pytest.raises(PullFailed, match="refused"):
            store.pull(server.reference("other:1"))
        server.resume()
        server.push(small_image(tmp_path / "other"), "other:1")
        assert store.pull(server.reference("other:1"))  # The failure wasn't remembered.


def test_a_registry_that_says_no_is_believed_even_when_the_image_is_here(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    lying_registry.serve(small_image(tmp_path / "image"), "app")
    name = f"{lying_registry.address}/app:latest"
    store.pull(name)
    lying_registry.answers["/v2/app/manifests/latest"] = (401, b"{}")
    grow_old(store, name)
    with pytest.raises(ImageNotFound), store.hold(name):
        pass


def test_a_digest_never_grows_old(
    store: ImageStore, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = registry.push(small_image(tmp_path / "image", b"by digest"), "pinned:1")
    name = registry.reference(f"pinned:1@{digest}")
    pulled = store.pull(name)
    assert pulled.digest == digest
    grow_old(store, name)
    monkeypatch.setattr(subprocess, "Popen", None)
    with store_like(store, tag_ttl=0).hold(name) as image:
        assert image == pulled


def test_what_an_image_may_have_is_checked_before_its_layers_are_downloaded(
    store: ImageStore, lying_registry: LyingRegistry, tmp_path: Path
) -> None:
    lying_registry.serve(busybox_image(tmp_path / "image"), "app")
    small = store_like(store, size_limit=100_000)
    with pytest.raises(ImageTooLarge, match="100000"):
        small.pull(f"{lying_registry.address}/app")
    assert lying_registry.downloads() == 0


def test_a_damaged_tag_is_asked_for_again(store: ImageStore, busybox_reference: str) -> None:
    store.pull(busybox_reference)
    (path,) = (store.root / "tags").iterdir()
    for damage in ("", "{", "[]", json.dumps({"reference": "x"})):
        path.write_text(damage)
        assert store.cached(busybox_reference) is None
        assert store.list_images()[0].references == ()
        with store.hold(busybox_reference):
            pass


@pytest.mark.parametrize("options", [["--dest-compress-format", "zstd"], ["--format", "v2s2"]])
def test_other_compressions_and_dockers_own_manifests_are_pulled_too(
    store: ImageStore, registry: Registry, tmp_path: Path, options: list[str]
) -> None:
    layout = small_image(tmp_path / "image", options[-1].encode() * 1000)
    name = registry.reference(f"packed:{options[-1]}")
    argv = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options]
    subprocess.run([*argv, f"oci:{layout}", f"docker://{name}"], check=True)
    with store.hold(name) as image:
        assert (image.rootfs / "word").read_bytes() == options[-1].encode() * 1000
