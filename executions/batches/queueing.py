"""From the end of a batch's entrypoint to its cases: in one transaction, whoever is killed."""

import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from executions import services
from executions.actor import Actor
from executions.batches.models import Batch, Case, Phase
from executions.batches.requests import unpacked
from executions.errors import BoxerError, InputRefused, InputsGone, ServiceBusy
from executions.models import UNFINISHED, Execution, ExecutionInput, Outcome
from executions.submission import RunRequest
from filestore import services as filestore
from filestore.blobs import share_lock
from filestore.models import Blob, StoredFile

logger = logging.getLogger(__name__)

TRY_AGAIN = timedelta(seconds=5)
"""Where there is no room for the cases just now."""


def queue_case(*, actor: Actor, case: Case, run: RunRequest) -> Execution:
    services.submit(actor=actor, request=run)
    execution = Execution.objects.only("pk").get(exec_id=run.exec_id)
    Case.objects.filter(pk=case.pk).update(execution=execution, request=None)
    return execution


def advance() -> int:
    """Queue, or skip, the cases of batches whose entrypoint has ended; how many batches.

    Each in a transaction that holds its row: of two keepers one does it, and one that is killed has
    done nothing.
    """
    advanced = 0
    for pk in _ready().values_list("pk", flat=True)[:100]:
        with transaction.atomic():
            batch = _ready().select_for_update(skip_locked=True, of=("self",)).filter(pk=pk).first()
            if batch is not None:
                _advance(batch)
                advanced += 1
    return advanced


def _ready() -> QuerySet[Batch]:
    due = Q(not_before=None) | Q(not_before__lte=timezone.now())
    building = Batch.objects.filter(due, phase=Phase.BUILDING)
    return building.exclude(entrypoint__status__in=UNFINISHED).order_by("pk")


def _advance(batch: Batch) -> None:
    if reason := _failure(batch.entrypoint):
        _skip(batch, reason)
        return
    try:
        with transaction.atomic():
            _queue_cases(batch)
    except ServiceBusy as error:
        logger.info("%s waits: %s", batch.batch_id, error)
        Batch.objects.filter(pk=batch.pk).update(
            not_before=timezone.now() + TRY_AGAIN, error=f"waits to be queued: {error}"
        )
    except BoxerError as error:
        _skip(batch, error.message)


def _failure(entrypoint: Execution | None) -> str:
    """Why the cases can't start; empty when they can."""
    if entrypoint is None:
        return "the entrypoint was removed"
    if entrypoint.outcome == Outcome.EXITED and entrypoint.exit_code == 0:
        return ""
    what = entrypoint.outcome or entrypoint.status
    code = f" with {entrypoint.exit_code}" if entrypoint.outcome == Outcome.EXITED else ""
    return f"the entrypoint {entrypoint.exec_id} didn't succeed: {what}{code}"


def _skip(batch: Batch, reason: str) -> None:
    Batch.objects.filter(pk=batch.pk).update(phase=Phase.SKIPPED, error=reason)
    let_go(batch)


def let_go(batch: Batch) -> None:
    """Nothing waits any more: what was kept for it goes."""
    blobs = list(batch.held.values_list("blob_id", flat=True).distinct())
    batch.held.all().delete()
    batch.cases.update(request=None)
    transaction.on_commit(partial(filestore.discard_blobs, blob_ids=blobs), robust=True)


def _queue_cases(batch: Batch) -> None:
    actor = Actor(**batch.asked_by)
    given = {held.path: held.blob for held in batch.held.select_related("blob")}
    built = _built(batch)
    for case in batch.cases.order_by("number"):
        run = unpacked(bytes(case.request or b""))
        _queue_built(actor, case, run, {path: given[path] for path in run.files}, built)
    Batch.objects.filter(pk=batch.pk).update(phase=Phase.QUEUED, error="", not_before=None)
    let_go(batch)


def _built(batch: Batch) -> dict[str, Blob]:
    """What the entrypoint left in /output, by the path at which the cases find it."""
    entrypoint = batch.entrypoint
    if entrypoint is None:
        return {}
    prefix = services.output_directory(entrypoint.exec_id)
    left = StoredFile.objects.filter(owner_id=batch.owner_id).left_by_run(prefix)
    found = {
        f"{batch.build_dir}/{file.path.removeprefix(prefix)}": file.blob
        for file in left.select_related("blob")
    }
    if len(found) > settings.BOXER_FILES_LIMIT:
        raise InputRefused(
            f"the entrypoint left {len(found)} files; a run takes {settings.BOXER_FILES_LIMIT}"
        )
    for blob_id in sorted({blob.pk for blob in found.values()}):
        if not share_lock(blob_id=blob_id):
            raise InputsGone("what the entrypoint left is gone")
    return found


def _queue_built(
    actor: Actor, case: Case, run: RunRequest, given: dict[str, Blob], built: dict[str, Blob]
) -> None:
    execution = queue_case(actor=actor, case=case, run=replace(run, files=()))
    Execution.objects.filter(pk=execution.pk).update(files=[*given, *built])
    ExecutionInput.objects.bulk_create(
        ExecutionInput(
            execution_id=execution.pk,
            path=path,
            sha256=blob.sha256,
            size=blob.size,
            blob=blob,
            built=path in built,
        )
        for path, blob in (given | built).items()
    )
