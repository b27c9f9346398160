"""The file store in the admin: to read, and to delete through the service."""

import io

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import path

from filestore import services
from filestore.models import Blob, StoredFile
from tests.fixtures_storage import StorageUnderTest

urlpatterns = [path("admin/", admin.site.urls)]

pytestmark = [
    pytest.mark.urls(__name__),
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:No directory at"),
]


@pytest.fixture
def client(transactional_db: None, disk: StorageUnderTest) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    return client


@pytest.fixture
def stored(client: Client) -> StoredFile:
    owner = get_user_model().objects.create_user("ann")
    return services.store(owner_id=owner.pk, path="a/<b>.txt", source=io.BytesIO(b"content"))


def test_files_are_listed_and_found_by_the_beginning_of_their_path(
    client: Client, stored: StoredFile
) -> None:
    for query in ("", "?q=a/", "?q=ann"):
        page = client.get(f"/admin/filestore/storedfile/{query}").content.decode()
        assert "a/&lt;b&gt;.txt" in page
        assert "<b>.txt" not in page
    assert "&lt;b&gt;" not in client.get("/admin/filestore/storedfile/?q=b").content.decode()


def test_a_list_takes_a_bounded_number_of_queries(
    client: Client, stored: StoredFile, django_assert_max_num_queries: pytest.FixtureRequest
) -> None:
    for number in range(20):
        source = io.BytesIO(str(number).encode())
        services.store(owner_id=stored.owner_id, path=f"n/{number}", source=source)
    with django_assert_max_num_queries(6):  # type: ignore[operator]
        client.get("/admin/filestore/storedfile/")


def test_a_blob_can_be_looked_at_and_not_touched(client: Client, stored: StoredFile) -> None:
    address = f"/admin/filestore/blob/{stored.blob_id}"
    assert stored.blob.sha256 in client.get(f"{address}/change/").content.decode()
    assert stored.blob.sha256 in client.get("/admin/filestore/blob/?state=ready").content.decode()
    assert client.post(f"{address}/change/", {"name": "x"}).status_code == 403
    assert client.post(f"{address}/delete/", {"post": "yes"}).status_code == 403
    assert client.get("/admin/filestore/blob/add/").status_code == 403
    assert Blob.objects.get().name == stored.blob.name


@pytest.mark.parametrize("by", ["page", "action"])
def test_deleting_a_file_takes_its_contents_along(
    client: Client, stored: StoredFile, disk: StorageUnderTest, by: str
) -> None:
    if by == "page":
        client.post(f"/admin/filestore/storedfile/{stored.pk}/delete/", {"post": "yes"})
    else:
        chosen = {"action": "delete_selected", "_selected_action": [stored.pk], "post": "yes"}
        client.post("/admin/filestore/storedfile/", chosen)
    assert not StoredFile.objects.exists()
    assert not Blob.objects.exists()
    assert not disk.objects()


def test_what_a_run_left_is_found_by_its_directory(client: Client, stored: StoredFile) -> None:
    directory = f"output/boxer-{'a' * 20}/"
    source = io.BytesIO(b"left")
    services.store(owner_id=stored.owner_id, path=f"{directory}x.txt", source=source)
    page = client.get("/admin/filestore/storedfile/", {"q": directory}).content.decode()
    assert f"{directory}x.txt" in page
    assert "a/&lt;b&gt;.txt" not in page
