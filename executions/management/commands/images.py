"""`manage.py images`: pull, list, import, remove and prune the container images of this host."""

import contextlib
import datetime as dt
import json
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from executions.audit.spool import record_of_host
from executions.audit.verbs import Verb
from executions.image_policy.inventory import host_name
from executions.image_store import image_store
from executions.sandbox.images import BadReference, Image, ImageError, ImageStore, StoredImage

REFRESH_SECS = 0.1
SHORT_DIGEST = len("sha256:") + 12


class ProgressLine:
    """One line that is written over and over on a terminal; elsewhere a line for each phase."""

    def __init__(self, out: OutputWrapper, name: str) -> None:
        self.out = out
        self.name = name
        self.terminal = out.isatty()
        self._phase = ""
        self._shown = 0.0

    def __call__(self, phase: str, done: int) -> None:
        changed, self._phase = phase != self._phase, phase
        if not self.terminal:
            if changed:
                self.out.write(f"{self.name}: {phase}")
            return
        if changed or time.monotonic() - self._shown >= REFRESH_SECS:
            self._shown = time.monotonic()
            size = f" {readable(done)}" if done else ""
            self.out.write(f"\r\033[K{self.name}: {phase}{size}", ending="")
            self.out.flush()

    def clear(self) -> None:
        if self.terminal:
            self.out.write("\r\033[K", ending="")


class Command(BaseCommand):
    help = "Pulls, lists, imports, removes and prunes container images."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        pull = actions.add_parser("pull", help="ask registries for images and get what is new")
        pull.add_argument("references", nargs="+", metavar="REF")
        listing = actions.add_parser("list", help="show the images of this host, last used first")
        listing.add_argument("--json", action="store_true", help="print JSON")
        bring = actions.add_parser("import", help="bring in an OCI or docker archive")
        bring.add_argument("archive", type=Path, metavar="ARCHIVE")
        bring.add_argument("name", metavar="NAME", help="for example boxer.local/tools:1")
        remove = actions.add_parser("remove", help="remove an image by reference or digest")
        remove.add_argument("reference", metavar="REF")
        prune = actions.add_parser("prune", help="remove the images used longest ago")
        prune.add_argument("--keep-bytes", type=_size, required=True, metavar="N")

    def handle(self, *_: Any, action: str, **options: Any) -> None:
        actions: dict[str, Callable[..., None]] = {
            "pull": self.pull,
            "list": self.tell,
            "import": self.bring_in,
            "remove": self.remove,
            "prune": self.prune,
        }
        try:
            actions[action](image_store(), **options)
        except (BadReference, ImageError) as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"the image store can't be used: {error}") from None

    def pull(self, store: ImageStore, *, references: list[str], **_: Any) -> None:
        """All of them, whatever becomes of one."""
        failed = 0
        for reference in references:
            try:
                with self._progress(reference) as line:
                    image = store.pull(reference, progress=line)
                self._report(image)
                note(Verb.IMAGE_PULLED, image.reference, digest=image.digest)
            except (BadReference, ImageError) as error:
                failed += 1
                self.stderr.write(self.style.ERROR(str(error)))
        if failed:
            raise CommandError(f"{failed} of {len(references)} could not be pulled")

    def bring_in(self, store: ImageStore, *, archive: Path, name: str, **_: Any) -> None:
        with self._progress(name) as line:
            image = store.import_archive(archive, name, progress=line)
        self._report(image)
        note(Verb.IMAGE_IMPORTED, image.reference, digest=image.digest, archive=str(archive))

    @contextlib.contextmanager
    def _progress(self, name: str) -> Iterator[ProgressLine]:
        line = ProgressLine(self.stdout, name)
        try:
            yield line
        finally:
            line.clear()

    def _report(self, image: Image) -> None:
        self.stdout.write(f"{image.reference} {image.digest} {readable(image.size)}")

    def tell(self, store: ImageStore, **options: Any) -> None:
        images = store.list_images()
        if options["json"]:
            self.stdout.write(_as_json(images))
            return
        if not images:
            self.stdout.write("No images.")
        for image in images:
            used = dt.datetime.fromtimestamp(image.last_used).astimezone()
            self.stdout.write(
                f"{image.digest[:SHORT_DIGEST]}  {readable(image.size):>9}"
                f"  used {used:%Y-%m-%d %H:%M}  {' '.join(image.references) or '(no name)'}"
            )

    def remove(self, store: ImageStore, *, reference: str, **_: Any) -> None:
        store.remove(reference)
        note(Verb.IMAGE_REMOVED, reference)
        self.stdout.write(f"Removed {reference}")

    def prune(self, store: ImageStore, *, keep_bytes: int, **_: Any) -> None:
        removed = store.prune(keep_bytes)
        for image in removed:
            name = " ".join(image.references) or image.digest
            self.stdout.write(f"Removed {name} ({readable(image.size)})")
            note(Verb.IMAGE_REMOVED, name, digest=image.digest, size=image.size)
        left = sum(image.size for image in store.list_images())
        self.stdout.write(f"Freed {readable(sum(i.size for i in removed))}; {left} bytes are left")


def note(verb: Verb, name: str, **details: object) -> None:
    """Into the audit log, by way of a file where there is no database."""
    record_of_host(
        settings.BOXER_HOME,
        verb,
        "image_policy.cachedimage",
        name,
        {"host": host_name(), "command": "images", **details},
    )


def _as_json(images: list[StoredImage]) -> str:
    values = []
    for image in images:
        used = dt.datetime.fromtimestamp(image.last_used, dt.UTC)
        values.append(
            {
                "digest": image.digest,
                "references": list(image.references),
                "size": image.size,
                "last_used": used.isoformat(timespec="seconds"),
            }
        )
    return json.dumps(values, indent=2)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def readable(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
