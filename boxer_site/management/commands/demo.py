"""`manage.py demo URL`: a hello world through the HTTP API, as a person would send it."""

import json
import shlex
from argparse import ArgumentParser
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from executions.image_store import image_store
from executions.sandbox.debian_image import build_python_image
from executions.sandbox.spec import SandboxError

IMAGE = "python:3.12-slim"
OWN_IMAGE = "boxer.local/python:debian"
PROGRAM = 'print("Hello, world!")'
UNREACHABLE = frozenset({"pull_failed", "pull_timeout", "image_not_found"})


class Command(BaseCommand):
    help = "Run a hello world on a service, and show the request and the answer."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("url", help="For example http://127.0.0.1:8080")

    def handle(self, *, url: str, **_: object) -> None:
        image = IMAGE
        self.say(f"Running a hello world in {image} …")
        status, answer = post(f"{url}/run", request(image))
        if answer.get("code") in UNREACHABLE:
            self.say(f"Its registry can't be reached from here: {answer['error']}")
            image = OWN_IMAGE
            self.provide_own_image()
            status, answer = post(f"{url}/run", request(image))
        self.say(f"\n$ {curl(f'{url}/run', request(image))}\n{json.dumps(answer, indent=2)}\n")
        if status != 200:
            raise CommandError(f"the demo failed with status {status}")

    def provide_own_image(self) -> None:
        store = image_store()
        if store.cached(OWN_IMAGE) is not None:
            return
        self.say(f"Building {OWN_IMAGE} from this machine's Debian packages instead (a minute) …")
        directory = settings.BOXER_HOME / "tmp"
        directory.mkdir(exist_ok=True, mode=0o711)
        try:
            with TemporaryDirectory(prefix="demo-", dir=directory) as temporary:
                archive = Path(temporary) / "python.tar"
                build_python_image(archive)
                store.import_archive(archive, OWN_IMAGE)
        except SandboxError as error:
            raise CommandError(f"the demo has no image: {error}") from None

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def request(image: str) -> str:
    return json.dumps({"image": image, "cmd": ["python3", "-c", PROGRAM]})


def curl(url: str, body: str) -> str:
    return f"curl {url} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def post(url: str, body: str) -> tuple[int, dict[str, Any]]:
    message = Request(url, body.encode(), {"Content-Type": "application/json"})  # noqa: S310
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(message, timeout=settings.BOXER_PULL_TIMEOUT_SECS + 60) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)
    except (OSError, HTTPException, ValueError) as error:
        raise CommandError(f"the demo got no answer from {url}: {error}") from None
