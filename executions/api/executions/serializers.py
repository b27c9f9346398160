"""The shapes of /api/v1/executions/: what is asked for, and how an execution is told."""

from dataclasses import replace
from typing import Any

from rest_framework import serializers

from executions.api.fields import TextField, TextListField, WholeField
from executions.api.serializers import RunRequestSerializer
from executions.callbacks.targets import parse
from executions.models import Execution, Network, Outcome, Status
from executions.services import RunRequest

EVERYTHING = "*"
PRIORITY = 100
LONGEST_EXPIRY_SECS = 30 * 86400


def callback_url(value: str) -> str:
    """Raises BadCallbackUrl. An empty one is none."""
    if value:
        parse(value)
    return value


class ExecutionRequestSerializer(RunRequestSerializer):
    """As for /run, and how it is queued, kept and told of."""

    callback_url = TextField(
        max_bytes=2048,
        check=callback_url,
        pattern=r"^https?://[^\u0000]+$",
        required=False,
        allow_null=True,
        help_text="Where the ended execution is to be told.",
    )
    priority = WholeField(
        minimum=-PRIORITY,
        maximum=PRIORITY,
        required=False,
        allow_null=True,
        help_text="Higher first, among one's own; 0 by default.",
    )
    outputs = TextListField(
        max_items=64,
        max_bytes=16 << 10,
        required=False,
        allow_null=True,
        help_text="What to keep of /output: paths, directories or patterns. All by default.",
    )
    expires_in = WholeField(
        minimum=1,
        maximum=LONGEST_EXPIRY_SECS,
        required=False,
        allow_null=True,
        help_text="Seconds after which it isn't started any more, but cancelled as `expired`.",
    )

    def run_request(self, exec_id: str) -> RunRequest:
        request = super().run_request(exec_id)
        given = self.validated_data
        outputs = given.get("outputs")
        return replace(
            request,
            callback_url=given.get("callback_url") or "",
            priority=given.get("priority") or 0,
            outputs=(EVERYTHING,) if outputs is None else tuple(outputs),
            expires_in=given.get("expires_in"),
        )


class LimitsToldSerializer(serializers.Serializer[Any]):
    """Limits that the run has."""

    cpu_cores = serializers.FloatField()
    memory_mb = serializers.IntegerField()
    pids_limit = serializers.IntegerField()
    wall_clock_secs = serializers.IntegerField()
    nofile = serializers.IntegerField()


class ExecutionSerializer(serializers.ModelSerializer[Execution]):
    """An execution without what it printed."""

    owner = serializers.CharField(source="owner.username")
    limits = LimitsToldSerializer(source="*")
    labels = serializers.DictField(child=serializers.CharField())
    network = serializers.ChoiceField(choices=Network.values)
    status = serializers.ChoiceField(choices=Status.values)
    outcome = serializers.ChoiceField(choices=["", *Outcome.values])
    outputs = serializers.ListField(child=serializers.CharField(), allow_null=True)
    left_out = serializers.ListField(child=serializers.DictField(child=serializers.CharField()))
    rerun_of = serializers.CharField(source="rerun_of.exec_id", allow_null=True, default=None)

    class Meta:
        model = Execution
        fields = [
            "exec_id",
            "owner",
            "status",
            "outcome",
            "exit_code",
            "signal",
            "error",
            "error_code",
            "image",
            "image_digest",
            "cmd",
            "env",
            "cwd",
            "files",
            "network",
            "persist",
            "outputs",
            "limits",
            "labels",
            "priority",
            "callback_url",
            "rerun_of",
            "created_at",
            "expires_at",
            "cancel_requested_at",
            "started_at",
            "finished_at",
            "queue_ms",
            "pull_ms",
            "start_ms",
            "wall_ms",
            "cpu_ms",
            "max_memory_bytes",
            "warm",
            "left_out",
        ]
        read_only_fields = fields


class ExecutionPageSerializer(serializers.Serializer[Any]):
    """Executions, newest first."""

    results = ExecutionSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="`cursor` of the next page.")


class LeftFileSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="Below /output.")
    size = serializers.IntegerField(help_text="Bytes.")
    sha256 = serializers.CharField()


class LeftFilesSerializer(serializers.Serializer[Any]):
    """What the program left in /output."""

    files = LeftFileSerializer(many=True)


def told(execution: Execution) -> dict[str, Any]:
    return dict(ExecutionSerializer(execution).data)
