"""S3 as the storage of contents: what only it can get wrong, and the settings that choose it."""

import io
import json
import os
import subprocess
import sys

import pytest
from botocore.config import Config
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.files.storage import default_storage
from django.test import override_settings

from filestore import services
from filestore.errors import StorageFailed
from filestore.models import Blob, StoredFile
from tests.fixtures_storage import StorageUnderTest, s3_options, storages

S3 = "storages.backends.s3.S3Storage"


@pytest.fixture
def ann(transactional_db: None) -> User:
    return get_user_model().objects.create_user("ann")


def settings_of_a_process(**environment: str) -> subprocess.CompletedProcess[str]:
    """Django's settings as a process with this environment reads them; the last line is JSON."""
    code = (
        "import json; from django.conf import settings; "
        "print(json.dumps(settings.STORAGES['default'], default=lambda value: value.use_threads"
        " if hasattr(value, 'use_threads') else str(value)))"
    )
    kept = {"PATH", "HOME", "BOXER_HOME"}
    given = {name: value for name, value in os.environ.items() if name in kept}
    given |= {"DJANGO_SETTINGS_MODULE": "boxer_site.settings"} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=given, capture_output=True, text=True)


def test_the_environment_chooses_s3() -> None:
    chosen = settings_of_a_process(
        BOXER_STORAGE="s3",
        BOXER_S3_BUCKET="contents",
        BOXER_S3_PREFIX="boxer",
        BOXER_S3_ENDPOINT_URL="http://127.0.0.1:9",
    )
    storage = json.loads(chosen.stdout)
    assert storage["BACKEND"] == S3
    assert storage["OPTIONS"]["bucket_name"] == "contents"
    assert storage["OPTIONS"]["location"] == "boxer"
    assert storage["OPTIONS"]["default_acl"] is None
    # Otherwise what is read back from S3 lies in memory, whole.
    assert 0 < storage["OPTIONS"]["max_memory_size"] <= 1 << 20
    assert storage["OPTIONS"]["transfer_config"] is False  # its use_threads


def test_s3_without_a_bucket_stops_the_start_and_names_the_variable() -> None:
    refused = settings_of_a_process(BOXER_STORAGE="s3")
    assert refused.returncode != 0
    assert "BOXER_S3_BUCKET" in refused.stderr


@pytest.mark.django_db(transaction=True)
def test_objects_lie_below_the_prefix(s3: StorageUnderTest, ann: User) -> None:
    options = s3_options(s3.endpoint, s3.place.name) | {"location": "some/prefix"}
    with override_settings(STORAGES=storages(S3, **options)):
        stored = services.store(owner_id=ann.pk, path="a", source=io.BytesIO(b"content"))
        assert s3.objects() == {f"some/prefix/{stored.blob.name}"}
        with services.open_file(stored_file=stored) as contents:
            assert contents.read() == b"content"
        services.delete(owner_id=ann.pk, path="a")
        assert not s3.objects()


@pytest.mark.django_db(transaction=True)
def test_contents_larger_than_one_part_arrive_whole(s3: StorageUnderTest, ann: User) -> None:
    content = os.urandom(9 << 20)  # boto3 sends from 8 MiB on in parts.
    stored = services.store(owner_id=ann.pk, path="a", source=io.BytesIO(content))
    with services.open_file(stored_file=stored) as contents:
        contents.seek(8 << 20)
        assert contents.read() == content[8 << 20 :]
        contents.seek(0)
        assert contents.read() == content


@pytest.mark.django_db(transaction=True)
def test_a_user_cannot_choose_the_name_of_an_object(s3: StorageUnderTest, ann: User) -> None:
    stored = services.store(owner_id=ann.pk, path="blobs/00/x", source=io.BytesIO(b"content"))
    sha256 = stored.blob.sha256
    assert stored.blob.name.startswith(f"blobs/{sha256[:2]}/{sha256}-")
    assert s3.objects() == {stored.blob.name}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "wrong", [{"bucket_name": "no-such-bucket"}, {"endpoint_url": "http://127.0.0.1:9"}]
)
def test_a_wrong_bucket_or_address_stores_nothing_and_tells_the_log_why(
    s3: StorageUnderTest, ann: User, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, object] = s3_options(s3.endpoint, s3.place.name) | wrong
    options["client_config"] = quick_to_give_up()
    with override_settings(STORAGES=storages(S3, **options)):
        with pytest.raises(StorageFailed):
            services.store(owner_id=ann.pk, path="a", source=io.BytesIO(b"content"))
        default_storage.connection.meta.client.close()  # type: ignore[attr-defined]
    assert "can't be written" in caplog.text
    assert not StoredFile.objects.exists()
    assert not Blob.objects.exclude(state="doomed").exists()


def quick_to_give_up() -> Config:
    return Config(connect_timeout=1, retries={"max_attempts": 0})  # type: ignore[no-untyped-call]
