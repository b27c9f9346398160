"""Signed receipts of executions that have ended."""
