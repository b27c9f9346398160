"""What is written down by listening: logins, downloads, and changes of who may do what."""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from executions.audit.recording import record, record_failure
from executions.audit.requests import actor_of, address_of, current_actor
from executions.audit.verbs import Verb
from executions.audit.watching import Watched, watch
from executions.audit.watching import connect as connect_watching
from filestore.models import StoredFile
from filestore.signals import downloaded

WATCHED = {
    "auth.user": Watched(
        Verb.USER_CREATED,
        Verb.USER_CHANGED,
        Verb.USER_DELETED,
        hidden=frozenset({"password"}),
        ignored=frozenset({"last_login", "date_joined"}),
        owner="pk",
    ),
    "auth.group": Watched(Verb.GROUP_CREATED, Verb.GROUP_CHANGED, Verb.GROUP_DELETED),
    "accounts.token": Watched(
        Verb.TOKEN_CREATED,
        None,
        Verb.TOKEN_REVOKED,
        hidden=frozenset({"digest", "token_key"}),
        ignored=frozenset({"last_used_at"}),
        owner="user_id",
    ),
    "quotas.quota": Watched(Verb.QUOTA_CREATED, Verb.QUOTA_CHANGED, Verb.QUOTA_DELETED),
}


def connect() -> None:
    for label, watched in WATCHED.items():
        watch(label, watched)
    connect_watching()
    user_logged_in.connect(_logged_in, dispatch_uid="audit")
    user_logged_out.connect(_logged_out, dispatch_uid="audit")
    user_login_failed.connect(_login_failed, dispatch_uid="audit")
    downloaded.connect(_downloaded, dispatch_uid="audit")


def _logged_in(request: HttpRequest, user: User, **_: Any) -> None:
    record(actor_of(request, user), Verb.LOGGED_IN, "auth.user", user.pk)


def _logged_out(request: HttpRequest, user: User | None, **_: Any) -> None:
    if user is not None:
        record(actor_of(request, user), Verb.LOGGED_OUT, "auth.user", user.pk)


def _login_failed(
    credentials: Mapping[str, Any], request: HttpRequest | None = None, **_: Any
) -> None:
    address = address_of(request) if request is not None else current_actor().address
    name = str(credentials.get("username", ""))
    record_failure(Verb.LOGIN_FAILED, username=name, address=address)


def _downloaded(request: Any, stored_file: StoredFile, **_: Any) -> None:
    record(
        actor_of(request),
        Verb.FILE_DOWNLOADED,
        "filestore.storedfile",
        stored_file.path,
        owner_id=stored_file.owner_id,
        details={"sha256": stored_file.blob.sha256, "bytes": stored_file.blob.size},
    )
