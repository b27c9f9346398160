"""The file store's route, without a trailing slash."""

from django.urls import path

from filestore.api.views import FilesViewSet

urlpatterns = [
    path("files", FilesViewSet.as_view({"get": "download", "post": "upload"}), name="files"),
]
