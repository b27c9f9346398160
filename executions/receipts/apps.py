from django.apps import AppConfig


class ReceiptsConfig(AppConfig):
    name = "executions.receipts"
    label = "receipts"
    verbose_name = "Receipts"
