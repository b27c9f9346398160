"""Watching runs: what one prints, published while somebody looks."""

from django.apps import AppConfig


class EventsConfig(AppConfig):
    name = "executions.events"
    label = "events"
    verbose_name = "Events"
