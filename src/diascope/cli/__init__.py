"""The command line: one verb a stage. Wrong input ends with one sentence and exit code 2."""

from __future__ import annotations

import io
import os
import signal
import sys

import tyro
from rich.console import Console
from rich.markup import escape

from diascope.cli.audit import AuditCommand
from diascope.cli.carry import Convert, Publish
from diascope.cli.compare import Compare
from diascope.cli.data import Contrast, Encode
from diascope.cli.describe import Describe
from diascope.cli.export import Export, Import
from diascope.cli.index import Index
from diascope.cli.judge import Eval, Explore, Inspect, Verify
from diascope.cli.make import Chat, Demo, Finetune, Suite, Train
from diascope.cli.organism import Organism
from diascope.cli.page import Page
from diascope.cli.plan import Plan
from diascope.cli.terminal import out
from diascope.cli.trace import Trace

COMMANDS = {
    "demo": Demo, "train": Train, "suite": Suite, "finetune": Finetune, "chat": Chat, "eval": Eval,
    "compare": Compare, "describe": Describe, "index": Index, "encode": Encode, "contrast": Contrast, "convert": Convert,
    "inspect": Inspect, "plan": Plan, "trace": Trace, "audit": AuditCommand, "publish": Publish, "export": Export, "import": Import, "organism": Organism, "explore": Explore, "page": Page, "verify": Verify,
}  # fmt: skip


def stop(*_: object) -> None:
    """A scheduler's stop is Ctrl-C: whoever saves at the one saves at the other."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job that a shell put in the background ignores Ctrl-C alone
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def main() -> None:
    """Entry point of the `diascope` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII alone gets question marks, not a failure at the end
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, stop)
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="diascope", description=__doc__)
    try:
        command.run()
    except KeyboardInterrupt as asked:
        out.print(f"[yellow]interrupted[/yellow] {asked}")
        sys.exit(130)
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("DIASCOPE_TRACEBACK"):
            raise
        Console(stderr=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
