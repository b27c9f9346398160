"""`manage.py receipt`: verify receipts, and show them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management.base import BaseCommand, CommandError, CommandParser

from executions.errors import NotEnded
from executions.models import Execution
from executions.receipts import contents, keys, services


class Command(BaseCommand):
    help = "Verifies receipts of executions, and shows them."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        verify = actions.add_parser(
            "verify",
            help="exit code 0 for one that is as it was signed, 1 for any other, 2 for no receipt",
        )
        verify.add_argument("file", type=Path, metavar="FILE")
        verify.add_argument(
            "--key",
            type=Path,
            metavar="PEM",
            help="a public key; without it the one of this installation, whose database then says"
            " what differs",
        )
        show = actions.add_parser("show", help="the receipt of an execution, as the API gives it")
        show.add_argument("exec_id", metavar="EXEC_ID")
        actions.add_parser("key", help="the public key of this installation, as PEM")

    def handle(self, *_: Any, action: str, **options: Any) -> None:
        actions: dict[str, Callable[..., None]] = {
            "verify": self.verify,
            "show": self.show,
            "key": self.key,
        }
        actions[action](**options)

    def verify(self, *, file: Path, key: Path | None, **_: Any) -> None:
        try:
            receipt = services.read(file.read_bytes())
        except (OSError, services.Unreadable) as error:
            raise CommandError(f"{file}: {error}", returncode=2) from None
        signer = _public_key(key) if key else keys.public_key()
        holds = services.signature_holds(receipt, signer)
        differing = [] if key else self._against_database(receipt)
        if holds:
            for line in differing:
                self.stderr.write(self.style.WARNING(f"by now: {line}"))
            self.stdout.write(f"valid: {receipt.said['exec_id']}, signed by {receipt.key}")
            return
        for line in differing:
            self.stderr.write(self.style.ERROR(line))
        if keys.key_id(signer) != receipt.key:
            why = f"it names the key {receipt.key}, this is {keys.key_id(signer)}"
        else:
            why = "it was changed after it was signed"
        raise CommandError(f"not valid: {why}", returncode=1)

    def _against_database(self, receipt: services.Receipt) -> list[str]:
        """How it differs from what the database says; nothing where that doesn't know it."""
        exec_id = receipt.said.get("exec_id")
        execution = Execution.objects.filter(exec_id=str(exec_id).replace("\0", "")).first()
        if execution is None:
            return [f"exec_id {exec_id!r} is not (or not any more) in the database"]
        known = json.loads(services.canonical(contents.of_execution(execution)))
        return list(services.differences(receipt.said, known))

    def show(self, *, exec_id: str, **_: Any) -> None:
        execution = Execution.objects.filter(exec_id=exec_id).first()
        if execution is None:
            raise CommandError(f"there is no execution {exec_id}")
        try:
            issued = services.issue(execution=execution)
        except NotEnded as error:
            raise CommandError(error.message) from None
        self.stdout.write(json.dumps(issued, indent=2, ensure_ascii=False))

    def key(self, **_: Any) -> None:
        self.stdout.write(keys.pem(keys.public_key()), ending="")


def _public_key(file: Path) -> Ed25519PublicKey:
    try:
        return keys.load_public(file.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: {error}", returncode=2) from None
