"""Requests that a client may repeat without their being done twice."""

from django.apps import AppConfig


class IdempotencyConfig(AppConfig):
    name = "executions.idempotency"
    label = "idempotency"
    verbose_name = "Idempotency"
