"""Repeats a run: the same command with the same inputs on the digest that ran."""

from executions import audit
from executions.actor import Actor
from executions.errors import InputsGone
from executions.models import Execution, ExecutionStdin, new_exec_id
from executions.sandbox.references import parse
from executions.sandbox.spec import Limits
from executions.sealed import services as sealed
from executions.submission import RunRequest, submit


def rerun(
    *,
    actor: Actor,
    execution: Execution,
    limits: Limits | None = None,
    priority: int | None = None,
) -> str:
    """Queue it again for `actor`; the new exec_id. Raises as submit() does, and InputsGone."""
    exec_id = new_exec_id()
    stdin = ExecutionStdin.objects.filter(pk=execution.pk).values_list("data", flat=True).first()
    request = RunRequest(
        exec_id=exec_id,
        image=_pinned(execution),
        cmd=tuple(execution.cmd),
        env=_environment(execution),
        cwd=execution.cwd,
        files=tuple(execution.files),
        network=execution.network,
        persist=execution.persist,
        limits=limits or limits_of(execution),
        stdin=bytes(stdin or b""),
        labels=execution.labels,
        priority=execution.priority if priority is None else priority,
        callback_url=execution.callback_url,
        outputs=None if execution.outputs is None else tuple(execution.outputs),
        rerun_of=execution.pk,
    )
    submit(actor=actor, request=request)
    audit.record(
        actor,
        audit.Verb.RUN_REPEATED,
        "executions.execution",
        execution.exec_id,
        owner_id=execution.owner_id,
        details={"exec_id": exec_id},
    )
    return exec_id


def limits_of(execution: Execution) -> Limits:
    return Limits(
        cpu_cores=execution.cpu_cores,
        memory_mb=execution.memory_mb,
        pids_limit=execution.pids_limit,
        wall_clock_secs=execution.wall_clock_secs,
        nofile=execution.nofile,
    )


def _pinned(execution: Execution) -> str:
    """One that never got its image has no digest: then the name means what it means now."""
    if not execution.image_digest:
        return execution.image
    reference = parse(execution.image)
    return f"{reference.name}@{execution.image_digest}"


def _environment(execution: Execution) -> tuple[str, ...]:
    """Secrets go when a run ends, and a mask must not be passed on in their place."""
    env = sealed.opened(execution_id=execution.pk, exec_id=execution.exec_id, env=execution.env)
    if sealed.is_masked(env):
        raise InputsGone(
            "the secrets in its environment weren't kept; submit it anew",
            exec_id=execution.exec_id,
        )
    return tuple(env)
