"""Examinations are asked for, made and written down."""

import logging
import socket
from collections.abc import Iterable
from uuid import uuid4

from django.db import transaction
from django.db.models.functions import Now

from executions.doctor.findings import Finding
from executions.doctor.models import Examination, ExaminationFinding
from executions.messages import enqueue_task

logger = logging.getLogger(__name__)

TASK = "executions.doctor.tasks.examine"
KEPT = 100
"""Examinations; older ones go."""


@transaction.atomic
def ask(*, user_id: int, quick: bool) -> Examination:
    """Have whichever worker is free examine its host; the row and its message commit together."""
    examination = Examination.objects.create(asked_by_id=user_id, quick=quick)
    name = f"examination {examination.pk}"
    enqueue_task(uuid4().hex, name, TASK, examination.pk)
    return examination


def begin(*, examination_id: int) -> Examination | None:
    """None when somebody has begun it already: messages may come twice."""
    mine = Examination.objects.filter(pk=examination_id, started_at=None).update(
        started_at=Now(), host=socket.gethostname()
    )
    return Examination.objects.get(pk=examination_id) if mine else None


@transaction.atomic
def finish(*, examination: Examination, findings: Iterable[Finding], error: str = "") -> None:
    ExaminationFinding.objects.bulk_create(
        ExaminationFinding(examination=examination, **finding.as_dict()) for finding in findings
    )
    Examination.objects.filter(pk=examination.pk).update(finished_at=Now(), error=error)
    kept = Examination.objects.order_by("-pk").values("pk")[:KEPT]
    Examination.objects.exclude(pk__in=list(kept.values_list("pk", flat=True))).delete()


def record(*, findings: Iterable[Finding], quick: bool) -> Examination:
    """Write down one that was made without having been asked for."""
    examination = Examination.objects.create(
        host=socket.gethostname(), started_at=Now(), quick=quick
    )
    finish(examination=examination, findings=findings)
    return examination
