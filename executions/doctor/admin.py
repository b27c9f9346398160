"""The doctor in the admin: what was found last, and a button that has a worker look again."""

from typing import Any, cast

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from executions.admin_base import ReadOnlyAdmin
from executions.doctor import services
from executions.doctor.findings import State
from executions.doctor.models import Examination, ExaminationFinding

EXAMINE = "doctor.examine"


class FindingInline(admin.TabularInline):  # type: ignore[type-arg]  # not generic at run time
    model = ExaminationFinding
    fields = ["name", "promise", "state", "detail", "ms"]
    readonly_fields = ["name", "promise", "state", "detail", "ms"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002
        return False


@admin.register(Examination)
class ExaminationAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "asked_at", "finished_at", "asked_by", "quick", "outcome"]
    list_select_related = ["asked_by"]
    inlines = [FindingInline]
    change_list_template = "admin/doctor/examination/change_list.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Examination]:
        broken = Count("findings", filter=Q(findings__state=State.BROKEN))
        found: QuerySet[Examination] = super().get_queryset(request)
        return found.annotate(all_findings=Count("findings"), broken_findings=broken)

    @admin.display(description="kept")
    def outcome(self, examination: Any) -> str:
        if examination.finished_at is None:
            return "not finished"
        if examination.broken_findings:
            return format_html("<strong>{} broken</strong>", examination.broken_findings)
        return f"all {examination.all_findings}"

    def get_urls(self) -> list[URLPattern]:
        examine = self.admin_site.admin_view(self.examine)
        return [path("examine/", examine, name="doctor_examination_examine"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        context = {"may_examine": request.user.has_perm(EXAMINE), **(extra_context or {})}
        return super().changelist_view(request, context)

    def examine(self, request: HttpRequest) -> HttpResponseBase:
        """Asks first; then queues it."""
        if not (self.has_view_permission(request) and request.user.has_perm(EXAMINE)):
            raise PermissionDenied
        if request.method == "POST":
            services.ask(user_id=cast("int", request.user.pk), quick="quick" in request.POST)
            messages.info(request, "A worker examines its host as soon as one is free.")
            return HttpResponseRedirect(reverse("admin:doctor_examination_changelist"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Examine a host",
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/doctor/examination/examine.html", context)
