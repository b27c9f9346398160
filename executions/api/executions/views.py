"""Runs that outlive a request: submit, list, look, cancel, delete, repeat."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from executions import audit, notifications, services
from executions.actor import Actor
from executions.api.asynchronous import AsyncViewSet, in_kept_thread
from executions.api.executions import schema
from executions.api.executions.filters import Page
from executions.api.executions.filters import page as page_of
from executions.api.executions.serializers import (
    ExecutionRequestSerializer,
    ExecutionSerializer,
    told,
)
from executions.errors import NoExecution
from executions.idempotency.api.header import once
from executions.idempotency.services import Made
from executions.models import UNFINISHED, Execution, new_exec_id

LONGEST_WAIT_SECS = 30


def listed(request: Request | HttpRequest, asked: QueryDict) -> Page:
    """A page of those that the user may see. Raises ValidationError naming the parameter."""
    found = page_of(asked, Execution.objects.visible_to(request.user))
    if any(execution.owner_id != request.user.pk for execution in found.results):
        audit.record_look(
            Actor.of(request),
            audit.Verb.RUNS_LISTED,
            "auth.user",
            request.user.pk,
            details={"query": asked.dict()},
        )
    return found


def visible(request: Request | HttpRequest) -> QuerySet[Execution]:
    return Execution.objects.visible_to(request.user).select_related("owner", "rerun_of")


def find(request: Request | HttpRequest, exec_id: str) -> Execution:
    """One that the user may see. Raises NoExecution."""
    execution = visible(request).filter(exec_id=exec_id).first()
    if execution is None:
        raise NoExecution(f"there is no execution {exec_id[:100]!r}")
    if execution.owner_id != request.user.pk:
        audit.record_look(
            Actor.of(request),
            audit.Verb.RUN_VIEWED,
            "executions.execution",
            execution.exec_id,
            owner_id=execution.owner_id,
            details={"path": request.path},
        )
    return execution


def find_own(request: Request | HttpRequest, exec_id: str) -> Execution:
    """One that the user may do something to. Raises NoExecution, PermissionDenied."""
    user: Any = request.user
    if user.has_perm("executions.manage_all"):
        rows = Execution.objects.select_related("owner", "rerun_of").filter(exec_id=exec_id)
        if (execution := rows.first()) is not None:
            return execution
    execution = find(request, exec_id)
    if execution.owner_id != user.pk:
        raise PermissionDenied
    return execution


class ExecutionsViewSet(AsyncViewSet):
    """Runs of a user, whether they wait, run or have ended."""

    http_method_names = ["get", "head", "post", "delete"]
    serializer_class = ExecutionSerializer

    @schema.create
    async def create(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._create, request)

    def _create(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        return _accepted(once(self, request, lambda: self._submit(request)))

    def _submit(self, request: Request) -> str:
        exec_id = new_exec_id()
        asked = ExecutionRequestSerializer(data=request.data).run_request(exec_id)
        services.submit(actor=Actor.of(request), request=asked)
        return exec_id

    @schema.listing
    async def page(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._page, request)

    def _page(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        found = listed(request, request.query_params)
        return Response({"results": _all_told(found.results), "next": found.next})

    @schema.detail
    async def retrieve(self, request: Request) -> HttpResponseBase:
        exec_id: str = self.kwargs["exec_id"]
        wait = _wait(request)
        if not wait:
            return Response(told(await in_kept_thread(self._found, request)))
        async with notifications.waiting_for(exec_id) as ended:
            now = asyncio.get_running_loop().time
            until = now() + wait
            execution = await in_kept_thread(self._found, request)
            while execution.status in UNFINISHED and await ended.wait(max(0.0, until - now())):
                execution = await in_kept_thread(find, request, exec_id)
        return Response(told(execution))

    def _found(self, request: Request) -> Execution:
        self.initial(request)
        return find(request, self.kwargs["exec_id"])

    @schema.cancel
    async def cancel(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._cancel, request)

    def _cancel(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        execution = find_own(request, self.kwargs["exec_id"])
        services.cancel(actor=Actor.of(request), execution=execution)
        execution.refresh_from_db()
        return Response(told(execution), status=202)

    @schema.delete
    async def destroy(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._destroy, request)

    def _destroy(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        execution = find_own(request, self.kwargs["exec_id"])
        services.remove(actor=Actor.of(request), execution=execution)
        return HttpResponse(status=204)

    @schema.rerun
    async def rerun(self, request: Request) -> HttpResponseBase:
        return await in_kept_thread(self._rerun, request)

    def _rerun(self, request: Request) -> HttpResponseBase:
        self.initial(request)
        execution = find_own(request, self.kwargs["exec_id"])
        repeat = partial(services.rerun, actor=Actor.of(request), execution=execution)
        return _accepted(once(self, request, repeat))


def _accepted(made: Made) -> HttpResponseBase:
    rows = Execution.objects.select_related("owner", "rerun_of")
    execution = rows.filter(exec_id=made.id).first()
    if execution is None:
        raise made.gone()
    location = f"/api/v1/executions/{made.id}/"
    return Response(told(execution), status=202, headers={"Location": location})


def _all_told(executions: Sequence[Execution]) -> list[dict[str, Any]]:
    return [told(execution) for execution in executions]


def _wait(request: Request) -> int:
    given = request.query_params.get("wait")
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 4):
        raise ValidationError({"wait": ["Must be a whole number of seconds."]})
    if int(given) > LONGEST_WAIT_SECS:
        raise ValidationError({"wait": [f"Must be at most {LONGEST_WAIT_SECS}."]})
    return int(given)
