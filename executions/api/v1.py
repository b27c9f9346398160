"""Routes below /api/v1/."""

from django.urls import include, path

urlpatterns = [
    path("executions/", include("executions.api.executions.urls")),
    path("batches/", include("executions.batches.api.urls")),
]
