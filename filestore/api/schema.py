"""How the file store's operations read in the OpenAPI document."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)
from rest_framework import serializers

from filestore.api.error_shape import ErrorSerializer
from filestore.paths import MAX_BYTES

BINARY = "application/octet-stream"


class UploadSerializer(serializers.Serializer[Any]):
    """An upload, as the document shows it; filestore/api/uploads.py is what checks it."""

    file = serializers.FileField(allow_empty_file=True, help_text="File content")
    path = serializers.CharField(
        max_length=MAX_BYTES, help_text="Relative destination path (e.g. workspace/script.py)"
    )


class StoredPathSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="The path as it was cleaned and stored.")


def _error(description: str, error: str, code: str) -> OpenApiResponse:
    example = OpenApiExample(description, value={"error": error, "code": code})
    return OpenApiResponse(ErrorSerializer, description, examples=[example])


def _header(name: str, description: str, statuses: list[str]) -> OpenApiParameter:
    return OpenApiParameter(
        name, str, OpenApiParameter.HEADER, description=description, response=statuses
    )


def _asked(name: str, description: str) -> OpenApiParameter:
    return OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description)


def _contents(description: str, value: str) -> OpenApiResponse:
    example = OpenApiExample(description, value=value, media_type=BINARY)
    return OpenApiResponse(OpenApiTypes.BINARY, description, examples=[example])


_STORAGE_FAILED = _error(
    "The storage can't be reached; Retry-After says when to try again",
    "the storage didn't take the contents",
    "storage_failed",
)

upload_operation = extend_schema(
    operation_id="uploadFile",
    tags=["files"],
    summary="Upload a file to the file store",
    description=(
        "Multipart upload. The stored file can be referenced by its path in POST /run, where it is "
        "bind-mounted read-only at /{path} inside the container. A file that is there already "
        "is replaced in one step."
    ),
    request={"multipart/form-data": UploadSerializer},
    responses={
        200: OpenApiResponse(
            StoredPathSerializer,
            "Stored",
            examples=[OpenApiExample("Stored", value={"path": "workspace/script.py"})],
        ),
        400: _error(
            "A field is missing or doubled, or the path is not a safe relative one",
            "path: must not hold a '..' component",
            "invalid_path",
        ),
        413: _error(
            "The file is too large, or your quota has no room for it",
            "file: larger than 10485760 bytes",
            "too_large",
        ),
        415: _error(
            "Not multipart/form-data",
            'Unsupported media type "application/json" in request.',
            "unsupported_media_type",
        ),
        503: _STORAGE_FAILED,
    },
)

download_operation = extend_schema(
    operation_id="downloadFile",
    tags=["files"],
    summary="Download a file from the file store",
    description=(
        "Download any file by its relative path. To retrieve output files written by a container "
        "to /output/, use the path pattern output/{exec_id}/{filename}."
    ),
    parameters=[
        OpenApiParameter(
            "path",
            {"type": "string", "minLength": 1, "maxLength": MAX_BYTES},
            required=True,
            description="Relative file path (e.g. output/boxer-abc123/result.json)",
        ),
        _asked("Range", "One range of bytes, for example bytes=0-1023."),
        _asked("If-Range", "The ETag for which Range is meant."),
        _asked("If-None-Match", "ETags that the client has."),
        _header("ETag", "The sha256 of the contents.", ["200", "206", "304"]),
        _header("Content-Range", "Which bytes of how many.", ["206", "416"]),
        _header("Content-Disposition", "attachment, and the file's name.", ["200", "206"]),
    ],
    responses={
        (200, BINARY): _contents("The contents", "hello world\n"),
        (206, BINARY): _contents("The range that was asked for", "hello"),
        304: OpenApiResponse(description="The client has these contents already"),
        400: _error("The path is missing or bad", "path: is missing", "invalid"),
        404: _error("There is no such file", "no such file: a.txt", "not_found"),
        416: _error(
            "The range lies outside of the contents",
            "Range: the file has 12 bytes",
            "range_not_satisfiable",
        ),
        503: _STORAGE_FAILED,
    },
)
