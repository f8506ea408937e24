"""``inv runbook``: list the runbooks, show one, check all of them, or run one."""

import difflib
from collections.abc import Callable

from rich.markdown import Markdown
from rich.table import Table

from streampulse.core.errors import OperatorError, UsageError
from streampulse_ops import paths
from streampulse_ops.cli.console import Screen
from streampulse_ops.environments.session import Session
from streampulse_ops.runbooks import drills, page, validate
from streampulse_ops.runbooks import run as running
from streampulse_ops.runbooks.page import Runbook


def listed(screen: Screen) -> str:
    """Print a table of the runbooks and return the closing words."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "kind", "severity", "about"):
        table.add_column(heading, no_wrap=heading != "about", overflow="fold")
    books = page.load(paths.repository())
    for book in books.values():
        table.add_row(book.name, book.kind, book.severity, book.title)
    screen.console.print(table)
    return f"{len(books)} runbooks; inv runbook show NAME"


def named(name: str) -> Runbook:
    """Return a runbook by its name, or by the name of an alert.

    :raises UsageError: there is none.
    """
    books = page.load(paths.repository())
    for book in books.values():
        if name == book.name or name in book.alerts:
            return book
    near = difflib.get_close_matches(name, books, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "inv runbook list shows all"
    raise UsageError(f"{name or 'nothing'} is not a runbook. {hint}")


def show(screen: Screen, name: str, session: Session | None) -> str:
    """Print a runbook and the proofs of its drill, and return the closing words.

    :param session: the environment whose own proof is printed as well.
    :raises UsageError: there is none of this name.
    """
    book = named(name)
    screen.console.print(Markdown(book.text.partition("\n---\n")[2]))
    files = [paths.repository() / drills.PROOFS, *([] if session is None else [drills.own_file(session.environment)])]
    for file in files:
        if book.name in (found := drills.proofs(file)):
            screen.line(str(found[book.name]))
    return f"{len(book.steps)} steps; inv runbook run {book.name}"


def check(screen: Screen, session: Callable[[], Session] | None) -> str:
    """Check every runbook and return the closing words.

    :param session: opens the environment on whose hosts the pages' programs are looked for; None: on no host.
    :raises OperatorError: there is a fault, or a host cannot be reached.
    """
    faults = validate.validate(paths.repository())
    if session is not None:
        faults += validate.on_hosts(session())
    for fault in faults:
        screen.line(f"  {fault}")
    if faults:
        raise OperatorError(f"{len(faults)} faults in {page.FOLDER}: correct the lines above")
    return "every runbook is well"


def run(session: Session, name: str, options: running.Options) -> str:
    """Run a runbook and return the closing words.

    :raises UsageError: there is no such runbook or step.
    :raises OperatorError: a result was unexpected; the text says where and what the page says next.
    """
    return running.Walk(session, named(name), options).run()
