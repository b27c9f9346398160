"""Executions with their inputs and output, and the worker hosts that run them."""

import secrets
import uuid
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q

from filestore.models import Blob

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


class Status(models.TextChoices):
    """Where an execution is."""

    QUEUED = "queued"
    PULLING = "pulling", "pulling: claimed, its image and sandbox are being prepared"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


UNFINISHED = (Status.QUEUED, Status.PULLING, Status.RUNNING)
CLAIMED = (Status.PULLING, Status.RUNNING)


class Outcome(models.TextChoices):
    """What became of the program; infra_error says nothing about the program."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    INFRA_ERROR = "infra_error"


class Network(models.TextChoices):
    NONE = "none"
    SANDBOX = "sandbox"
    HOST = "host"


def new_exec_id() -> str:
    return f"boxer-{secrets.token_hex(10)}"


class WorkerHost(models.Model):
    """One start of the workers of one home; its pusher and keeper renew `seen_at` as they live."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=255, help_text="Host name.")
    workers = models.PositiveIntegerField(help_text="Runs at a time.")
    runsc_version = models.CharField(max_length=64, blank=True, default="")
    network_lack = models.TextField(
        blank=True, default="", help_text="Why it can't give a sandbox a network of its own."
    )
    started_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(db_index=True)
    stopped_at = models.DateTimeField(null=True)
    draining = models.BooleanField(
        default=False, db_default=False, help_text="It takes no new run; what it runs goes on."
    )

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class ExecutionQuerySet(models.QuerySet["Execution"]):
    def visible_to(self, user: "AbstractBaseUser | AnonymousUser") -> Self:
        """The executions that `user` may see: their own, or everybody's."""
        if user.has_perm("executions.view_all"):  # type: ignore[union-attr]  # of PermissionsMixin
            return self
        return self.filter(owner_id=user.pk)


