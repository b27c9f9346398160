"""The storages that file contents may lie in: a directory, and S3 as moto's server speaks it."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from django.core.files.storage import default_storage
from django.test import override_settings
from moto.server import ThreadedMotoServer

S3_KEY = "testing"
REGION = "us-east-1"


@dataclass(frozen=True)
class StorageUnderTest:
    """The default storage of a test, and a way to look behind Django's back."""

    kind: str
    place: Any
    endpoint: str = ""

    def environment(self) -> dict[str, str]:
        """What gives a process of its own the same storage."""
        if self.kind == "disk":
            return {"BOXER_STORAGE": "disk", "BOXER_STORAGE_DIR": str(self.place)}
        return {
            "BOXER_STORAGE": "s3",
            "BOXER_S3_BUCKET": self.place.name,
            "BOXER_S3_ENDPOINT_URL": self.endpoint,
            "BOXER_S3_REGION": REGION,
            "BOXER_S3_ACCESS_KEY": S3_KEY,
            "BOXER_S3_SECRET_KEY": S3_KEY,
        }

    def objects(self) -> set[str]:
        """Names of everything that lies there."""
        if self.kind == "s3":
            return {item.key for item in self.place.objects.all()}
        found = (file for file in Path(self.place).rglob("*") if not file.is_dir())
        return {str(file.relative_to(self.place)) for file in found}

    def put(self, name: str, content: bytes) -> None:
        """An object that a crash left behind."""
        if self.kind == "s3":
            self.place.put_object(Key=name, Body=content)
            return
        file = Path(self.place) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def break_it(self) -> None:
        """From now on nothing can be written or deleted."""
        if self.kind == "s3":
            self.place.objects.all().delete()
            self.place.delete()
            return
        Path(self.place).rename(f"{self.place}-away")
        Path(self.place).write_text("a file where the directory was")

    def mend_it(self) -> None:
        if self.kind == "s3":
            self.place.create()
            return
        Path(self.place).unlink()
        Path(f"{self.place}-away").rename(self.place)


def s3_options(endpoint: str, bucket: str) -> dict[str, object]:
    return {
        "bucket_name": bucket,
        "endpoint_url": endpoint,
        "region_name": REGION,
        "access_key": S3_KEY,
        "secret_key": S3_KEY,
        "file_overwrite": True,
        "default_acl": None,
        "querystring_auth": False,
        "max_memory_size": 1 << 20,
        "transfer_config": TransferConfig(use_threads=False),  # type: ignore[no-untyped-call]
    }


def storages(backend: str, **options: object) -> dict[str, dict[str, object]]:
    static: dict[str, object] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    return {"default": {"BACKEND": backend, "OPTIONS": options}, "staticfiles": static}


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """moto's server, over HTTP on a port of loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[StorageUnderTest]:
    place = tmp_path / "contents"
    place.mkdir()
    backend = "django.core.files.storage.FileSystemStorage"
    with override_settings(STORAGES=storages(backend, location=str(place))):
        yield StorageUnderTest("disk", place)


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[StorageUnderTest]:
    name = f"boxer-{secrets.token_hex(8)}"
    resource: Any = boto3.resource(  # type: ignore[no-untyped-call]
        "s3",
        endpoint_url=s3_endpoint,
        region_name=REGION,
        aws_access_key_id=S3_KEY,
        aws_secret_access_key=S3_KEY,
    )
    bucket = resource.Bucket(name)
    bucket.create()
    options = s3_options(s3_endpoint, name)
    with override_settings(STORAGES=storages("storages.backends.s3.S3Storage", **options)):
        yield StorageUnderTest("s3", bucket, s3_endpoint)
        default_storage.connection.meta.client.close()  # type: ignore[attr-defined]
    resource.meta.client.close()


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest) -> StorageUnderTest:
    """What every storage must do is tested with each."""
    found: StorageUnderTest = request.getfixturevalue(request.param)
    return found
