"""`python -m benchmarks.admin_pages ROWS REQUESTS`: asks each page of the admin, by a large table.

A process of its own, since Django's settings belong to one home. It prints JSON: the milliseconds
of each request through all middleware to the whole page, by what was asked for.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator

import django
from django.core.management import call_command
from django.db import connection
from django.test import Client

from benchmarks import admin_rows

LIST = "/admin/executions/execution/"
WARM_UP = 2
"""Requests before those that count: templates are compiled, plans made."""


def main() -> None:
    rows, requests = (int(argument) for argument in sys.argv[1:])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boxer_site.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    admin_rows.make(rows)
    json.dump({name: _asked(client(), urls, requests) for name, urls in pages(rows)}, sys.stdout)


def client() -> Client:
    from django.contrib.auth import get_user_model  # noqa: PLC0415 (models need the set-up)

    user, made = get_user_model().objects.get_or_create(username="operator")
    if made:
        user.is_staff = user.is_superuser = True
        user.save()
    # Its host is one that the settings allow.
    asking = Client(SERVER_NAME="localhost")
    asking.force_login(user)
    return asking


def pages(rows: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is asked for, and a way to have an address of it: days and ids are others each time."""
    chance = random.Random(1)  # noqa: S311 (the same days in each go)
    days = _column("SELECT (now() - n * interval '1 day')::date FROM generate_series(0, 399) n")
    some = "SELECT {} FROM executions_execution WHERE status = 'finished' LIMIT 200"
    ids, exec_ids = _column(some.format("id")), _column(some.format("exec_id"))

    def fixed(query: str) -> Callable[[], str]:
        return lambda: f"{LIST}{query}"

    yield "executions", fixed("")
    yield "executions, last page counted", fixed(f"?p={min(40, max(1, rows // 50))}")
    for state in ("exited", "timed_out", "infra_error", "cancelled", "queued", "running"):
        yield f"  state {state}", fixed(f"?state={state}")
    yield "  a year", lambda: f"{LIST}?submitted={chance.choice(days)[:4]}"
    yield "  a month", lambda: f"{LIST}?submitted={chance.choice(days)[:7]}"
    yield "  a day", lambda: f"{LIST}?submitted={chance.choice(days)}"
    yield "  a day and exited", lambda: f"{LIST}?submitted={chance.choice(days)}&state=exited"
    yield (
        "  a day and infra_error",
        lambda: f"{LIST}?submitted={chance.choice(days)}&state=infra_error",
    )
    yield "  an empty year", fixed("?submitted=1999")
    yield "  search: an id", lambda: f"{LIST}?q={chance.choice(exec_ids)}"
    yield "  search: the beginning of an id", lambda: f"{LIST}?q={chance.choice(exec_ids)[:9]}"
    yield "  search: who has half of them", fixed("?q=bench0")
    yield "  search: who has five old ones", fixed("?q=bench199")
    yield "  search: nobody", fixed("?q=nobody")
    yield "  who has half, and infra_error", fixed("?q=bench0&state=infra_error")
    yield "  who has five, and timed_out", fixed("?q=bench199&state=timed_out")
    yield "  who has half, on a day", lambda: f"{LIST}?q=bench0&submitted={chance.choice(days)}"
    yield "one execution", lambda: f"{LIST}{chance.choice(ids)}/change/"
    yield "overview", lambda: "/admin/overview/"
    yield "hosts", lambda: "/admin/executions/workerhost/"
    yield "index", lambda: "/admin/"
    for path in ("audit/entry", "filestore/storedfile", "filestore/blob", "callbacks/delivery"):
        yield path, lambda path=path: f"/admin/{path}/"  # type: ignore[misc]


def _asked(asking: Client, address: Callable[[], str], requests: int) -> list[float]:
    """Raises RuntimeError for any other answer than 200."""
    samples = []
    for number in range(WARM_UP + requests):
        url = address()
        began = time.perf_counter()
        answer = asking.get(url)
        took = (time.perf_counter() - began) * 1000
        if answer.status_code != 200:
            raise RuntimeError(f"{url}: {answer.status_code}")
        if number >= WARM_UP:
            samples.append(took)
    return samples


def _column(sql: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return [str(row[0]) for row in cursor.fetchall()]


if __name__ == "__main__":
    main()
