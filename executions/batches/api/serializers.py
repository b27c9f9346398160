"""The shapes of /api/v1/batches/: a template, what each run changes, how a batch is told."""

import re
from dataclasses import replace
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from executions.api.executions.serializers import ExecutionRequestSerializer
from executions.api.fields import ClosedSerializer, TextField, TextListField
from executions.api.inputs import RESERVED
from executions.api.serializers import WORDS_BYTES, WORDS_LIMIT
from executions.batches.models import Compare, Phase, Verdict
from executions.batches.requests import MOST_RUNS, BatchRequest, CaseRequest
from executions.errors import InvalidRequest
from executions.models import Outcome, Status, new_exec_id
from executions.services import RunRequest
from filestore.errors import BadPath
from filestore.paths import clean_path

EXPECTED_BYTES = 1 << 20
PATTERN_BYTES = 1000
BUILD_DIR = "/build"
OF_A_CASE = frozenset({"args", "expected_stdout", "compare"})


class BatchTemplateSerializer(ExecutionRequestSerializer):
    """What the runs have in common: fields of an execution, each of them optional."""

    def get_fields(self) -> dict[str, Any]:
        found = super().get_fields()
        for field in found.values():
            field.required = False
        return dict(found)


class BatchRunSerializer(BatchTemplateSerializer):
    """What a run has in the template's place; `env`, `labels` and `limits` add to it by name."""

    args = TextListField(
        max_items=WORDS_LIMIT,
        max_bytes=WORDS_BYTES,
        required=False,
        help_text="Added to the command.",
    )
    expected_stdout = TextField(
        max_bytes=EXPECTED_BYTES,
        nul=True,
        pattern="",
        required=False,
        help_text="Compared after the run; no sandbox sees it.",
    )
    compare = serializers.ChoiceField(choices=Compare.values, required=False)


class BatchRequestSerializer(ClosedSerializer):
    """Up to 500 runs; with an `entrypoint` they start when that has succeeded."""

    template = BatchTemplateSerializer(required=False)
    runs = BatchRunSerializer(many=True)
    entrypoint = BatchTemplateSerializer(
        required=False, help_text="Runs first, and what it leaves in /output is for the others."
    )
    build_dir = TextField(
        max_bytes=255,
        pattern=r"^/[A-Za-z0-9._-]+$",
        required=False,
        help_text=f"Where the runs find that; {BUILD_DIR} by default.",
    )

    def batch_request(self, batch_id: str) -> BatchRequest:
        """Each run is checked as it will be, with the template in it; errors name the run."""
        asked = self._asked()
        template = _object("template", asked.get("template", {}))
        _check_template(template)
        build_dir = _build_dir(asked.get("build_dir", BUILD_DIR))
        cases = [_case(number, template, run) for number, run in enumerate(asked["runs"])]
        if "entrypoint" not in asked:
            return BatchRequest(batch_id, cases)
        for number, case in enumerate(cases):
            _check_files(number, case.run.files, build_dir)
        first: dict[str, Any] = {
            name: template[name] for name in ("image", "limits") if name in template
        }
        merged = _merged(first, _object("entrypoint", asked["entrypoint"]))
        return BatchRequest(batch_id, cases, _run("entrypoint", merged), build_dir)

    def _asked(self) -> dict[str, Any]:
        asked = _object("", self.initial_data)
        if unknown := [name for name in asked if name not in self.fields]:
            raise ValidationError({name[:100]: ["Unknown field."] for name in unknown[:10]})
        runs = asked.get("runs")
        if not isinstance(runs, list) or not 1 <= len(runs) <= MOST_RUNS:
            raise ValidationError({"runs": [f"Must be a list of 1 to {MOST_RUNS} runs."]})
        return asked


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValidationError({name: ["Must be an object."]} if name else ["Must be an object."])
    return value


def _check_template(template: dict[str, Any]) -> None:
    """Also what every run replaces."""
    checked = BatchTemplateSerializer(data=template)
    if not checked.is_valid():
        raise ValidationError({"template": checked.errors})


def _build_dir(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9._-]+", value):
        raise ValidationError({"build_dir": ["Must be / and one name."]})
    try:
        path = clean_path(value)
    except BadPath as error:
        raise ValidationError({"build_dir": [error.message]}) from None
    if path in RESERVED:
        raise ValidationError({"build_dir": [f"/{path} belongs to the sandbox."]})
    return path


