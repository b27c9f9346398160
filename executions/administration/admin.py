"""Registers what stands in modules of its own, and takes away what goes past all services."""

from django.contrib import admin
from django_q.models import Failure, OrmQ, Schedule, Success

from executions.administration.executions import ExecutionAdmin
from executions.administration.hosts import WorkerHostAdmin

__all__ = ["ExecutionAdmin", "WorkerHostAdmin"]

# django-q2's own pages delete messages whose runs would wait for ever, and make any function run.
admin.site.unregister([Failure, OrmQ, Schedule, Success])
