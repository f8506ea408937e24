"""The repository's generated files: reference pages and dashboards.

The settings come from the classes of :mod:`streampulse.core.settings` and the roles' argument specifications. The
commands come from the tasks and the parsers of the ``streampulse`` command, the dashboards from
:mod:`streampulse_ops.monitoring`.
"""

import argparse
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from invoke.collection import Collection
from invoke.loader import FilesystemLoader
from invoke.tasks import Task
from pydantic_settings import BaseSettings

from streampulse.core import settings
from streampulse.host import cli
from streampulse_ops import services
from streampulse_ops.docs.markdown import table
from streampulse_ops.monitoring import dashboards, findings, page

FOLDER: Final = "docs/reference"
COMMAND: Final = "./inv docs"
_HEADER: Final = f"<!-- Made by `{COMMAND}`. Change the code that it describes, not this page. -->\n"
#: The settings classes in the order of the page, each with its file on a host. A class whose variables another class
#: has too (the oracle's part of the job's settings) has no section.
_CLASSES: Final[Sequence[tuple[type[BaseSettings], str]]] = (
    (settings.KafkaSettings, "kafka.env"),
    (settings.PostgresSettings, "postgres-writer.env, postgres-reader.env"),
    (settings.JobSettings, "job.env"),
    (settings.GeneratorSettings, "generator.env"),
    (settings.ApiSettings, "api.env"),
    (settings.ProbeSettings, "probe.env, probe-key.env"),
    (settings.MonitoringSettings, "monitoring.env"),
)


def settings_page(root: Path) -> str:
    """Return the settings reference."""
    parts = [
        "# Settings\n",
        _HEADER,
        "Two kinds. An inventory sets *variables of roles*, under `all.vars` or for a group or a host. The roles write",
        "*variables of services* into `/etc/streampulse/*.env` on the hosts, where the services read them. What an",
        "inventory does not set keeps the default shown here. After a change: `./inv up`.\n",
        "## Variables of roles\n",
    ]
    for role in sorted((root / "ansible/roles").iterdir()):
        parts += _role(role)
    parts += [
        "## Variables of services\n",
        "The settings of the job, the generator and the API are set through the dictionaries `job_settings`,",
        "`generator_settings` and `api_settings`, by the variable's name without its prefix and in lower case, where",
        "the role lists it. Addresses, ports and credentials come from the inventory's topology and need no setting.\n",
    ]
    for kind, file in _CLASSES:
        parts += _settings_class(kind, file)
    return "\n".join(parts).rstrip() + "\n"


def _role(role: Path) -> Iterator[str]:
    specification = role / "meta/argument_specs.yml"
    if not specification.is_file():
        return
    main = yaml.safe_load(specification.read_text(encoding="utf-8"))["argument_specs"]["main"]
    options = main.get("options") or {}
    if not options:
        return
    yield f"### Role `{role.name}`\n"
    yield f"{main['short_description']}.\n"
    yield from table(("variable", "type", "default", "meaning"), _options(options, ""))
    yield ""


def _options(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, ...]]:
    listed: dict[str, str] = {}
    for name, option in options.items():
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        default = "required" if option.get("required") else _value(option.get("default"))
        meaning, inner = str(option["description"]), option.get("options") or {}
        if name.endswith("_settings") and inner:
            # The section of the service's own variables explains them.
            meaning += f" Keys: {', '.join(f'`{key}`' for key in inner)}."
            inner = {}
        elif inner and (same := listed.setdefault(str(inner), name)) != name:
            meaning, inner = f"The same as `{prefix}{same}`.", {}
        yield f"`{prefix}{name}`", kind, default, meaning
        yield from _options(inner, f"{prefix}{name}.")


def _settings_class(kind: type[BaseSettings], file: str) -> Iterator[str]:
    prefix = str(kind.model_config["env_prefix"])
    about = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split()).removesuffix(".")
    yield f"### {about} (`{'`, `'.join(file.split(', '))}`)\n"
    # pydantic's types and limits in the one form that does not depend on their notation.
    schema = kind.model_json_schema()["properties"]
    rows = []
    for name, field in kind.model_fields.items():
        described = schema[name]
        default = "required" if field.is_required() else _value(field.default)
        rows.append((f"`{prefix}{name.upper()}`", _type(described), default, str(field.description or "")))
    yield from table(("variable", "type", "default", "meaning"), rows)
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    variants = [variant for variant in schema.get("anyOf", [schema]) if variant.get("type") != "null"]
    kind = variants[0]
    if "pattern" in kind:
        return "one of " + ", ".join(f"`{word}`" for word in re.findall(r"[\w-]+", kind["pattern"]))
    name = "secret" if kind.get("format") == "password" else str(kind["type"])
    above = kind.get("minimum", kind.get("exclusiveMinimum"))
    limits = []
    if above is not None:
        limits.append(f"{'more than' if 'exclusiveMinimum' in kind else 'from'} {_number(above)}")
    if "maximum" in kind:
        limits.append(f"{'up to' if 'exclusiveMinimum' in kind or above is None else 'to'} {_number(kind['maximum'])}")
    return " ".join([name, *limits])


