"""Every route."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from boxer_site import docs
from executions.accounts.urls import LOGIN, LOGOUT
from executions.administration.views import overview

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("executions.api.urls")),
    path("", include("filestore.api.urls")),
    path("api/v1/", include("executions.image_policy.api.urls")),
    path("api/v1/", include("executions.callbacks.api.urls")),
    path("api/v1/", include("executions.api.v1")),
    path("api/v1/", include("executions.quotas.api.urls")),
    path("api/v1/", include("executions.receipts.api.urls")),
    path("openapi.json", docs.JSONDocument.as_view({"get": "retrieve"}), name="openapi-json"),
    path("openapi.yaml", docs.YAMLDocument.as_view({"get": "retrieve"}), name="openapi-yaml"),
    path("swagger", docs.SwaggerPage.as_view(), name="swagger"),
    path("", include("executions.accounts.urls")),
    path("", include("executions.history.urls")),
    path("api/v1/", include("executions.accounts.api.urls")),
    # One way in and out, throttled: the admin's own would be another.
    path("admin/login/", LOGIN),
    path("admin/logout/", LOGOUT),
    path("admin/overview/", admin.site.admin_view(overview), name="admin-overview"),
    path("admin/", admin.site.urls),
    path("redoc", docs.RedocPage.as_view(), name="redoc"),
]

handler400 = "boxer_site.errors.bad_request"
handler403 = "boxer_site.errors.permission_denied"
handler404 = "boxer_site.errors.page_not_found"
handler500 = "boxer_site.errors.server_error"
