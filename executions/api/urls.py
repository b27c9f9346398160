"""Routes of the API at the root, without trailing slashes."""

from django.urls import path

from executions.api.health import SystemViewSet
from executions.api.views import RunViewSet

urlpatterns = [
    path("run", RunViewSet.as_view({"post": "run"}), name="run"),
    path("healthz", SystemViewSet.as_view({"get": "health"}), name="healthz"),
    path("readyz", SystemViewSet.as_view({"get": "readiness"}), name="readyz"),
]