def _check_files(number: int, files: tuple[str, ...], build_dir: str) -> None:
    if any(path.split("/", 1)[0] == build_dir for path in files):
        raise ValidationError({f"runs.{number}.files": [f"/{build_dir} is the entrypoint's."]})


def _merged(template: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    merged = {**template, **run}
    for name in ("limits", "labels"):
        if isinstance(template.get(name), dict) and isinstance(run.get(name), dict):
            merged[name] = {**template[name], **run[name]}
    if isinstance(template.get("env"), list) and isinstance(run.get("env"), list):
        names = [str(one).partition("=")[0] for one in run["env"]]
        kept = [one for one in template["env"] if str(one).partition("=")[0] not in names]
        merged["env"] = kept + run["env"]
    return merged


def _case(number: int, template: dict[str, Any], raw: Any) -> CaseRequest:
    where = f"runs.{number}"
    given = _object(where, raw)
    own = {name: value for name, value in given.items() if name not in OF_A_CASE}
    merged = _merged(template, own)
    case = _CaseSerializer(data={name: given[name] for name in OF_A_CASE if name in given})
    if not case.is_valid():
        raise ValidationError({where: case.errors})
    extra = case.validated_data
    run = _run(where, merged)
    expected, compare = extra.get("expected_stdout"), extra.get("compare", Compare.EXACT)
    if compare == Compare.REGEX and expected is not None:
        _check_pattern(where, expected)
    run = replace(run, cmd=(*run.cmd, *extra.get("args", ())))
    return CaseRequest(run, expected, compare)


class _CaseSerializer(ClosedSerializer):
    args = TextListField(max_items=WORDS_LIMIT, max_bytes=WORDS_BYTES, required=False)
    expected_stdout = TextField(max_bytes=EXPECTED_BYTES, nul=True, required=False)
    compare = serializers.ChoiceField(choices=Compare.values, required=False)


def _check_pattern(where: str, pattern: str) -> None:
    problem = ""
    if len(pattern.encode()) > PATTERN_BYTES:
        problem = f"Must not be longer than {PATTERN_BYTES} bytes as a regular expression."
    else:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            problem = f"Must be a regular expression: {error}."
    if problem:
        raise ValidationError({f"{where}.expected_stdout": [problem]})


def _run(where: str, merged: dict[str, Any]) -> RunRequest:
    try:
        return ExecutionRequestSerializer(data=merged).run_request(new_exec_id())
    except ValidationError as error:
        raise ValidationError({where: error.detail}) from None
    except InvalidRequest as error:
        fields = {f"{where}.{name}": told for name, told in error.fields.items()}
        raise InvalidRequest(f"{where}: {error.message}", code=error.code, fields=fields) from None


class BatchSerializer(serializers.Serializer[Any]):
    """How far a batch is."""

    batch_id = serializers.CharField()
    owner = serializers.CharField()
    created_at = serializers.DateTimeField()
    phase = serializers.ChoiceField(choices=Phase.values)
    error = serializers.CharField(help_text="Why the runs don't start (yet).")
    entrypoint = serializers.CharField(allow_null=True, help_text="Its exec_id.")
    ended = serializers.BooleanField()
    total = serializers.IntegerField(help_text="Runs, without the entrypoint.")
    statuses = serializers.DictField(
        child=serializers.IntegerField(), help_text=f"How many are {', '.join(Status.values)}."
    )
    outcomes = serializers.DictField(
        child=serializers.IntegerField(), help_text=f"How many ended {', '.join(Outcome.values)}."
    )
    verdicts = serializers.DictField(
        child=serializers.IntegerField(), help_text=f"How many {', '.join(Verdict.values)}."
    )


class BatchPageSerializer(serializers.Serializer[Any]):
    """Batches, newest first."""

    results = BatchSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="`cursor` of the next page.")


class BatchResultSerializer(serializers.Serializer[Any]):
    """A line of the results."""

    number = serializers.IntegerField(help_text="Which of the request's runs, from 0.")
    exec_id = serializers.CharField(allow_null=True)
    status = serializers.CharField(help_text="As of an execution; or skipped, cancelled, removed.")
    outcome = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    signal = serializers.IntegerField(allow_null=True)
    wall_ms = serializers.IntegerField(allow_null=True)
    cpu_ms = serializers.IntegerField(allow_null=True)
    max_memory_bytes = serializers.IntegerField(allow_null=True)
    error = serializers.CharField()
    verdict = serializers.ChoiceField(choices=["", *Verdict.values])
    remark = serializers.CharField(help_text="On the verdict.")
    stdout = serializers.CharField()
    stderr = serializers.CharField()
