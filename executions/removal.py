"""Removes an ended execution with all that is kept of it."""

from functools import partial

from django.db import transaction

from executions import audit
from executions.actor import Actor
from executions.errors import NotEnded
from executions.inputs import let_go
from executions.models import UNFINISHED, Execution
from filestore import services as filestore
from filestore.models import StoredFile


def output_directory(exec_id: str) -> str:
    """Where its owner's file store has what a run left in /output."""
    return f"output/{exec_id}/"


def remove(*, actor: Actor, execution: Execution) -> None:
    """Its row, output, standard input, inputs, and the files that it left. Raises NotEnded."""
    with transaction.atomic():
        found = Execution.objects.select_for_update().filter(pk=execution.pk).first()
        if found is None:
            return
        if found.status in UNFINISHED:
            raise NotEnded("the run hasn't ended; cancel it first", exec_id=found.exec_id)
        let_go(found.inputs.all())
        _remove_files(found)
        audit.record(
            actor,
            audit.Verb.RUN_DELETED,
            "executions.execution",
            found.exec_id,
            owner_id=found.owner_id,
        )
        found.delete()


def _remove_files(execution: Execution) -> None:
    files = StoredFile.objects.filter(owner_id=execution.owner_id)
    left = files.left_by_run(output_directory(execution.exec_id))
    blobs = list(left.values_list("blob_id", flat=True).distinct())
    left.delete()
    transaction.on_commit(partial(filestore.discard_blobs, blob_ids=blobs), robust=True)
