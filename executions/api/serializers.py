"""The shapes of POST /run: what is asked, checked strictly, and what is answered."""

import base64
import binascii
from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from executions.api.fields import (
    ClosedSerializer,
    FlagField,
    LabelsField,
    LimitField,
    TextField,
    TextListField,
)
from executions.api.inputs import clean_files
from executions.errors import InvalidReference
from executions.models import Network, Outcome, Status
from executions.sandbox.references import REFERENCE_LIMIT, BadReference, normalise
from executions.sandbox.spec import Limits
from executions.services import RunRequest

IMAGE_PATTERN = r"^[A-Za-z0-9\[][A-Za-z0-9.:/@_\[\]-]*$"
"""Only told: executions/sandbox/references.py decides, and knows more than a pattern can say."""
CWD_BYTES = 4095  # PATH_MAX without the NUL
WORDS_LIMIT = 1000
WORDS_BYTES = 128 << 10  # MAX_ARG_STRLEN, and far below what execve takes in all
PATHS_BYTES = 1 << 20

MINIMUM = {
    "cpu_cores": 0.01,  # the least quota that the kernel's scheduler takes: 1 ms of each 100 ms
}


def reference(value: str) -> str:
    try:
        normalise(value)
    except BadReference as error:
        raise InvalidReference(f"image: {error}", fields={"image": [str(error)]}) from None
    return value


def assignment(value: str) -> str:
    if value.find("=") < 1:
        raise ValidationError("Must be NAME=VALUE with a name that isn't empty.")
    return value


def absolute(value: str) -> str:
    if value and not value.startswith("/"):
        raise ValidationError("Must be an absolute path.")
    return value


class ResourceLimitsSerializer(ClosedSerializer):
    """Limits of one run; 0 and null mean this installation's default."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        return {
            name: LimitField(
                minimum=MINIMUM.get(name, 1),
                maximum=maximum,
                whole=name != "cpu_cores",
                required=False,
                allow_null=True,
                help_text=f"0 or null: {settings.BOXER_DEFAULT_LIMITS[name]}.",
            )
            for name, maximum in settings.BOXER_MAX_LIMITS.items()
        }


class RunRequestSerializer(ClosedSerializer):
    """A command to run in an image. null for an optional field means that it isn't given."""

    image = TextField(
        max_bytes=REFERENCE_LIMIT,
        check=reference,
        pattern=IMAGE_PATTERN,
        help_text="As a registry serves it, named as Docker does.",
    )
    cmd = TextListField(
        min_items=1,
        max_items=WORDS_LIMIT,
        max_bytes=WORDS_BYTES,
        help_text="The program and its arguments; no shell is involved.",
    )
    env = TextListField(
        max_items=WORDS_LIMIT,
        max_bytes=WORDS_BYTES,
        check=assignment,
        pattern=r"^[^=\u0000]+=[^\u0000]*$",
        required=False,
        allow_null=True,
        help_text="NAME=VALUE each; these win over the image's own.",
    )
    cwd = TextField(
        max_bytes=CWD_BYTES,
        check=absolute,
        pattern=r"^(/[^\u0000]*)?$",
        required=False,
        allow_null=True,
        help_text="Absolute; / when it is empty or not given.",
    )
    files = TextListField(
        max_items=settings.BOXER_FILES_LIMIT,
        max_bytes=PATHS_BYTES,
        required=False,
        allow_null=True,
        help_text="Paths of stored files; each appears read-only at /{path}.",
    )
    limits = ResourceLimitsSerializer(required=False, allow_null=True)
    network = serializers.ChoiceField(
        choices=Network.values,
        required=False,
        allow_null=True,
        error_messages={"invalid_choice": f"Must be one of {', '.join(Network.values)}."},
        help_text="none: no access. sandbox: isolated, behind NAT. host: the host's network.",
    )
    persist = FlagField(
        required=False,
        allow_null=True,
        help_text="Keep the input files, and what the program leaves in /output, after the run.",
    )

    stdin = TextField(
        max_bytes=(settings.BOXER_STDIN_LIMIT_BYTES + 2) // 3 * 4,
        pattern="",
        nul=True,
        required=False,
        allow_null=True,
        help_text="What the program reads from its standard input; empty when it isn't given.",
    )
    stdin_encoding = serializers.ChoiceField(
        choices=["utf-8", "base64"],
        required=False,
        allow_null=True,
        error_messages={"invalid_choice": "Must be one of utf-8, base64."},
        help_text="How `stdin` is given; utf-8 by default.",
    )
    labels = LabelsField(
        required=False, allow_null=True, help_text="Up to 16 short strings by name, to find it by."
    )

    def validate_cmd(self, value: list[str]) -> list[str]:
        if not value[0]:
            raise ValidationError({"0": ["Must not be empty: it is the program."]})
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = attrs.get("stdin") or ""
        try:
            if attrs.get("stdin_encoding") == "base64":
                content = base64.b64decode(given, validate=True)
            else:
                content = given.encode()
        except (binascii.Error, ValueError):
            raise ValidationError({"stdin": ["Must be base64, as stdin_encoding says."]}) from None
        limit = settings.BOXER_STDIN_LIMIT_BYTES
        if len(content) > limit:
            raise ValidationError({"stdin": [f"Must not be longer than {limit} bytes."]})
        return {**attrs, "stdin": content}

    def run_request(self, exec_id: str) -> RunRequest:
        """Validate, and what came out with every default filled in."""
        self.is_valid(raise_exception=True)
        given = {name: value for name, value in self.validated_data.items() if value is not None}
        return RunRequest(
            exec_id=exec_id,
            image=given["image"],
            cmd=tuple(given["cmd"]),
            env=tuple(given.get("env", ())),
            cwd=given.get("cwd") or "/",
            files=clean_files(given.get("files", [])),
            network=given.get("network", Network.NONE),
            persist=given.get("persist", False),
            limits=effective_limits(given.get("limits", {})),
            stdin=given["stdin"],
            labels=given.get("labels", {}),
        )


