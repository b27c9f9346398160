"""POST /run: write the run down, wait to be told that it ended, answer."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http.response import HttpResponseBase, JsonResponse
from psycopg_pool import PoolTimeout
from rest_framework.request import Request

from executions import notifications, services
from executions.actor import Actor
from executions.api import schema
from executions.api.answers import answer
from executions.api.asynchronous import AsyncViewSet, in_kept_thread
from executions.api.serializers import RunRequestSerializer
from executions.ends import end_of
from executions.errors import ServiceBusy, StillQueued
from executions.idempotency.api.header import once
from executions.idempotency.services import Made
from executions.models import Execution, new_exec_id

logger = logging.getLogger(__name__)

AROUND_SECS = 60
"""Booting, collecting and storing, beyond the waits that have bounds of their own."""
LOOK_AGAIN_SECS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Pauses between looks while the database is away: a PostgreSQL that died is back in seconds."""


class RunViewSet(AsyncViewSet):
    """Runs a command of any container image inside gVisor.

    While a run is waited for, its request is a coroutine: it has no database connection, and its
    thread sleeps. A client that hangs up cancels the coroutine; the run goes on without it.
    """

    serializer_class = RunRequestSerializer

    @schema.run
    async def run(self, request: Request) -> HttpResponseBase:
        exec_id = new_exec_id()
        # Registered before the row is committed: no end of the run can be missed.
        async with notifications.waiting_for(exec_id) as ended:
            made = await in_kept_thread(self._submit, request, exec_id)
            if not made.replayed:
                return await self._answer(request, exec_id, ended)
        async with notifications.waiting_for(made.id) as ended:
            ended.wake()  # it may have ended long ago
            return await self._answer(request, made.id, ended)

    def _submit(self, request: Request, exec_id: str) -> Made:
        """Everything up to the commit."""
        self.initial(request)

        def submit() -> str:
            asked = RunRequestSerializer(data=request.data).run_request(exec_id)
            services.submit(actor=Actor.of(request), request=asked)
            self._wall_clock_secs = asked.limits.wall_clock_secs
            return exec_id

        made = once(self, request, submit)
        if made.replayed:
            execution = Execution.objects.filter(exec_id=made.id).first()
            if execution is None:
                raise made.gone()
            self._wall_clock_secs = execution.wall_clock_secs
        return made

    def _longest(self) -> float:
        """Seconds that the run may take until it must have ended."""
        pulling: int = settings.BOXER_PULL_TIMEOUT_SECS
        queued: int = settings.BOXER_QUEUE_WAIT_SECS
        return queued + pulling + self._wall_clock_secs + AROUND_SECS

    async def _answer(
        self, request: Request, exec_id: str, ended: notifications.Ended
    ) -> HttpResponseBase:
        """Look at the row whenever there is reason to, never on a timer."""
        now = asyncio.get_running_loop().time
        begun = now()
        longest = self._longest()
        for until in (begun + settings.BOXER_QUEUE_WAIT_SECS, begun + longest):
            while await ended.wait(max(0.0, until - now())):
                if response := await _patiently(self._look, request, exec_id):
                    return response
            if response := await _patiently(self._take_back_or_look, request, exec_id):
                return response
        raise ServiceBusy(f"no answer within {longest:.0f} s; the run goes on", exec_id=exec_id)

    def _look(self, request: Request, exec_id: str) -> JsonResponse | None:
        """The answer when the run has ended, None when it hasn't."""
        owner_id = cast(int, request.user.pk)
        ended = end_of(exec_id=exec_id, owner_id=owner_id)
        return answer(ended) if ended else None

    def _take_back_or_look(self, request: Request, exec_id: str) -> JsonResponse | None:
        """Nobody waits for ever: a run that no worker has taken by now is withdrawn."""
        if services.withdraw(exec_id=exec_id):
            waited = settings.BOXER_QUEUE_WAIT_SECS
            raise StillQueued(f"no worker was free within {waited} s", exec_id=exec_id)
        return self._look(request, exec_id)


async def _patiently(
    look: Callable[[Request, str], JsonResponse | None], request: Request, exec_id: str
) -> JsonResponse | None:
    """The run goes on without the database for a while, so whoever waits for it does too."""
    for pause in LOOK_AGAIN_SECS:
        try:
            return await in_kept_thread(look, request, exec_id)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            logger.warning("looking for the end of %s: %s", exec_id, error)
            await asyncio.sleep(pause)
    raise ServiceBusy("the database can't be reached; the run goes on", exec_id=exec_id)
