"""The contents that a run's input paths meant when it was submitted: held, and let go."""

from collections.abc import Sequence
from functools import partial

from django.db import transaction
from django.db.models import QuerySet

from executions.errors import InputNotFound, InputsGone
from executions.models import Execution, ExecutionInput
from filestore import services as filestore
from filestore.blobs import share_lock
from filestore.errors import FileMissing


def hold_inputs(*, owner_id: int, exec_id: str, paths: Sequence[str]) -> None:
    """Tie the run to the contents that its paths mean now."""
    try:
        files = filestore.references(owner_id=owner_id, paths=paths)
    except FileMissing as missing:
        raise InputNotFound(missing.message, fields={"files": list(missing.paths)}) from missing
    execution_id = Execution.objects.values_list("pk", flat=True).get(exec_id=exec_id)
    ExecutionInput.objects.bulk_create(
        ExecutionInput(
            execution_id=execution_id,
            path=file.path,
            sha256=file.blob.sha256,
            size=file.blob.size,
            blob=file.blob,
        )
        for file in files
    )


def hold_again(*, earlier_id: int, execution_id: int) -> None:
    """Tie the run to the contents that an earlier one was given. Raises InputsGone."""
    rows = list(ExecutionInput.objects.filter(execution_id=earlier_id).order_by("pk"))
    for blob_id in sorted({row.blob_id for row in rows if row.blob_id is not None}):
        if not share_lock(blob_id=blob_id):
            raise InputsGone("what the run was given is gone")
    if gone := [row.path for row in rows if row.blob_id is None]:
        raise InputsGone(f"the run's input files weren't kept: {', '.join(gone[:5])}")
    ExecutionInput.objects.bulk_create(
        ExecutionInput(
            execution_id=execution_id,
            path=row.path,
            sha256=row.sha256,
            size=row.size,
            blob_id=row.blob_id,
            built=row.built,
        )
        for row in rows
    )


def release_inputs(execution: Execution) -> None:
    """Unless they are to persist: delete what the run was given, and let go of its contents.

    A path that means something else by now, or was uploaded anew, is left alone.
    """
    if execution.persist:
        return
    held = (
        execution.inputs.filter(built=False)
        .exclude(blob=None)
        .order_by("pk")
        .values_list("path", "blob_id")
    )
    for path, blob_id in held:
        filestore.unlink(
            owner_id=execution.owner_id,
            path=path,
            blob_id=blob_id,
            stored_before=execution.created_at,
        )
    let_go(execution.inputs.all())


def let_go(inputs: QuerySet[ExecutionInput]) -> None:
    blobs = list(inputs.exclude(blob=None).values_list("blob_id", flat=True).distinct())
    inputs.update(blob=None)
    transaction.on_commit(partial(filestore.discard_blobs, blob_ids=blobs), robust=True)
