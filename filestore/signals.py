"""What the file store tells whoever wants to know; it imports none of them."""

from django.dispatch import Signal

downloaded = Signal()
"""Sent with `request` and `stored_file` before contents are handed out, not for HEAD or 304."""
