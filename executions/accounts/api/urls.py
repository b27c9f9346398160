"""Routes of tokens, beneath /api/v1/."""

from django.urls import path

from executions.accounts.api.views import TokenViewSet

urlpatterns = [
    path("tokens/", TokenViewSet.as_view({"get": "list", "post": "create"}), name="tokens"),
    path("tokens/<int:token_id>/", TokenViewSet.as_view({"delete": "destroy"}), name="token"),
]
