"""History: the pages on which people look at their runs."""

from django.apps import AppConfig


class HistoryConfig(AppConfig):
    name = "executions.history"
    label = "history"
    verbose_name = "History"
