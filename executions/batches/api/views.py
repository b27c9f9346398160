"""Many runs in one request: submit, list, look, cancel, results as they come."""

from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from executions import audit
from executions.actor import Actor
from executions.api.asynchronous import AsyncViewSet, in_thread
from executions.batches import services
from executions.batches.api import schema
from executions.batches.api.results import lines
from executions.batches.api.serializers import BatchRequestSerializer, BatchSerializer
from executions.batches.judging import judge
from executions.batches.models import Batch, new_batch_id
from executions.batches.progress import counts, told
from executions.errors import NoExecution
from executions.idempotency.api.header import once

PAGE = 50
LONGEST_WAIT_SECS = 3600


def visible(request: Request) -> QuerySet[Batch]:
    return Batch.objects.visible_to(request.user).select_related("owner", "entrypoint")


def find(request: Request, batch_id: str) -> Batch:
    """One that the user may see. Raises NoExecution."""
    batch = visible(request).filter(batch_id=batch_id).first() if "\0" not in batch_id else None
    if batch is None:
        raise NoExecution(f"there is no batch {batch_id[:100]!r}")
    if batch.owner_id != request.user.pk:
        audit.record_look(
            Actor.of(request),
            audit.Verb.BATCH_VIEWED,
            "batches.batch",
            batch.batch_id,
            owner_id=batch.owner_id,
            details={"path": request.path},
        )
    return batch


class BatchesViewSet(AsyncViewSet):
    """Batches of a user. None of it is done on the threads that runs are submitted by."""

    serializer_class = BatchSerializer

    @schema.create
    async def create(self, request: Request) -> HttpResponseBase:
        return await in_thread(self._create, request)

    def _create(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        made = once(self, request, partial(self._submit, request))
        batch = visible(request).filter(batch_id=made.id).first()
        if batch is None:
            raise made.gone()
        headers = {"Location": f"/api/v1/batches/{batch.batch_id}/"}
        return Response(told(batch, counts([batch])[batch.pk]), status=202, headers=headers)

    def _submit(self, request: Request) -> str:
        batch_id = new_batch_id()
        asked = BatchRequestSerializer(data=request.data).batch_request(batch_id)
        services.submit(actor=Actor.of(request), request=asked)
        return batch_id

    @schema.listing
    async def page(self, request: Request) -> HttpResponseBase:
        return await in_thread(self._page, request)

    def _page(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        rows = visible(request).order_by("-pk")
        if (cursor := request.query_params.get("cursor")) is not None:
            last = rows.filter(batch_id=cursor).first() if "\0" not in cursor else None
            if last is None:
                raise ValidationError({"cursor": ["Must be what `next` of another page says."]})
            rows = rows.filter(pk__lt=last.pk)
        found = list(rows[: PAGE + 1])
        shown = found[:PAGE]
        if any(batch.owner_id != request.user.pk for batch in shown):
            audit.record_look(
                Actor.of(request),
                audit.Verb.BATCHES_LISTED,
                "auth.user",
                request.user.pk,
                details={"query": request.query_params.dict()},
            )
        counted = counts(shown)
        return Response(
            {
                "results": [told(batch, counted[batch.pk]) for batch in shown],
                "next": shown[-1].batch_id if len(found) > PAGE else None,
            }
        )

    @schema.detail
    async def retrieve(self, request: Request) -> HttpResponseBase:
        return await in_thread(self._retrieve, request)

    def _retrieve(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        batch = find(request, self.kwargs["batch_id"])
        judge(batch)
        return Response(told(batch, counts([batch])[batch.pk]))

    @schema.cancel
    async def cancel(self, request: Request) -> HttpResponseBase:
        return await in_thread(self._cancel, request)

    def _cancel(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        batch = find(request, self.kwargs["batch_id"])
        user: Any = request.user
        if batch.owner_id != user.pk and not user.has_perm("executions.manage_all"):
            raise PermissionDenied
        services.cancel(actor=Actor.of(request), batch=batch)
        batch.refresh_from_db()
        return Response(told(batch, counts([batch])[batch.pk]), status=202)


class ResultsViewSet(AsyncViewSet):
    """Lines are what they are, whatever `Accept` says."""

    http_method_names = ["get"]
    serializer_class = BatchSerializer

    def perform_content_negotiation(
        self,
        request: Request,  # noqa: ARG002 (DRF's signature)
        force: bool = False,  # noqa: ARG002
    ) -> tuple[BaseRenderer, str]:
        renderer = self.get_renderers()[0]
        return renderer, renderer.media_type or ""

    @schema.results
    async def results(self, request: Request) -> HttpResponseBase:
        wait = _wait(request)
        batch = await in_thread(self._found, request)
        return StreamingHttpResponse(
            lines(batch.pk, wait),
            content_type="application/jsonl",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def _found(self, request: Request) -> Batch:
        self.initial(request)
        return find(request, self.kwargs["batch_id"])


def _wait(request: Request) -> float | None:
    given = request.query_params.get("wait")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 5):
        raise ValidationError({"wait": ["Must be a whole number of seconds."]})
    if int(given) > LONGEST_WAIT_SECS:
        raise ValidationError({"wait": [f"Must be at most {LONGEST_WAIT_SECS}."]})
    return float(given)
