"""Quotas in the admin."""

from django.contrib import admin

from executions.quotas.models import Quota


@admin.register(Quota)
class QuotaAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    list_display = [
        "__str__",
        "runs_at_a_time",
        "runs_queued",
        "runs_an_hour",
        "cpu_secs_a_day",
        "stored_bytes",
        "stored_files",
        "weight",
    ]
    list_select_related = ["user", "group"]
    search_fields = ["user__username", "group__name"]
    autocomplete_fields = ["user", "group"]
