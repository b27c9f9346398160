"""Routes below /api/v1/."""

from django.urls import path

from executions.callbacks.api.views import CallbackSecretViewSet, CallbackViewSet

urlpatterns = [
    path(
        "executions/<slug:exec_id>/callbacks/",
        CallbackViewSet.as_view({"get": "list"}),
        name="callbacks",
    ),
    path(
        "callback-secret/",
        CallbackSecretViewSet.as_view({"get": "retrieve", "post": "rotate"}),
        name="callback-secret",
    ),
]
