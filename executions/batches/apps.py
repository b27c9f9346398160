"""Many runs in one request, with one that builds what they run."""

from django.apps import AppConfig


class BatchesConfig(AppConfig):
    name = "executions.batches"
    label = "batches"
    verbose_name = "Batches"
