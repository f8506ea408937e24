"""The page for producers has every detail text that a dead letter can have, and no other."""

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[3]
#: Stands for what is known only when the letter is written.
PLACEHOLDER = "\x00"
#: Functions that get a detail, with the position of that argument.
WRITERS = {"InvalidEvent": 0, "exclude": 1, "_refuse": 2}


def texts(node: ast.expr, names: Mapping[str, object]) -> list[str]:
    """Return the texts that an expression can have."""
    if isinstance(node, ast.IfExp):
        return texts(node.body, names) + texts(node.orelse, names)
    if isinstance(node, ast.JoinedStr):
        parts = [texts(each.value if isinstance(each, ast.FormattedValue) else each, names) for each in node.values]
        return ["".join(each) for each in product(*parts)]
    try:
        code = compile(ast.Expression(node), "", "eval")
        return [str(eval(code, {"__builtins__": {}}, dict(names)))]  # noqa: S307 - the repository's own code
    except (NameError, TypeError, AttributeError):
        return [PLACEHOLDER]


def written() -> Iterator[str]:
    """Yield every detail text in the code that decides about records."""
    folder = ROOT / "src/streampulse"
    for file in [folder / "events.py", *sorted((folder / "job").rglob("*.py"))]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
        named = [(each, getattr(each.func, "id", getattr(each.func, "attr", ""))) for each in calls]
        given = [call.args[WRITERS[name]] for call, name in named if len(call.args) > WRITERS.get(name, 99)]
        if given:
            module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts)
            names = vars(importlib.import_module(module))
            for node in given:
                yield from (text for text in texts(node, names) if ": " in text)


def test_every_detail_is_on_the_page_and_every_detail_of_the_page_is_written() -> None:
    page = (ROOT / "docs/send-your-own-events.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^- `([^`]+)`:", page.partition("## What a dead letter says")[2], re.MULTILINE))
    found = set(written())
    assert len(found) > 25
    explained = set()
    for text in found:
        pattern = "[A-Z]+".join(re.escape(part) for part in text.split(PLACEHOLDER))
        # A field has an entry of its own, or the one for all fields.
        _, rest = text.split(":", 1)
        entries = listed & {text, f"FIELD:{rest}"} if PLACEHOLDER not in text else set()
        entries = entries or {entry for entry in listed if re.fullmatch(pattern, entry)}
        assert entries, f"{text!r} is not on the page"
        explained |= entries
    assert listed - explained == set()
