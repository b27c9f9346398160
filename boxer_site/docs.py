"""The OpenAPI document, made once per process, and the two pages that show it."""

from functools import cache
from typing import Any

from csp.decorators import csp_replace
from django.utils.decorators import method_decorator
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2, OpenApiYamlRenderer2
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from boxer_site.page_policy import REDOC


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
    """Nothing on the page may come from another host, and nothing in it is run inline."""

    authentication_classes = []
    permission_classes = [AllowAny]
    url_name = "openapi-json"


class SwaggerPage(_Page, SpectacularSwaggerSplitView):
    """The page, and with ?script the script that it starts with."""

    template_name = "swagger.html"


@method_decorator(csp_replace(REDOC), name="dispatch")
class RedocPage(_Page, SpectacularRedocView):
    """Redoc's bundle shows its maker's logo from the maker's host: no policy lets it in."""

    template_name = "redoc.html"
