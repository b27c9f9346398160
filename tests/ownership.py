"""For each route that takes something of a user: how it is reached, for the walk over all routes.

A new route fails tests/test_ownership.py until it is here: in OWNED with requests for an object of
`mine`, in LISTS if it shows what is one's own, in GUARDED if it wants a permission, in OPEN if
nothing in it belongs to anybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Belongings:
    """What one user has. Values that no other user has, so that they'd be seen in an answer."""

    exec_id: str
    path: str
    content: str
    output_path: str
    token_id: int
    token_name: str
    batch_id: str

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.exec_id, self.path, self.content, self.token_name, self.batch_id)


@dataclass(frozen=True)
class Asked:
    """A request for somebody's object. `found` is what its owner is answered."""

    method: str
    path: str
    found: int = 200
    params: dict[str, str] | None = None
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    refused: int = 404
    page: bool = False
    """Of the pages: asked by a browser that is logged in. Others are asked by token as well."""
    destroys: bool = False
    """The owner asks last: afterwards the object is gone."""


def _run(mine: Belongings) -> list[Asked]:
    body = {"image": "boxer.invalid/none", "cmd": ["true"], "files": [mine.path], "persist": True}
    # Its owner gets past the files, to an image that there isn't.
    return [Asked("POST", "/run", json=body, found=500, refused=400)]


def _files(mine: Belongings) -> list[Asked]:
    return [
        Asked("GET", "/files", params={"path": mine.path}),
        Asked("GET", "/files", params={"path": mine.output_path}),
        Asked("HEAD", "/files", params={"path": mine.path}),
    ]


def _create(mine: Belongings) -> list[Asked]:
    body = {"image": "boxer.invalid/none", "cmd": ["true"], "files": [mine.path], "persist": True}
    return [Asked("POST", "/api/v1/executions/", json=body, found=202, refused=400)]


def _of_run(method: str, below: str, found: int = 200) -> Callable[[Belongings], list[Asked]]:
    def requests(mine: Belongings) -> list[Asked]:
        path = f"/api/v1/executions/{mine.exec_id}/{below}"
        return [Asked(method, path, found=found, destroys=method == "DELETE")]

    return requests


def _run_itself(mine: Belongings) -> list[Asked]:
    return [*_of_run("GET", "")(mine), *_of_run("DELETE", "", 204)(mine)]


def _create_batch(mine: Belongings) -> list[Asked]:
    run = {"image": "boxer.invalid/none", "cmd": ["true"], "files": [mine.path], "persist": True}
    return [Asked("POST", "/api/v1/batches/", json={"runs": [run]}, found=202, refused=400)]


def _of_batch(method: str, below: str, found: int = 200) -> Callable[[Belongings], list[Asked]]:
    return lambda mine: [Asked(method, f"/api/v1/batches/{mine.batch_id}/{below}", found=found)]


_BATCH = "/api/v1/batches/<str:batch_id>/"
_RUN = "/api/v1/executions/<str:exec_id>/"

OWNED: dict[str, Callable[[Belongings], list[Asked]]] = {
    "/run": _run,
    "/files": _files,
    "/api/v1/executions/<slug:exec_id>/callbacks/": _of_run("GET", "callbacks/"),
    "/api/v1/executions/<slug:exec_id>/receipt/": _of_run("GET", "receipt/"),
    "/api/v1/executions/": _create,
    _RUN: _run_itself,
    "/api/v1/batches/": _create_batch,
    _BATCH: _of_batch("GET", ""),
    f"{_BATCH}cancel/": _of_batch("POST", "cancel/", 409),
    f"{_BATCH}results/": _of_batch("GET", "results/"),
    f"{_RUN}cancel/": _of_run("POST", "cancel/", 409),
    f"{_RUN}rerun/": _of_run("POST", "rerun/", 202),
    f"{_RUN}stdout/": _of_run("GET", "stdout/"),
    f"{_RUN}stderr/": _of_run("GET", "stderr/"),
    f"{_RUN}events/": _of_run("GET", "events/"),
    f"{_RUN}files/": _of_run("GET", "files/"),
    f"{_RUN}files.zip": _of_run("GET", "files.zip"),
    f"{_RUN}files/<path:path>": _of_run("GET", "files/left.txt"),
    "/runs/<str:exec_id>/": lambda mine: [
        Asked("GET", f"/runs/{mine.exec_id}/", found=404, page=True)
    ],
    "/runs/new": lambda mine: [
        Asked(
            "POST",
            "/runs/new",
            form={"image": "boxer.invalid/none", "command": "true", "files": mine.path},
            found=302,
            refused=400,
            page=True,
        )
    ],
    "/runs/change": lambda mine: [
        # Its owner has deleted it by the API by then.
        Asked(
            "POST",
            "/runs/change",
            form={"run": mine.exec_id, "change": change, "sure": "yes"},
            found=404,
            page=True,
        )
        for change in ("cancel", "delete", "rerun")
    ],
    "/api/v1/tokens/<int:token_id>/": lambda mine: [
        Asked("DELETE", f"/api/v1/tokens/{mine.token_id}/", found=204, destroys=True)
    ],
    "/account/tokens/<int:token_id>/revoke": lambda mine: [
        # Its owner has revoked it by the API by then.
        Asked("POST", f"/account/tokens/{mine.token_id}/revoke", found=404, page=True)
    ],
}


@dataclass(frozen=True)
class Listed:
    """A route that shows one's own things by GET."""

    shows: Callable[[Belongings], str]
    page: bool = False
    all_for_staff: bool = False


LISTS = {
    "/api/v1/tokens/": Listed(lambda mine: mine.token_name),
    "/account/": Listed(lambda mine: mine.token_name, page=True),
    "/": Listed(lambda mine: mine.exec_id, page=True),
    "/runs/": Listed(lambda mine: mine.exec_id, page=True, all_for_staff=True),
    "/runs/export.csv": Listed(lambda mine: mine.exec_id, page=True, all_for_staff=True),
    "/runs/export.jsonl": Listed(lambda mine: mine.exec_id, page=True, all_for_staff=True),
    "/api/v1/batches/": Listed(lambda mine: mine.batch_id, all_for_staff=True),
    "/api/v1/executions/": Listed(lambda mine: mine.exec_id, all_for_staff=True),
}

GUARDED = frozenset(
    {
        "/api/v1/images/",
        "/api/v1/images/prefetch/",
        "/api/v1/images/prefetch/<uuid:prefetch_id>/",
        "/api/v1/image-rules/",
        "/api/v1/image-rules/<row:rule_id>/",
    }
)
"""Routes to what belongs to the installation: 403 without a permission, whatever is there."""

OPEN = frozenset(
    {
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/openapi.yaml",
        "/swagger",
        "/redoc",
        "/login",
        "/logout",
        "/admin/login/",
        "/admin/logout/",
        # What who asks may still do, and the key of what they are sent.
        "/api/v1/callback-secret/",
        "/api/v1/receipt-key/",
        "/api/v1/quota/",
        # Forms that make or change something of who sends them, and name no object.
        "/account/tokens",
        "/account/password",
    }
)
