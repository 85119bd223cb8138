"""Command-line arguments: the values that each may have, and help under the headings of the source.

A script's Args is a dataclass. An annotation such as `PositiveInt` names the domain of an argument; `check_arguments`,
called in `__post_init__`, refuses a value outside it before anything loads. A comment `# --- heading ---` between the
arguments is a heading of --help.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import tyro

REFUSED = 2  # exit code of a program that stops before its first step because of what it was given


@dataclasses.dataclass(frozen=True)
class Domain:
    """The values that an argument may have: `text` completes "must be ...", `holds` tests a value."""

    text: str
    holds: Callable[[Any], bool]


def at_least(least: int) -> Domain:
    """Returns the domain of the whole numbers from `least` on."""
    return Domain(f"a whole number of {least} or more", lambda value: value >= least)


BAD_NAME = re.compile(r"/|^\.")
# Model, seed and time follow it in the name of a run folder, and no file system takes more than 255 bytes.
LONGEST_NAME = 100
# Each is a process of some 200 MB, and more than the cores can run are of no use.
MOST_WORKERS = max(64, 4 * (os.cpu_count() or 1))

PositiveInt = Annotated[int, at_least(1)]
NonNegativeInt = Annotated[int, at_least(0)]
Workers = Annotated[
    int, Domain(f"a whole number from 0 to {MOST_WORKERS} on this machine", lambda value: 0 <= value <= MOST_WORKERS)
]
AtLeastTwo = Annotated[int, at_least(2)]
# numpy, which vLLM seeds too, takes no more than 32 bits.
Seed = Annotated[int, Domain("a whole number from 0 to 4294967295", lambda value: 0 <= value < 2**32)]
# A comparison with NaN is False, so that NaN is in no domain.
PositiveFloat = Annotated[float, Domain("a finite number above 0", lambda value: 0 < value < math.inf)]
PositiveOrInf = Annotated[float, Domain("a number above 0, or inf", lambda value: value > 0)]
NonNegativeFloat = Annotated[float, Domain("a finite number of 0 or more", lambda value: 0 <= value < math.inf)]
# An exponent of lengths in tokens: with more, a power of the length would overflow.
Exponent = Annotated[float, Domain("a number from -20 to 20", lambda value: -20 <= value <= 20)]
Share = Annotated[float, Domain("a number above 0 and below 1", lambda value: 0 < value < 1)]
FolderName = Annotated[
    str,
    Domain(
        f"a name of at most {LONGEST_NAME} bytes, without / and with no dot at its start",
        lambda name: not BAD_NAME.search(name) and len(os.fsencode(name)) <= LONGEST_NAME,
    ),
]
# Flags that do nothing without another one.
NEEDS = {"grade_after_eos": "fixed_length"}


def check_arguments(args) -> None:
    """Raises ValueError, naming the flag, for the first argument whose value is outside its domain, and for a flag that
    is given without the one that it NEEDS. None is in every domain; of a list, every element is checked."""
    hints = get_type_hints(type(args), include_extras=True)
    for field in dataclasses.fields(args):
        value, domain = getattr(args, field.name), _domain_of(hints[field.name])
        for item in value if isinstance(value, list) else [value]:
            if domain and item is not None and not domain.holds(item):
                raise ValueError(f"{flag(field.name)} {item}: must be {domain.text}.")
    for name, other in NEEDS.items():
        if getattr(args, name, False) and not getattr(args, other):
            raise ValueError(f"{flag(name)} has no effect without {flag(other)}: add {flag(other)}, or leave it out.")


def _domain_of(hint) -> Domain | None:
    """Returns the domain in a type hint such as PositiveInt, PositiveInt | None or list[PositiveInt]."""
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        domain = part if isinstance(part, Domain) else _domain_of(part)
        if domain:
            return domain
    return None


def flag(name: str) -> str:
    """Returns --num-steps for num_steps."""
    return "--" + name.replace("_", "-")


# --- the command line -------------------------------------------------------------------------------------------------


def parse(args_class: type, arguments: list[str] | None = None):
    """Returns the command line as an instance of a script's Args. A bad value ends the program with exit code 2 and a
    line that says what to do; --help shows the docstring of the script, and the arguments under the headings of the
    source. With --resume, what the command line leaves out is as in the run's args.json."""
    grouped, description = _grouped(args_class), sys.modules[args_class.__module__].__doc__
    spec = sys.modules["__main__"].__spec__ if args_class.__module__ == "__main__" else None  # None for a script
    program = f"python -m {spec.name}" if spec else None
    try:
        values = tyro.cli(grouped, prog=program, args=arguments, description=description)
    except BrokenPipeError:  # of --help | head, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit would fail in the same way
        sys.exit(0)
    try:
        before = _arguments_of_first_start(values)
        for group in vars(values).values():
            for name in vars(group).keys() & before.keys():
                infinite = before[name] == "inf" and isinstance(getattr(group, name), float)  # JSON has no infinity
                setattr(group, name, math.inf if infinite else before[name])
        if before:
            values = tyro.cli(grouped, prog=program, args=arguments, description=description, default=values)
        return args_class(**{name: value for group in vars(values).values() for name, value in vars(group).items()})
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(REFUSED)


def _arguments_of_first_start(values) -> dict[str, Any]:
    """The arguments in args.json of the run that --resume names; none without --resume, or if there is no such file.
    Raises ValueError if it is damaged."""
    folders = [group.resume for group in vars(values).values() if getattr(group, "resume", "")]
    path = Path(folders[0]) / "args.json" if folders else None
    if path is None or not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise ValueError(f"{path} is damaged: write the arguments of the first start into it.") from None


@functools.cache
def _grouped(args_class: type) -> type:
    """Returns a dataclass that holds a dataclass for each heading in the source of `args_class`, with the arguments
    below it: tyro shows the arguments of a nested dataclass under a heading of their own."""
    hints, documentation = get_type_hints(args_class, include_extras=True), _documentation(args_class)
    groups: dict[str, list] = {}
    for field in dataclasses.fields(args_class):
        heading, text = documentation[field.name]
        hint: Any = Annotated[hints[field.name], tyro.conf.arg(help=text)]
        default = dataclasses.field(default=field.default, default_factory=field.default_factory)
        groups.setdefault(heading, []).append((field.name, hint, default))
    nested = [(name, dataclasses.make_dataclass(name, fields, kw_only=True)) for name, fields in groups.items()]
    return tyro.conf.OmitArgPrefixes[dataclasses.make_dataclass("Arguments", nested)]


def _documentation(args_class: type) -> dict[str, tuple[str, str]]:
    """Returns {argument: (heading above it, as a Python name; docstring below it)}, read from the class's source."""
    source = textwrap.dedent(inspect.getsource(args_class))
    lines, (definition,) = source.splitlines(), ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    found, heading = {}, "arguments"
    for number, line in enumerate(lines, 1):
        if title := re.match(r" *# --- (.+) ---$", line):
            heading = re.sub(r"\W+", "_", title[1])
        for statement, after in itertools.pairwise([*definition.body, None]):
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            if statement.lineno == number:
                text = ""
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    text = str(after.value.value)
                found[statement.target.id] = heading, " ".join(text.split())
    return found
