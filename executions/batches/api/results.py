"""The results of a batch as JSON lines, each when its run has ended."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from django.db import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

from executions.api.asynchronous import in_thread
from executions.batches.judging import judge
from executions.batches.models import Batch
from executions.batches.progress import results

logger = logging.getLogger(__name__)

LOOK_SECS = 0.5
"""Hundreds of runs may end in a second: one look for all of them, however many there are."""


async def lines(pk: int, wait: float | None) -> AsyncIterator[bytes]:
    """Until all have ended, or `wait` seconds have passed."""
    now = asyncio.get_running_loop().time
    until = None if wait is None else now() + wait
    sent: set[int] = set()
    while True:
        try:
            found, all_told = await in_thread(_look, pk, sent)
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            logger.warning("results of batch %d: %s", pk, error)
            found, all_told = [], False
        for line in found:
            yield json.dumps(line).encode() + b"\n"
        if all_told or (not found and until is not None and now() >= until):
            return
        if not found:
            await asyncio.sleep(LOOK_SECS)


def _look(pk: int, sent: set[int]) -> tuple[list[dict[str, Any]], bool]:
    batch = Batch.objects.filter(pk=pk).first()
    if batch is None:
        return [], True
    judge(batch)
    return results(batch, sent)