class Execution(models.Model):
    """A command in an image: what was asked, under which limits, and how it ended.

    `status` is written by what executions/services.py offers, alone.
    """

    exec_id = models.CharField(max_length=32, unique=True, default=new_exec_id, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    image = models.CharField(max_length=1024, help_text="As requested.")
    cmd = ArrayField(models.TextField())
    env = ArrayField(models.TextField(), default=list)
    cwd = models.CharField(max_length=4096, default="/")
    files = ArrayField(models.TextField(), default=list)
    network = models.CharField(max_length=8, choices=Network, default=Network.NONE)
    persist = models.BooleanField(default=False)
    outputs = ArrayField(
        models.TextField(), null=True, help_text="Paths below /output to keep; all when null."
    )
    labels = models.JSONField(default=dict, help_text="Short strings by name.")
    priority = models.SmallIntegerField(default=0, help_text="Higher first, among one's own.")
    callback_url = models.CharField(max_length=2048, blank=True, default="")
    expires_at = models.DateTimeField(null=True, help_text="Not started after that.")
    rerun_of = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, related_name="reruns", db_index=False
    )

    cpu_cores = models.FloatField()
    memory_mb = models.PositiveIntegerField(help_text="MiB.")
    pids_limit = models.PositiveIntegerField()
    wall_clock_secs = models.PositiveIntegerField()
    nofile = models.PositiveIntegerField()

    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED)
    outcome = models.CharField(max_length=14, choices=Outcome, blank=True, default="")
    exit_code = models.IntegerField(null=True)
    signal = models.PositiveSmallIntegerField(null=True)
    error = models.TextField(blank=True, default="", help_text="What went wrong with infra_error.")
    error_code = models.CharField(max_length=32, blank=True, default="")
    image_digest = models.CharField(max_length=128, blank=True, default="")
    image_terms = models.JSONField(
        null=True, help_text="What a rule demands of the image once it is there."
    )
    runsc_version = models.CharField(max_length=64, blank=True, default="")
    platform = models.CharField(max_length=16, blank=True, default="", help_text="Of runsc.")
    cancel_requested_at = models.DateTimeField(null=True)

    message_id = models.BigIntegerField(null=True, help_text="Its row in django-q2's queue.")
    attempts = models.PositiveSmallIntegerField(default=0, help_text="How often it was claimed.")
    host = models.ForeignKey(WorkerHost, null=True, on_delete=models.SET_NULL)
    worker = models.CharField(max_length=64, blank=True, default="")
    claimed_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    queue_ms = models.PositiveIntegerField(null=True, help_text="Submitted until claimed.")
    pull_ms = models.PositiveIntegerField(null=True, help_text="Getting the image.")
    start_ms = models.PositiveIntegerField(null=True, help_text="Booting the sandbox.")
    warm = models.BooleanField(default=False, help_text="Its sandbox had been booted ahead.")
    wall_ms = models.PositiveIntegerField(null=True, help_text="The command, start to end.")
    cpu_ms = models.PositiveIntegerField(null=True)
    max_memory_bytes = models.PositiveBigIntegerField(null=True)
    net_sent_bytes = models.PositiveBigIntegerField(null=True)
    net_received_bytes = models.PositiveBigIntegerField(null=True)
    net_refused = models.PositiveBigIntegerField(
        null=True, help_text="Connections that the network's rules refused."
    )
    left_out = models.JSONField(
        default=list, help_text="What lay in /output and wasn't stored: path and reason."
    )

    objects = ExecutionQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        permissions = [
            ("view_all", "Can see everybody's executions"),
            ("manage_all", "Can cancel, repeat and delete everybody's executions"),
            ("use_host_network", "Can run with the host's network"),
        ]
        indexes = [
            models.Index(fields=["owner", "-id"], name="executions_of_an_owner"),
            GinIndex(fields=["labels"], opclasses=["jsonb_path_ops"], name="executions_by_label"),
            models.Index(
                fields=["rerun_of"],
                condition=Q(rerun_of__isnull=False),
                name="repetitions",
            ),
            models.Index(
                fields=["status"],
                condition=Q(status__in=["queued", "pulling", "running"]),
                name="unfinished_executions",
            ),
            models.Index(fields=["created_at"], name="executions_by_time"),
            # Written once, with the end of a run.
            models.Index(
                fields=["outcome", "-id"],
                condition=Q(status__in=["finished", "cancelled"]),
                name="executions_by_outcome",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status="finished") ^ Q(outcome=""), name="finished_has_an_outcome"
            ),
        ]

    def __str__(self) -> str:
        return self.exec_id


class ExecutionInput(models.Model):
    """One of `files`: which contents stood at the path when the run was submitted.

    `blob` is let go when the run has ended, unless it was asked to persist.
    """

    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="inputs")
    path = models.CharField(max_length=4096)
    sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField(help_text="Bytes.")
    blob = models.ForeignKey(Blob, null=True, on_delete=models.PROTECT)
    built = models.BooleanField(
        default=False, help_text="Left by another run, not by its owner: it can be executed."
    )

    def __str__(self) -> str:
        return self.path


class ExecutionOutput(models.Model):
    """What the program printed, as bytes, apart from the rows that lists read."""

    execution = models.OneToOneField(
        Execution, on_delete=models.CASCADE, primary_key=True, related_name="output"
    )
    stdout = models.BinaryField(default=b"")
    stderr = models.BinaryField(default=b"")
    turns = ArrayField(
        models.IntegerField(),
        null=True,
        help_text="Bytes of stdout and of stderr in turn, in the order of reading.",
    )

    def __str__(self) -> str:
        return f"output of {self.execution_id}"


class ExecutionStdin(models.Model):
    """What the program reads, where the request gave something."""

    execution = models.OneToOneField(
        Execution, on_delete=models.CASCADE, primary_key=True, related_name="stdin"
    )
    data = models.BinaryField()

    def __str__(self) -> str:
        return f"stdin of {self.execution_id}"
