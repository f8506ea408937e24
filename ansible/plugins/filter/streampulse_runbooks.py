"""Ansible filters that render runbooks as HTML pages, which Prometheus serves."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from markdown_it import MarkdownIt
from markdown_it.token import Token

# A link to another runbook, optionally with an anchor.
SIBLING = re.compile(r"(?P<name>[a-z0-9-]+)\.md(?P<part>#.*)?")

# Readable by day and night, also on a phone; no script and no external resource.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - streampulse</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }}
h1, h2, h3 {{ line-height: 1.25; }}
h2 {{ margin-top: 2rem; }}
pre {{ padding: .75rem 1rem; overflow-x: auto; background: color-mix(in srgb, currentColor 8%, transparent); }}
code {{ font-family: ui-monospace, monospace; font-size: .9em; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8886; }}
.facts {{ opacity: .75; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


def page(text: object, proof: Mapping[str, object] | None = None) -> str:
    """Return a runbook in Markdown as a page: its title, its front matter as a line below, and its sections.

    Links to other runbooks lead to their pages. Other relative links become words.

    :param proof: what the runbook's drill has shown: version, told and recovered (seconds), and rows.
    :raises AnsibleFilterError: the front matter is not a YAML mapping.
    """
    facts, body = front_matter(str(text))
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(body)
    title = next((tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"), "Runbook")
    for token in tokens:
        if token.children:
            token.children = list(linked(token.children))
    rendered = parser.renderer.render(tokens, parser.options, {})
    shown = " · ".join(f"{name.replace('_', ' ')}: {words(value)}" for name, value in facts.items())
    if proof:
        shown += (
            " · proven on {version}: told after {told} s, recovered after {recovered} s, {rows} rows differ".format(
                **proof
            )
        )
    if shown:
        rendered = rendered.replace("</h1>\n", f'</h1>\n<p class="facts">{html.escape(shown)}</p>\n', 1)
    return PAGE.format(title=html.escape(title), body=rendered)


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    """Return a page's front matter and the rest.

    :raises AnsibleFilterError: it is not a YAML mapping.
    """
    if not text.startswith("---\n"):
        return {}, text
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    try:
        facts = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise AnsibleFilterError(f"the front matter of a runbook cannot be read: {error}") from None
    if not isinstance(facts, dict):
        raise AnsibleFilterError("the front matter of a runbook must be lines of `name: value`")
    return facts, body


def words(value: object) -> str:
    """Return a value of the front matter as people read it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def linked(tokens: Sequence[Token]) -> Iterator[Token]:
    """Yield a line's parts, with links to other runbooks leading to their HTML pages."""
    inside = False
    for token in tokens:
        target = str(token.attrGet("href") or "") if token.type == "link_open" else ""
        if token.type == "link_close" and not inside:
            continue
        if token.type == "link_open":
            beside = SIBLING.fullmatch(target)
            inside = bool(beside) or target.startswith(("http://", "https://", "#"))
            if not inside:
                continue
            if beside:
                token.attrSet("href", f"{beside['name']}.html{beside['part'] or ''}")
        yield token


def index(pages: Mapping[str, str]) -> str:
    """Return a page that leads to all runbooks.

    :param pages: the runbooks in Markdown, by name.
    """
    lines = ["# Runbooks\n", *(f"- [{heading(text)}]({name}.md)" for name, text in sorted(pages.items()))]
    return page("\n".join(lines) + "\n")


def heading(text: str) -> str:
    """Return a page's first heading."""
    return next((line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")), "Runbook")


class FilterModule:
    """The filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"streampulse_page": page, "streampulse_runbook_index": index}
