"""Executions in the admin: to read, and to do what the API can."""

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db import connection
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from executions import audit
from executions.administration import steps
from executions.administration.confirmed import action, permitted
from executions.administration.lists import (
    SHOWN_CHARACTERS,
    ExecutionChangeList,
    PeriodFilter,
    StatusFilter,
    search,
)
from executions.administration.visible import SHOWN_BYTES, fold, visible
from executions.models import Execution
from filestore.admin_base import ReadOnlyAdmin

_PRINTED = """
    SELECT octet_length(stdout), substring(stdout FROM 1 FOR %s),
        octet_length(stderr), substring(stderr FROM 1 FOR %s)
    FROM executions_executionoutput WHERE execution_id = %s
"""


class Styled:
    class Media:
        css = {"all": ["administration/administration.css"]}


@admin.register(Execution)
class ExecutionAdmin(permitted(*steps.OF_EXECUTIONS), ReadOnlyAdmin):  # type: ignore[misc]  # made there
    Media = Styled.Media
    list_display = [
        "exec_id", "created_at", "owner", "image", "command_start", "state", "exit_code",
        "queue_ms", "wall_ms",
    ]  # fmt: skip
    list_select_related = ["owner"]
    list_filter = [StatusFilter, PeriodFilter]
    search_fields = ["exec_id"]
    search_help_text = "The beginning of an id (boxer-…), or a user's name, whole."
    actions = [action(step) for step in steps.OF_EXECUTIONS]
    fieldsets = [
        (None, {"fields": ["exec_id", "owner", "created_at", "state", "cancel_requested_at"]}),
        ("Asked for", {"fields": [
            "image", "command", "environment", "cwd", "inputs_asked", "network", "persist",
            "outputs", "labels_told", "priority", "callback_url", "expires_at", "repeats",
            "cpu_cores", "memory_mb", "pids_limit", "wall_clock_secs", "nofile",
        ]}),
        ("Came of it", {"fields": [
            "outcome", "exit_code", "signal", "error_code", "error", "stdout", "stderr", "left",
            "omitted",
        ]}),
        ("Where and when", {"fields": [
            "image_digest", "runsc_version", "platform", "host", "worker", "attempts", "warm",
            "claimed_at", "started_at", "finished_at", "queue_ms", "pull_ms", "start_ms",
            "wall_ms", "cpu_ms", "max_memory_bytes", "net_sent_bytes", "net_received_bytes",
            "net_refused",
        ]}),
    ]  # fmt: skip

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Everybody's are shown here, so whoever may see only their own sees nothing."""
        return super().has_view_permission(request, obj) and request.user.has_perm(
            "executions.view_all"
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        """An action does it, through the service."""
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:  # noqa: ARG002
        return ExecutionChangeList

    def get_search_results(
        self,
        request: HttpRequest,  # noqa: ARG002
        queryset: QuerySet[Execution],
        search_term: str,
    ) -> tuple[QuerySet[Execution], bool]:
        return search(queryset, search_term), False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Execution]:
        rows: QuerySet[Execution] = super().get_queryset(request)
        return rows.select_related("owner")

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Also by its exec_id, as the audit log has it."""
        if object_id.startswith("boxer-"):
            return self.get_queryset(request).filter(exec_id=object_id).first()
        return super().get_object(request, object_id, from_field)

    # ── Looks are written down ──────────────────────────────────────────────────────────────────

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        response: HttpResponse = super().changelist_view(request, extra_context)
        if response.status_code == 200 and request.method == "GET":
            audit.record_look(
                audit.current_actor(),
                audit.Verb.RUNS_LISTED,
                "auth.user",
                request.user.pk,
                details={"query": request.GET.dict()},
            )
        return response

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        if obj is not None and obj.owner_id != request.user.pk:
            audit.record_look(
                audit.current_actor(),
                audit.Verb.RUN_VIEWED,
                "executions.execution",
                obj.exec_id,
                owner_id=obj.owner_id,
                details={"path": request.path},
            )
        response: HttpResponse = super().render_change_form(
            request, context, add, change, form_url, obj
        )
        return response

    # ── Columns and fields ──────────────────────────────────────────────────────────────────────

    @admin.display(description="command")
    def command_start(self, execution: Any) -> str:
        text = visible(execution.command_shown.encode("utf-8", "replace"))
        return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"

    @admin.display(description="state")
    def state(self, execution: Execution) -> str:
        return (execution.outcome or execution.status).replace("_", " ")

    @admin.display(description="command")
    def command(self, execution: Execution) -> SafeString:
        words = shlex.join(execution.cmd).encode("utf-8", "replace")
        if len(words) > 1000:
            return fold("command", words)
        return format_html('<pre class="boxer-command">{}</pre>', visible(words))

    @admin.display(description="environment")
    def environment(self, execution: Execution) -> SafeString | str:
        return _folded("environment", "\n".join(execution.env)) if execution.env else "-"

    @admin.display(description="input files")
    def inputs_asked(self, execution: Execution) -> SafeString | str:
        found = execution.inputs.values_list("path", "size", "sha256").order_by("path")[:1000]
        lines = [f"{path}  {size:,} bytes  {sha256}" for path, size, sha256 in found]
        return _folded("files", "\n".join(lines)) if lines else "-"

    @admin.display(description="labels")
    def labels_told(self, execution: Execution) -> str:
        return visible(json.dumps(execution.labels, ensure_ascii=False).encode())

    @admin.display(description="repeats")
    def repeats(self, execution: Execution) -> SafeString | str:
        if execution.rerun_of_id is None:
            return "-"
        page = reverse("admin:executions_execution_change", args=[execution.rerun_of_id])
        return format_html('<a href="{}">{}</a>', page, execution.rerun_of)

    @admin.display(description="stdout")
    def stdout(self, execution: Execution) -> SafeString | str:
        return self._stream(execution, 0)

    @admin.display(description="stderr")
    def stderr(self, execution: Execution) -> SafeString | str:
        return self._stream(execution, 1)

    def _stream(self, execution: Any, number: int) -> SafeString | str:
        if not hasattr(execution, "printed"):
            with connection.cursor() as cursor:
                cursor.execute(_PRINTED, [SHOWN_BYTES, SHOWN_BYTES, execution.pk])
                execution.printed = cursor.fetchone()
        name = ("stdout", "stderr")[number]
        raw = reverse(name, args=[execution.exec_id])
        if execution.printed is None:
            return format_html('nothing is stored yet (<a href="{}">so far</a>)', raw)
        size, data = execution.printed[2 * number : 2 * number + 2]
        return fold(name, bytes(data), size, raw) if size else "empty"

    @admin.display(description="files it left")
    def left(self, execution: Execution) -> SafeString:
        query = urlencode({"q": f"output/{execution.exec_id}/"})
        page = reverse("admin:filestore_storedfile_changelist")
        return format_html('<a href="{}?{}">in its owner\'s store</a>', page, query)

    @admin.display(description="what was left out")
    def omitted(self, execution: Execution) -> SafeString | str:
        if not execution.left_out:
            return "-"
        return _folded("left out", json.dumps(execution.left_out, indent=1, ensure_ascii=False))


def _folded(title: str, text: str) -> SafeString:
    return fold(title, text.encode("utf-8", "replace"))
