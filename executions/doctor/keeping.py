"""The database and the storage give back what they were given."""

import secrets

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import OperationalError, connection, transaction

from executions.doctor.findings import Broken, Skipped
from executions.doctor.models import Examination


def database() -> str:
    _needs_database()
    mark = secrets.token_hex(8)
    try:
        with transaction.atomic():
            written = Examination.objects.create(host=mark)
            read = Examination.objects.values_list("host", flat=True).get(pk=written.pk)
            transaction.set_rollback(True)
    except OperationalError as error:
        raise Broken(f"it doesn't answer: {str(error).strip()}") from None
    if read != mark or Examination.objects.filter(host=mark).exists():
        raise Broken("a row wasn't read back as it was written, or outlived its transaction")
    version = connection.cursor().execute("SHOW server_version").fetchone()[0]
    return f"PostgreSQL {version} wrote a row, gave it back and forgot it"


def storage() -> str:
    content = secrets.token_bytes(4096)
    name = default_storage.save(f"doctor/{secrets.token_hex(8)}", ContentFile(content))
    try:
        with default_storage.open(name) as file:
            read = file.read()
    finally:
        default_storage.delete(name)
    if read != content:
        raise Broken("contents weren't read back as they were written")
    if default_storage.exists(name):
        raise Broken("contents couldn't be deleted")
    return f"{type(default_storage._wrapped).__name__} gave {len(content)} bytes back"  # type: ignore[attr-defined]  # noqa: SLF001


def _needs_database() -> None:
    socket = settings.BOXER_HOME / "postgres" / "socket" / ".s.PGSQL.5432"
    if settings.BOXER_EMBEDDED_POSTGRES and not socket.exists():
        raise Skipped("the PostgreSQL of this home isn't running; `manage.py up` starts it")
