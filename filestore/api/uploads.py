"""The fields of an upload, each there once and of its kind, or an error that names it."""

from typing import BinaryIO, cast

from django.http import QueryDict
from rest_framework.request import Request

from filestore.errors import BadUpload
from filestore.paths import clean_path, clean_upload_path


def upload_fields(request: Request) -> tuple[str, BinaryIO]:
    """The clean path and the open file. Raises BadPath, BadUpload, TooLarge, and ParseError."""
    data = request.data  # Parses the body; what goes wrong with that is raised here.
    files = request.FILES.getlist("file")
    # Without a body there is no QueryDict; "file" lists what came under the name, text or file.
    sent = data.getlist("file") if isinstance(data, QueryDict) else []
    if not isinstance(data, QueryDict) or not sent:
        raise BadUpload("is missing", field="file")
    if not files:
        raise BadUpload("must be sent as a file, with a filename", field="file")
    if len(sent) > 1:
        raise BadUpload("is there more than once", field="file")
    texts = data.getlist("path")
    if not all(isinstance(text, str) for text in texts):
        raise BadUpload("must be text, not a file", field="path")
    path = clean_upload_path(_only(texts))
    return path, cast("BinaryIO", files[0].file)


def query_path(request: Request) -> str:
    """The clean path that the query names."""
    return clean_path(_only(request.query_params.getlist("path")))


def _only(values: list[str]) -> str:
    if not values:
        raise BadUpload("is missing", field="path")
    if len(values) > 1:
        raise BadUpload("is there more than once", field="path")
    return values[0]