def services_page(root: Path) -> str:
    """Return the reference of services."""
    ports = yaml.safe_load((root / "ansible/ports/defaults.yml").read_text(encoding="utf-8"))
    numbers = ports["all"]["vars"]["streampulse_default_ports"]
    rows = [
        (
            f"`{each.name}`{' (full)' * each.full}",
            f"`{each.unit.replace('*', 'VERSION')}`{' (packaged)' * each.packaged}",
            f"`{each.group}`",
            f"`{each.user}`",
            each.needed,
            each.severity,
            ", ".join(f"{purpose} {numbers[name]}".strip() for name, purpose in each.ports.items()),
        )
        for each in services.all_services()
    ]
    return "\n".join(
        [
            "# Services\n",
            _HEADER,
            "The order is the order of starting. Only `--full` sets up, stops and wipes the services that are marked",
            "`full`. The group `all` is every host that has another group. *Needed* says how many hosts of the group",
            "must run the service, *down* the severity of the alert when they do not.\n",
            *table(("service", "unit", "group", "user", "needed", "down", "listens on"), rows),
            "",
        ]
    )


def commands_page(root: Path) -> str:
    """Return the command reference."""
    parts = [
        "# Commands\n",
        _HEADER,
        "## Tasks: `./inv TASK`\n",
        "They run on the control machine. `./inv --help TASK` explains the options.\n",
    ]
    found = tasks(root)
    parts += table(("task", "does", "options"), (_task(name, found[name]) for name in sorted(found.task_names)))
    parts += [
        "\n## The `streampulse` command on a host\n",
        "Services and checks, run by their units and by the tasks above. By hand: `./inv ssh HOST`, then",
        "`streampulse COMMAND` as root; `streampulse COMMAND --help` explains the arguments. Exit codes: 0 done, 1 a",
        "failure that is explained in one line, 2 wrong usage.\n",
        *table(("command", "does", "arguments"), (_subcommand(name, *entry) for name, entry in cli.COMMANDS.items())),
        "",
    ]
    return "\n".join(parts)


def tasks(root: Path) -> Collection:
    """Return the collection of the tasks in ``tasks.py``."""
    module, folder = FilesystemLoader(start=str(root)).load("tasks")
    return Collection.from_module(module, loaded_from=folder)


def _task(name: str, task: Task[Any]) -> tuple[str, str, str]:
    """Return how a task is called, what it does, and its options."""
    # Invoke does not mark optional positional arguments; those with a default are optional.
    parameters = inspect.signature(task.body).parameters
    words, options = [name], []
    for argument in task.get_arguments():
        if argument.positional:
            needed = parameters[argument.attr_name or argument.name].default is inspect.Parameter.empty
            words.append(argument.name.upper() if needed else f"[{argument.name.upper()}]")
        else:
            # A parameter named like a Python keyword ends in an underscore; its option does not.
            name = argument.name.rstrip("_-").replace("_", "-")
            options.append(f"`{'-' if len(name) == 1 else '--'}{name}`")
    return f"`{' '.join(words)}`", (task.__doc__ or "").partition("\n")[0], ", ".join(options)


def _subcommand(name: str, module: str, summary: str) -> tuple[str, str, str]:
    """Return a subcommand of ``streampulse``, its summary, and its arguments."""
    parser = argparse.ArgumentParser(prog=f"streampulse {name}", add_help=False)
    importlib.import_module(module).add_arguments(parser)
    shown = []
    for action in parser._actions:  # argparse has no public list of a parser's arguments
        if action.help != argparse.SUPPRESS:
            shown.append(action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest))
    return f"`{name}`", summary, ", ".join(f"`{each}`" for each in shown)


def _value(value: object) -> str:
    if value is None:
        return "unset"
    if value in ("", {}, []):
        return "empty"
    if isinstance(value, Mapping):
        return ", ".join(f"`{name}: {item}`" for name, item in value.items())
    return f"`{_number(value)}`"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


#: Each generated file, relative to the checkout, with its generator.
PAGES: Final[Mapping[str, Callable[[Path], str]]] = {
    f"{FOLDER}/settings.md": settings_page,
    f"{FOLDER}/commands.md": commands_page,
    f"{FOLDER}/services.md": services_page,
    page.FILE: page.page,
    findings.PAGE: findings.page,
    findings.SCHEMA: findings.schema,
    **dashboards.files(),
}


def stale(root: Path) -> list[str]:
    """Return the stale files, relative to the checkout."""
    found = []
    for name, make in PAGES.items():
        file = root / name
        if not file.is_file() or file.read_text(encoding="utf-8") != make(root):
            found.append(name)
    return found


def write(root: Path, names: Sequence[str]) -> None:
    """Write generated files.

    :param names: keys of :data:`PAGES`.
    """
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(PAGES[name](root), encoding="utf-8")
