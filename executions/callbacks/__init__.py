"""Signed POSTs to the addresses that clients name, retried for a day."""