def effective_limits(asked: dict[str, Any]) -> Limits:
    defaults: dict[str, Any] = settings.BOXER_DEFAULT_LIMITS
    return Limits(**{name: asked.get(name) or default for name, default in defaults.items()})


class RunResponseSerializer(serializers.Serializer[Any]):
    """What became of the program, whichever way it ended."""

    exec_id = serializers.CharField()
    exit_code = serializers.IntegerField(help_text="As a shell tells it: 128 + signal.")
    stdout = serializers.CharField(help_text="Bytes that aren't UTF-8 are shown as U+FFFD.")
    stderr = serializers.CharField()
    wall_ms = serializers.IntegerField(help_text="The command, from start to end.")
    status = serializers.ChoiceField(choices=[Status.FINISHED.value])
    outcome = serializers.ChoiceField(
        choices=[Outcome.EXITED.value, Outcome.SIGNALLED.value, Outcome.OUT_OF_MEMORY.value]
    )
    signal = serializers.IntegerField(allow_null=True)
    cpu_ms = serializers.IntegerField(allow_null=True)
    max_memory_bytes = serializers.IntegerField(allow_null=True)
    image_digest = serializers.CharField()
    queue_ms = serializers.IntegerField(allow_null=True, help_text="Waiting for a worker.")
    pull_ms = serializers.IntegerField(allow_null=True, help_text="Getting the image.")
    start_ms = serializers.IntegerField(allow_null=True, help_text="Getting a sandbox.")


class HealthSerializer(serializers.Serializer[Any]):
    ok = serializers.BooleanField()


class ChecksSerializer(serializers.Serializer[Any]):
    """`ok`, or what is the matter."""

    database = serializers.CharField()
    queue = serializers.CharField()
    cluster = serializers.CharField()
    runsc = serializers.CharField()


class ReadinessSerializer(HealthSerializer):
    checks = ChecksSerializer()
