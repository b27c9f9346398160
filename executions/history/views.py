"""Pages: the list of runs, one run, changes to some of them, and the list as a file."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from django.contrib import messages
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from rest_framework.exceptions import PermissionDenied as Forbidden
from rest_framework.exceptions import ValidationError

from executions.api.executions.contents import left_by
from executions.api.executions.filters import Page
from executions.api.executions.views import find, find_own, listed
from executions.errors import NoExecution
from executions.history import changes, export, filtering, run
from executions.models import UNFINISHED, Execution, Outcome, Status
from executions.services import output_directory

FILES_SHOWN = 500


@method_decorator(never_cache, name="dispatch")
class _Page(LoginRequiredMixin, View):
    pass


class Runs(_Page):
    def get(self, request: HttpRequest) -> HttpResponse:
        failure, found = "", Page([], None)
        try:
            found = listed(request, filtering.asked(request.GET))
        except ValidationError as error:
            failure = _why(error)
        filters = filtering.kept(request.GET)
        older = filters.copy()
        older["cursor"] = found.next or ""
        context = {
            "runs": found.results,
            "failure": failure,
            "filters": filters,
            "labels": " ".join(filters.getlist("label")),
            "query": filters.urlencode(),
            "older": older.urlencode() if found.next else "",
            "later": "cursor" in request.GET,
            "statuses": Status.values,
            "outcomes": Outcome.values,
            "everybody": _may(request, "view_all"),
            "unfinished": UNFINISHED,
        }
        return render(request, "history/runs.html", context, status=400 if failure else 200)


class Run(_Page):
    def get(self, request: HttpRequest, exec_id: str) -> HttpResponse:
        try:
            found = find(request, exec_id)
        except NoExecution:
            raise Http404 from None
        base_url = f"{request.scheme}://{request.get_host()}"
        prefix = output_directory(found.exec_id)
        files = [
            (file.path.removeprefix(prefix), file.blob.size)
            for file in left_by(found)[: FILES_SHOWN + 1]
        ]
        context = {
            "run": found,
            "unfinished": found.status in UNFINISHED,
            "may_change": found.owner_id == request.user.pk or _may(request, "manage_all"),
            "uses": run.uses(found),
            "time_line": run.time_line(found),
            "printed": run.printed(found),
            "inputs": list(found.inputs.order_by("path")[: FILES_SHOWN + 1]),
            "files": files[:FILES_SHOWN],
            "more_files": len(files) > FILES_SHOWN,
            "left_out": run.left_out(found),
            "curl": run.as_curl(found, base_url),
            "python": run.as_python(found, base_url),
        }
        return render(request, "history/run.html", context)


class Change(_Page):
    """Cancel, repeat or delete some runs: asks first, then does it and says what came of each."""

    http_method_names = ["post"]

    def post(self, request: HttpRequest) -> HttpResponse:
        change = changes.CHANGES.get(request.POST.get("change", ""))
        chosen = list(dict.fromkeys(request.POST.getlist("run")))
        if change is None or not 1 <= len(chosen) <= changes.MOST:
            messages.error(request, f"Choose from 1 to {changes.MOST} runs and what to do.")
            return redirect("runs")
        found = [_own(request, exec_id) for exec_id in chosen]
        if request.POST.get("sure") != "yes":
            return render(request, "history/change.html", {"runs": found, "change": change})
        done = changes.apply(request, change, found)
        if done:
            messages.success(request, f"{change.done}: {', '.join(done[:10])}{_more(done)}")
        if len(done) == 1 and change.leads_to_new:
            return redirect("run", done[0])
        if len(found) == 1 and not change.removes:
            return redirect("run", found[0].exec_id)
        return redirect("runs")


class _Export(_Page, ABC):
    content_type = ""
    name = ""

    def get(self, request: HttpRequest) -> HttpResponseBase:
        try:
            asked = filtering.asked(request.GET)
            first = export.page(request, asked)
        except ValidationError as error:
            return HttpResponse(_why(error), status=400, content_type="text/plain; charset=utf-8")
        headers = {"Content-Disposition": f'attachment; filename="{self.name}"'}
        lines = self.lines(request, asked, first)
        return StreamingHttpResponse(lines, content_type=self.content_type, headers=headers)

    @abstractmethod
    def lines(self, request: HttpRequest, asked: Any, first: Page) -> AsyncIterator[bytes]:
        """The whole file, in pieces, from the first page on."""


class ExportCSV(_Export):
    content_type = "text/csv; charset=utf-8"
    name = "runs.csv"

    async def lines(self, request: HttpRequest, asked: Any, first: Page) -> AsyncIterator[bytes]:
        yield export.csv_header()
        async for rows in export.stream(request, asked, first, export.csv_rows):
            yield rows


class ExportLines(_Export):
    content_type = "application/jsonl; charset=utf-8"
    name = "runs.jsonl"

    def lines(self, request: HttpRequest, asked: Any, first: Page) -> AsyncIterator[bytes]:
        return export.stream(request, asked, first, export.json_lines)


def _own(request: HttpRequest, exec_id: str) -> Execution:
    try:
        return find_own(request, exec_id)
    except NoExecution:
        raise Http404 from None
    except Forbidden:
        raise PermissionDenied from None


def _may(request: HttpRequest, name: str) -> bool:
    user: Any = request.user
    return bool(user.has_perm(f"executions.{name}"))


def _why(error: ValidationError) -> str:
    detail: Any = error.detail
    return "; ".join(f"{name}: {' '.join(map(str, whys))}" for name, whys in detail.items())


def _more(done: list[str]) -> str:
    return f" and {len(done) - 10} more" if len(done) > 10 else ""
