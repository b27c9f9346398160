"""The file store: contents addressed by their hash, and the paths by which users know them."""

from django.apps import AppConfig


class FilestoreConfig(AppConfig):
    name = "filestore"
    verbose_name = "File store"
