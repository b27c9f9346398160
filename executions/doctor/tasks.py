"""What django-q2 calls."""

from executions.doctor import services
from executions.doctor.probes import examine_host, examine_stores


def examine(examination_id: int) -> None:
    """Examine the host of this worker; harmless when that was begun already."""
    examination = services.begin(examination_id=examination_id)
    if examination is not None:
        findings = [*examine_host(quick=examination.quick), *examine_stores()]
        services.finish(examination=examination, findings=findings)
