"""Routes below /api/v1/."""

from django.urls import path, register_converter
from django.urls.converters import IntConverter

from executions.image_policy.api.views import ImageViewSet, PrefetchViewSet, RuleViewSet


class RowConverter(IntConverter):
    """A number that a row can have."""

    regex = "[0-9]{1,18}"


register_converter(RowConverter, "row")

urlpatterns = [
    path("images/", ImageViewSet.as_view({"get": "index"}), name="images"),
    path(
        "images/prefetch/",
        PrefetchViewSet.as_view({"get": "index", "post": "create"}),
        name="image-prefetches",
    ),
    path(
        "images/prefetch/<uuid:prefetch_id>/",
        PrefetchViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="image-prefetch",
    ),
    path(
        "image-rules/",
        RuleViewSet.as_view({"get": "index", "post": "create"}),
        name="image-rules",
    ),
    path(
        "image-rules/<row:rule_id>/",
        RuleViewSet.as_view({"delete": "destroy"}),
        name="image-rule",
    ),
]
