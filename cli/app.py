"""The commands, and what ends them: an exit code, and one line when something is wrong."""

import sys
from typing import NoReturn

import typer

from cli import interrupts, terminal
from cli.commands import account, batches, files, images, looking, running
from cli.errors import FAILED, ClientError

app = typer.Typer(
    name="boxer",
    help="Run any command of any container image in a sandbox, on a Boxer elsewhere.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    running.run,
    batches.batch,
    looking.ps,
    looking.logs,
    looking.cancel,
    looking.rm,
    running.rerun,
    images.images,
    images.pull,
    account.quota,
    account.login,
):
    app.command()(command)
app.command("batch-results")(batches.batch_results)
app.add_typer(files.app, name="files")


def main() -> NoReturn:
    """`boxer`."""
    interrupts.install()
    try:
        # In Typer's other mode a wrong option would end with 2, as any program may.
        code = app(sys.argv[1:] or ["--help"], prog_name="boxer", standalone_mode=False)
    except typer.TyperException as error:
        terminal.complain(f"{error.format_message().rstrip('.')} (boxer --help)")
        sys.exit(FAILED)
    except typer.Abort:
        terminal.complain("no answer to the question")
        sys.exit(FAILED)
    except ClientError as error:
        terminal.complain(error.message)
        sys.exit(error.code)
    except interrupts.Interrupted as interruption:
        sys.exit(interruption.code)
    except OSError as error:
        terminal.complain(f"{error.filename or 'the system'}: {error.strerror}")
        sys.exit(FAILED)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # Answers are taken for what the API's description says.
        kind = type(error).__name__
        terminal.complain(f"the server answers what this client doesn't know ({kind}: {error})")
        sys.exit(FAILED)
    sys.exit(code if isinstance(code, int) else 0)
