"""Pages from which one goes on: the overview, and the form for a new run."""

import shlex
from typing import Any

from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from rest_framework.exceptions import ValidationError

from executions import services
from executions.actor import Actor
from executions.api.executions.serializers import ExecutionRequestSerializer
from executions.errors import BoxerError, ServiceBusy
from executions.history import overview
from executions.models import UNFINISHED, Execution, Network, new_exec_id

SHOWN = 10


@method_decorator(never_cache, name="dispatch")
class Overview(View):
    """What this is, for who isn't logged in; else what runs and how it went lately."""

    def get(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return render(request, "history/welcome.html")
        owner_id = request.user.pk
        own = Execution.objects.filter(owner_id=owner_id).order_by("-pk")
        context = {
            "now": list(own.filter(status__in=UNFINISHED)[:SHOWN]),
            "lately": list(own.exclude(status__in=UNFINISHED)[:SHOWN]),
            "days": overview.days(owner_id),
            "kinds": overview.KINDS,
            "times": overview.times(owner_id),
            "bars": overview.quota(owner_id),
        }
        return render(request, "history/overview.html", context)


@method_decorator(never_cache, name="dispatch")
class New(LoginRequiredMixin, View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return self.page(request, {"network": "none"})

    def post(self, request: HttpRequest) -> HttpResponse:
        exec_id = new_exec_id()
        try:
            asked = ExecutionRequestSerializer(data=_asked(request)).run_request(exec_id)
            services.submit(actor=Actor.of(request), request=asked)
        except ValidationError as error:
            return self.page(request, request.POST, "; ".join(_leaves(error.detail)), 400)
        except BoxerError as error:
            busy = isinstance(error, ServiceBusy)
            return self.page(request, request.POST, error.message, 503 if busy else 400)
        return redirect("run", exec_id)

    def page(
        self, request: HttpRequest, given: Any, failure: str = "", status: int = 200
    ) -> HttpResponse:
        context = {
            "given": given,
            "failure": failure,
            "defaults": settings.BOXER_DEFAULT_LIMITS,
            "most": settings.BOXER_MAX_LIMITS,
            "networks": Network.values,
        }
        return render(request, "history/new.html", context, status=status)


def _asked(request: HttpRequest) -> dict[str, Any]:
    """The form as the API's own body. Raises ValidationError."""
    form = request.POST
    try:
        cmd = shlex.split(form.get("command", ""))
    except ValueError as error:
        raise ValidationError({"command": [f"Can't be split into words: {error}."]}) from None
    if not cmd:
        raise ValidationError({"command": ["Must be given: the program and its arguments."]})
    if form.get("script"):
        # A browser ends lines as forms do.
        cmd = [*cmd, form["script"].replace("\r\n", "\n")]
    asked: dict[str, Any] = {
        "image": form.get("image", "").strip(),
        "cmd": cmd,
        "env": _lines(form.get("env", "")),
        "files": _lines(form.get("files", "")),
        "network": form.get("network") or None,
        "persist": form.get("persist") == "on",
        "stdin": form.get("stdin", "").replace("\r\n", "\n"),
        "labels": _labels(form.get("labels", "")),
    }
    limits = {
        name: _number(name, value)
        for name in settings.BOXER_DEFAULT_LIMITS
        if (value := form.get(name, "").strip())
    }
    return asked | {"limits": limits}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _labels(text: str) -> dict[str, str]:
    pairs = [line.partition("=") for line in _lines(text)]
    if any(not equals for _, equals, _ in pairs):
        raise ValidationError({"labels": ["Each line must be name=value."]})
    return {name: value for name, _, value in pairs}


def _number(name: str, value: str) -> float:
    try:
        return float(value) if name == "cpu_cores" else int(value)
    except ValueError:
        raise ValidationError({name: ["Must be a number."]}) from None


def _leaves(detail: Any, name: str = "") -> list[str]:
    if isinstance(detail, dict):
        return [leaf for key, one in detail.items() for leaf in _leaves(one, f"{name} {key}")]
    if isinstance(detail, list):
        return [leaf for one in detail for leaf in _leaves(one, name)]
    return [f"{name.strip()}: {detail}" if name else str(detail)]
