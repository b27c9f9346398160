"""Asks for batches and cancels them."""

from dataclasses import asdict

from django.db import transaction
from django.db.models import Q

from executions import audit, services
from executions.actor import Actor
from executions.batches.models import Batch, Case, HeldInput, Phase
from executions.batches.queueing import let_go, queue_case
from executions.batches.requests import BatchRequest, packed
from executions.errors import HasEnded, InputNotFound
from executions.models import UNFINISHED, Execution
from filestore import services as filestore
from filestore.errors import FileMissing


@transaction.atomic
def submit(*, actor: Actor, request: BatchRequest) -> None:
    """Queue its runs, or its entrypoint first; all of it commits together.

    Raises what submitting any of the runs raises, and then there is nothing of the batch.
    """
    batch = Batch.objects.create(
        batch_id=request.batch_id,
        owner_id=actor.user_id,
        phase=Phase.BUILDING if request.entrypoint else Phase.QUEUED,
        build_dir=request.build_dir,
        asked_by=asdict(actor),
    )
    building = request.entrypoint is not None
    cases = Case.objects.bulk_create(
        Case(
            batch=batch,
            number=number,
            request=packed(case.run) if building else None,
            expected=case.expected,
            compare=case.compare,
        )
        for number, case in enumerate(request.cases)
    )
    if request.entrypoint is None:
        for case, asked in zip(cases, request.cases, strict=True):
            queue_case(actor=actor, case=case, run=asked.run)
        return
    _hold_inputs(batch, request)
    _rehearse(actor, request)
    services.submit(actor=actor, request=request.entrypoint)
    entrypoint = Execution.objects.get(exec_id=request.entrypoint.exec_id)
    Batch.objects.filter(pk=batch.pk).update(entrypoint=entrypoint)


def _hold_inputs(batch: Batch, request: BatchRequest) -> None:
    """What the cases' paths mean now is what they are given, whatever the entrypoint's end takes
    away."""
    paths = sorted({path for case in request.cases for path in case.run.files})
    if not paths:
        return
    try:
        files = filestore.references(owner_id=batch.owner_id, paths=paths)
    except FileMissing as missing:
        raise InputNotFound(missing.message, fields={"files": list(missing.paths)}) from missing
    HeldInput.objects.bulk_create(
        HeldInput(batch=batch, path=file.path, blob=file.blob) for file in files
    )


def _rehearse(actor: Actor, request: BatchRequest) -> None:
    """Queue the cases and take them back: whatever refuses one of them refuses the batch now."""
    before = transaction.savepoint()
    for case in request.cases:
        services.submit(actor=actor, request=case.run)
    transaction.savepoint_rollback(before)


def cancel(*, actor: Actor, batch: Batch) -> None:
    """Cancel whatever of it hasn't ended. Raises HasEnded when all has."""
    with transaction.atomic():
        held = Batch.objects.select_for_update().get(pk=batch.pk)
        ended = held.phase != Phase.BUILDING
        if held.phase == Phase.BUILDING:
            Batch.objects.filter(pk=held.pk).update(phase=Phase.CANCELLED, error="cancelled")
            let_go(held)
        for execution in unfinished(held):
            try:
                services.cancel(actor=actor, execution=execution)
            except HasEnded:
                continue
            ended = False
        if ended:
            raise HasEnded("the batch has ended already")
        audit.record(
            actor,
            audit.Verb.BATCH_CANCELLED,
            "batches.batch",
            held.batch_id,
            owner_id=held.owner_id,
        )


def unfinished(batch: Batch) -> list[Execution]:
    rows = Execution.objects.filter(status__in=UNFINISHED)
    return list(rows.filter(Q(case__batch=batch) | Q(batch_built=batch)))
