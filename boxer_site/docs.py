"""The OpenAPI document, made once per process, and the two pages that show it."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer2
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

# Redoc's bundle shows its maker's logo from the maker's host; with this no browser asks for it.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def document() -> dict[str, Any]:
    """What both formats show; the routes don't change while the process lives."""
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    schema: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return schema


class _Document(ViewSet):
    authentication_classes = []
    permission_classes = [AllowAny]

    @extend_schema(exclude=True)
    def retrieve(self, request: Request) -> Response:  # noqa: ARG002
        return Response(document())


class JSONDocument(_Document):
    renderer_classes: list[type[BaseRenderer]] = [OpenApiJsonRenderer2]


class YAMLDocument(_Document):
    renderer_classes: list[type[BaseRenderer]] = [OpenApiYamlRenderer2]


class _Page(APIView):
    """Nothing on the page may come from another host."""

    authentication_classes = []
    permission_classes = [AllowAny]
    url_name = "openapi-json"

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        response["Content-Security-Policy"] = PAGE_POLICY
        return super().finalize_response(request, response, *args, **kwargs)


class SwaggerPage(_Page, SpectacularSwaggerView):
    pass


class RedocPage(_Page, SpectacularRedocView):
    template_name = "redoc.html"
