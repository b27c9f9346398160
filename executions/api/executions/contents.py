"""What a run printed and left behind: as bytes, as files, as an archive, as events."""

from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from executions import audit, services
from executions.actor import Actor
from executions.api.asynchronous import AsyncViewSet, in_kept_thread
from executions.api.executions import output, schema
from executions.api.executions.archive import ZipResponse
from executions.api.executions.serializers import LeftFilesSerializer
from executions.api.executions.stream import stream
from executions.api.executions.views import find
from executions.models import Execution
from filestore.api.views import contents_answer
from filestore.errors import FileMissing
from filestore.models import StoredFile, StoredFileQuerySet


class ContentsViewSet(AsyncViewSet):
    """Contents are what they are, whatever `Accept` says."""

    http_method_names = ["get", "head"]
    serializer_class = LeftFilesSerializer

    def perform_content_negotiation(
        self,
        request: Request,  # noqa: ARG002 (DRF's signature)
        force: bool = False,  # noqa: ARG002
    ) -> tuple[BaseRenderer, str]:
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type or ""

    def _found(self, request: Request) -> Execution:
        self.initial(request)
        return find(request, self.kwargs["exec_id"])

    @schema.stdout
    async def stdout(self, request: Request) -> HttpResponseBase:
        return await self._output(request, 0)

    @schema.stderr
    async def stderr(self, request: Request) -> HttpResponseBase:
        return await self._output(request, 1)

    async def _output(self, request: Request, number: int) -> HttpResponseBase:
        execution = await in_kept_thread(self._found, request)
        if output.is_unfinished(execution):
            return await output.response_so_far(request, execution, number)
        return await in_kept_thread(output.response, request, execution, number)

    @schema.events
    async def events(self, request: Request) -> HttpResponseBase:
        position = _position(request.headers.get("Last-Event-ID"))
        execution = await in_kept_thread(self._found, request)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(
            stream(execution.pk, execution.exec_id, position),
            content_type="text/event-stream",
            headers=headers,
        )

    @schema.files
    async def files(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._files, request)

    def _files(self, request: Request) -> HttpResponseBase:
        execution = self._found(request)
        prefix = services.output_directory(execution.exec_id)
        files = [
            {
                "path": file.path.removeprefix(prefix),
                "size": file.blob.size,
                "sha256": file.blob.sha256,
            }
            for file in left_by(execution)
        ]
        return Response({"files": files})

    @schema.file
    async def file(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._file, request)

    def _file(self, request: Request) -> HttpResponseBase:
        execution = self._found(request)
        path = f"{services.output_directory(execution.exec_id)}{self.kwargs['path']}"
        stored = left_by(execution).at(path).first() if "\0" not in path else None
        if stored is None:
            raise FileMissing(paths=[self.kwargs["path"][:200]])
        return contents_answer(request, stored)

    @schema.archive
    async def archive(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._archive, request)

    def _archive(self, request: Request) -> HttpResponseBase:
        execution = self._found(request)
        prefix = services.output_directory(execution.exec_id)
        files = list(left_by(execution))
        audit.record(
            Actor.of(request),
            audit.Verb.FILE_DOWNLOADED,
            "executions.execution",
            execution.exec_id,
            owner_id=execution.owner_id,
            details={"files": len(files), "as": "zip"},
        )
        return ZipResponse(files, prefix, f"{execution.exec_id}.zip")


def left_by(execution: Execution) -> StoredFileQuerySet:
    files = StoredFile.objects.filter(owner_id=execution.owner_id)
    left = files.left_by_run(services.output_directory(execution.exec_id))
    return left.select_related("blob").order_by("path")


def _position(given: str | None) -> int:
    """`Last-Event-ID`: bytes of both streams that the client has."""
    if given is None or given == "":
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise ValidationError({"Last-Event-ID": ["Must be the id of an event of this run."]})
    return int(given)
