"""Accounts: API tokens, logins, who may see what."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "executions.accounts"
    label = "accounts"
    verbose_name = "Accounts"

    def ready(self) -> None:
        from executions.accounts import openapi  # noqa: F401, PLC0415 (registers the schemes)
