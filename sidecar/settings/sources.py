"""What the tree is made from: the TOML file, the `SIDECAR_*` variables over it, and files that hold secrets.

Each step adds to `problems` and carries on with what is left, so that one start shows all that is wrong.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sidecar.errors import Problem
from sidecar.settings.leaves import PREFIX, Leaf, by_variable, dotted, leaves

DEFAULT_CONFIG = Path("config/sidecar.toml")
CONFIG_VARIABLE = "SIDECAR_CONFIG"
_MAX_BYTES = 1024 * 1024
# Kubernetes sets such variables for a Service whose name starts with "sidecar".
_SERVICE_LINK = re.compile(r"SIDECAR_(?:\w+_)?(?:SERVICE_(?:HOST|PORT\w*)|PORT(?:_\d+_(?:TCP|UDP)\w*)?)")

Document = dict[str, Any]


def read_document(config: Path | None, environ: Mapping[str, str], problems: list[Problem]) -> Document:
    """The tables of `config`, else of the file that `SIDECAR_CONFIG` names, else of the default one."""
    named_by = "--config"
    if config is None and environ.get(CONFIG_VARIABLE):
        config, named_by = Path(environ[CONFIG_VARIABLE]), CONFIG_VARIABLE
    if config is None:
        if not DEFAULT_CONFIG.exists():
            return {}
        config, named_by = DEFAULT_CONFIG, str(DEFAULT_CONFIG)
    try:
        return tomllib.loads(_read_text(config))
    except OSError as error:
        problems.append(Problem(named_by, f"cannot be read: {_why(error)}", "name a TOML file that exists"))
    except (ValueError, RecursionError) as error:
        # tomllib names a place and at most one character or key, never a value.
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8 text, or nested too deeply"
        problems.append(Problem(named_by, f"is not TOML: {reason}", "mend the file there"))
    return {}


def overlay(document: Document, environ: Mapping[str, str], problems: list[Problem]) -> None:
    """Lay every `SIDECAR_<SECTION>__<NAME>` over the document, in place."""
    known = by_variable()
    for variable in sorted(name for name in environ if name.startswith(PREFIX) and name != CONFIG_VARIABLE):
        leaf = known.get(variable)
        if leaf is None:
            problems.append(_unknown_variable(variable, known))
            continue
        try:
            value = _parse(environ[variable], leaf)
        except (ValueError, RecursionError) as error:
            what = f"{variable} is not JSON: {error}" if leaf.base is tuple else f"{variable} must be {leaf.kind}"
            problems.append(Problem(leaf.name, what, _example(leaf)))
            continue
        _put(document, leaf.path, value)


def _unknown_variable(variable: str, known: Iterable[str]) -> Problem:
    if _SERVICE_LINK.fullmatch(variable):
        return Problem(
            variable,
            "is not a setting",
            "unset it; on Kubernetes with `enableServiceLinks: false` in the pod",
        )
    near = difflib.get_close_matches(variable, list(known), n=1)
    mend = f"did you mean {near[0]}?" if near else "unset it; `sidecar config reference` lists all"
    return Problem(variable, "is not a setting", mend)


def read_secret_files(document: Document, problems: list[Problem]) -> None:
    """Put the content of each `<name>_file` in the place of `<name>`."""
    for leaf in leaves():
        if not leaf.secret:
            continue
        for table, location in _tables(document, leaf.path[:-1]):
            _read_secret_file(table, location, leaf.path[-1], problems)


def _read_secret_file(table: Document, location: tuple[str | int, ...], key: str, problems: list[Problem]) -> None:
    path = table.get(f"{key}_file", "")
    if not path or not isinstance(path, str):
        return
    setting = dotted((*location, f"{key}_file"))
    if table.get(key):
        problems.append(Problem(setting, f"is set beside `{key}`", "keep one of the two"))
        return
    try:
        secret = _read_text(Path(path)).rstrip("\r\n")
    except OSError as error:
        problems.append(Problem(setting, f"cannot be read: {_why(error)}", "name a file that the sidecar may read"))
    except ValueError:
        problems.append(Problem(setting, "does not hold UTF-8 text", "write the secret as text"))
    else:
        if not secret.strip():
            problems.append(Problem(setting, "names an empty file", "write the secret into it"))
        table[key] = secret


def _tables(document: Document, path: tuple[str, ...]) -> list[tuple[Document, tuple[str | int, ...]]]:
    """The tables at `path`, each with where it is; nothing where the document has another shape."""
    found: list[tuple[Any, tuple[str | int, ...]]] = [(document, ())]
    for key in path:
        inner: list[tuple[Any, tuple[str | int, ...]]] = []
        for table, location in found:
            value = table.get(key)
            entries = value if isinstance(value, list) else None
            if entries is None:
                inner.append((value, (*location, key)))
            else:
                inner += [(entry, (*location, key, index)) for index, entry in enumerate(entries)]
        found = [(table, location) for table, location in inner if isinstance(table, dict)]
    return found


def _read_text(path: Path) -> str:
    """At most 1 MiB: a path that names a device or a log by mistake must not fill the memory."""
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError("larger than 1 MiB")
    return content.decode("utf-8-sig")


def _why(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _boolean(text: str) -> bool:
    words = {
        "true": True,
        "1": True,
        "yes": True,
        "on": True,
        "false": False,
        "0": False,
        "no": False,
        "off": False,
    }
    if text.strip().lower() not in words:
        raise ValueError("not a boolean")
    return words[text.strip().lower()]


_PARSERS: Mapping[type, Callable[[str], Any]] = {int: int, float: float, bool: _boolean, tuple: json.loads}


def _parse(text: str, leaf: Leaf) -> Any:
    return text if leaf.base is None else _PARSERS[leaf.base](text)


def _example(leaf: Leaf) -> str:
    if leaf.table is not None:
        return f"""write {leaf.variable}='[{{"{next(iter(leaf.table.model_fields))}": …}}]'"""
    return f"write {leaf.variable}='{leaf.default}'" if leaf.base is tuple else f"its default is {leaf.default}"


def _put(document: Document, path: tuple[str, ...], value: Any) -> None:
    """Set a value below tables; where the document has something else there, that stays, to be reported."""
    table: Any = document
    for key in path[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            return
    table[path[-1]] = value
