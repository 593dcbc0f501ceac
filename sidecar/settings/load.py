"""From a file and an environment to the tree, or to the list of everything that is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sidecar.errors import ConfigurationError, Problem
from sidecar.settings import checks
from sidecar.settings.leaves import Leaf, dotted, leaves
from sidecar.settings.sources import Document, overlay, read_document, read_secret_files
from sidecar.settings.tree import Settings

Location = tuple[str | int, ...]


def load(config: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read `config`, else what `SIDECAR_CONFIG` names, else config/sidecar.toml if there, else defaults.

    `SIDECAR_<SECTION>__<NAME>` in `environ` overrides the file; a list is given as JSON. Relative paths start
    at the working directory.

    Raises:
        ConfigurationError: with every problem found. No message shows a value.
    """
    problems: list[Problem] = []
    document = read_document(config, environ, problems)
    if problems:
        raise ConfigurationError(problems)  # judging the rest without the file would only make noise
    overlay(document, environ, problems)
    read_secret_files(document, problems)
    settings = _build(document, problems)
    unjudged = checks.unjudged(problem.setting for problem in problems)
    problems += [problem for problem in checks.problems(settings) if not _touches(problem.setting, unjudged)]
    if problems:
        raise ConfigurationError(problems)
    return settings


def _touches(setting: str, others: Sequence[str]) -> bool:
    """Whether `setting` is, holds, or lies within one of `others`."""
    return any(_within(setting, other) or _within(other, setting) for other in others)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))


def _build(document: Document, problems: list[Problem]) -> Settings:
    """The tree; what does not validate is reported and replaced by its default, so that checks can go on."""
    for key in [key for key in document if key not in Settings.model_fields]:
        problems.append(_unknown((key,), Settings.model_fields))
        del document[key]
    try:
        return Settings(**document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    problems += [_problem(detail) for detail in details]
    for detail in details:
        _drop(document, detail["loc"])
    return Settings(**document)


def _drop(document: Document, location: Location) -> None:
    """Take the value at `location` out, so that its default stands in.

    An entry of a list becomes an empty table where it should have been one, else the whole list goes: the
    indices that other problems name stay right.
    """
    path, last = location[:-1], location[-1]
    if isinstance(last, int):
        if not _is_table_list(path):
            _drop(document, path)
            return
        _at(document, path)[last] = {}
        return
    holder = _at(document, path)
    if isinstance(holder, dict):
        holder.pop(last, None)


def _at(document: Document, path: Location) -> Any:
    """The container at `path`, or None if an earlier drop took it out."""
    value: Any = document
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _keys(location: Location) -> tuple[str, ...]:
    return tuple(part for part in location if isinstance(part, str))


def _leaf_at(location: Location) -> Leaf | None:
    return next((leaf for leaf in leaves() if leaf.path == _keys(location)), None)


def _is_table_list(location: Location) -> bool:
    leaf = _leaf_at(location)
    return leaf is not None and leaf.table is not None


def _siblings(location: Location) -> list[str]:
    """The keys that a table has, in which `location` is one too many."""
    path = _keys(location)[:-1]
    return [leaf.path[len(path)] for leaf in leaves() if leaf.path[: len(path)] == path and len(leaf.path) > len(path)]


def _unknown(location: Location, known: Iterable[str]) -> Problem:
    near = difflib.get_close_matches(str(location[-1]), list(known), n=1)
    mend = f"did you mean `{near[0]}`?" if near else "remove it; `sidecar config reference` lists all"
    return Problem(dotted(location), "is not a setting", mend)


def _problem(detail: ErrorDetails) -> Problem:
    """A validation error as a problem; pydantic's own words are not used, as some repeat the value."""
    location, context = detail["loc"], detail.get("ctx", {})
    if detail["type"] == "setting":
        return Problem(dotted(location), context["what"], context["mend"])
    if detail["type"] == "extra_forbidden":
        return _unknown(location, _siblings(location))
    leaf = _leaf_at(location)
    if leaf is not None and leaf.table is not None:
        head = ".".join(leaf.path)
        return Problem(dotted(location), "must be a list of tables", f"write [[{head}]] above each of them")
    if leaf is None:
        return Problem(dotted(location), "must be a table", f"write [{dotted(location)}] and its keys below")
    if isinstance(location[-1], int):
        return Problem(dotted(location), "must be text", f"the list is {leaf.kind}")
    return Problem(dotted(location), f"must be {leaf.kind}", f"its default is {leaf.default}")
