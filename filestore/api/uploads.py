"""The fields of an upload, each there once and of its kind, or an error that names it."""

from typing import BinaryIO, cast

from django.http import QueryDict
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from filestore.paths import clean_path, clean_upload_path


def upload_fields(request: Request) -> tuple[str, BinaryIO]:
    """The clean path and the open file. Raises BadPath, TooLarge, ValidationError, ParseError."""
    data = request.data  # Parses the body; what goes wrong with that is raised here.
    files = request.FILES.getlist("file")
    # Without a body there is no QueryDict; "file" lists what came under the name, text or file.
    sent = data.getlist("file") if isinstance(data, QueryDict) else []
    if not isinstance(data, QueryDict) or not sent:
        raise ValidationError({"file": ["is missing"]})
    if not files:
        raise ValidationError({"file": ["must be sent as a file, with a filename"]})
    if len(sent) > 1:
        raise ValidationError({"file": ["is there more than once"]})
    texts = data.getlist("path")
    if not all(isinstance(text, str) for text in texts):
        raise ValidationError({"path": ["must be text, not a file"]})
    path = clean_upload_path(_only(texts))
    return path, cast("BinaryIO", files[0].file)


def query_path(request: Request) -> str:
    """The clean path that the query names."""
    return clean_path(_only(request.query_params.getlist("path")))


def _only(values: list[str]) -> str:
    if not values:
        raise ValidationError({"path": ["is missing"]})
    if len(values) > 1:
        raise ValidationError({"path": ["is there more than once"]})
    return values[0]
