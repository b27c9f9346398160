"""Routes below /api/v1/batches/."""

from django.urls import path

from executions.batches.api.views import BatchesViewSet, ResultsViewSet

_ONE = "<str:batch_id>/"

urlpatterns = [
    path("", BatchesViewSet.as_view({"get": "page", "post": "create"}), name="batches"),
    path(_ONE, BatchesViewSet.as_view({"get": "retrieve"}), name="batch"),
    path(f"{_ONE}cancel/", BatchesViewSet.as_view({"post": "cancel"}), name="batch-cancel"),
    path(f"{_ONE}results/", ResultsViewSet.as_view({"get": "results"}), name="batch-results"),
]
