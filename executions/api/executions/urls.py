"""Routes below /api/v1/executions/."""

from django.urls import path

from executions.api.executions.contents import ContentsViewSet
from executions.api.executions.views import ExecutionsViewSet

_ONE = "<str:exec_id>/"

urlpatterns = [
    path("", ExecutionsViewSet.as_view({"get": "page", "post": "create"}), name="executions"),
    path(
        _ONE,
        ExecutionsViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="execution",
    ),
    path(f"{_ONE}cancel/", ExecutionsViewSet.as_view({"post": "cancel"}), name="cancel"),
    path(f"{_ONE}rerun/", ExecutionsViewSet.as_view({"post": "rerun"}), name="rerun"),
    path(f"{_ONE}stdout/", ContentsViewSet.as_view({"get": "stdout"}), name="stdout"),
    path(f"{_ONE}stderr/", ContentsViewSet.as_view({"get": "stderr"}), name="stderr"),
    path(f"{_ONE}events/", ContentsViewSet.as_view({"get": "events"}), name="events"),
    path(f"{_ONE}files/", ContentsViewSet.as_view({"get": "files"}), name="left-files"),
    path(f"{_ONE}files.zip", ContentsViewSet.as_view({"get": "archive"}), name="left-archive"),
    path(f"{_ONE}files/<path:path>", ContentsViewSet.as_view({"get": "file"}), name="left-file"),
]
