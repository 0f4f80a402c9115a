"""Settings of a command from dataclasses, a YAML file and the command line; the later ones override the earlier ones.

The command line is parsed by [`transformers.HfArgumentParser`], which makes one option of each field of some
dataclasses. A list is emptied by the word `none`. The metadata of a field may have, beside its `help`: `item`, which
makes an item of a list of a word; and `further`, the name of the list that gets the values of an option that is given
again. An option that is given replaces the list of the settings file, too.
"""

import copy
import dataclasses
import difflib
import math
import sys
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import GenericAlias, MappingProxyType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

EMPTY_LIST = "none"
_HELP = ("-h", "--help", "--help_all", "--help-all")
_NAME_WIDTH = 26


class SettingsParser(HfArgumentParser):
    """Parser of `COMMAND SETTINGS.yaml [--name value ...]`.

    Args:
        command: The subcommand, such as `train`.
        description: What it does, for the help.
        kinds: Dataclasses of the command; their fields have a `help`.
        library: A dataclass whose options only `--help_all` shows.
        reserved: Fields of `library` that the command sets itself.
        unsupported: Fields of `library` that must keep their defaults, each with the reason.
    """

    def __init__(
        self,
        command: str,
        description: str,
        kinds: Sequence[Any],
        library: Any,
        reserved: Collection[str] = (),
        unsupported: Mapping[str, str] = MappingProxyType({}),
    ):
        super().__init__(
            [*map(_options_of, kinds), library],
            prog=f"msfser {command}",
            usage=f"msfser {command} SETTINGS.yaml [--name value ...]",
            description=description,
            add_help=False,
            allow_abbrev=False,
        )
        self.kinds, self.library, self.reserved = tuple(kinds), library, frozenset(reserved)
        self.unsupported = unsupported
        # The value of every setting that is not given.
        self.defaults = vars(self.parse_known_args([])[0])
        self.fields = {field.name: field for kind in (*kinds, library) for field in dataclasses.fields(kind)}

    def error(self, message: str) -> NoReturn:
        """Ends the command with one sentence."""
        raise SystemExit(f"{self.prog}: error: {' '.join(message.split()).removesuffix('.')}.")

    def parse(self, argv: Sequence[str]) -> tuple[dict[str, Any], frozenset[str]]:
        """Reads the settings file and the command line.

        Args:
            argv: `[SETTINGS.yaml, --name value, ...]`.

        Returns:
            The value of every setting, and the names of those that were given.

        Raises:
            SystemExit: A setting is unknown, reserved or of the wrong type; or the help was asked for.
        """
        if asked := [word for word in argv if word in _HELP]:
            print(self.help_text(everything=asked[0] in _HELP[2:]))
            sys.exit(0)
        if not argv or argv[0].startswith("-"):
            start = f"the first argument is {argv[0]!r}; " if argv else ""
            self.error(f"{start}give the settings file first, such as configs/probe.yaml")
        written = self._read(argv[0])
        options = {_option_name(word) for word in argv if word.startswith("--")}
        for name in options & self.fields.keys():
            further = self.fields[name].metadata.get("further")
            if further is not None and further not in options:
                written.pop(further, None)
        self.set_defaults(**written)
        once, again = self._without_repetitions(argv[1:])
        namespace, rest = self.parse_known_args(once)
        given = frozenset({*written, *options})
        if rest:
            self._refuse_unknown([word for word in rest if word.startswith("--")] or rest, "the command line")
        if refused := sorted(given & self.reserved):
            self.error(f"{', '.join(refused)}: the command decides this itself, leave it out")
        values = {name: [] if value == [EMPTY_LIST] else value for name, value in vars(namespace).items()}
        values |= {name: [*values[name], *more] for name, more in again.items()}
        for name in self.unsupported:
            if values[name] != self.defaults[name]:
                self.error(f"{name} does not apply: {self.unsupported[name]}")
        return values, given

    def build(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The dataclasses with these values.

        Raises:
            SystemExit: A value is of the wrong type, or values contradict each other.
        """
        try:
            return tuple(
                kind(**{field.name: values[field.name] for field in dataclasses.fields(kind) if field.init})
                for kind in (*self.kinds, self.library)
            )
        except StrictDataclassError as error:  # it names the dataclass and the field, its cause says what is wrong
            self.error(str(error.__cause__ or error))
        except (ValueError, OSError, ImportError) as error:
            self.error(str(error))

    def help_text(self, everything: bool) -> str:
        """The options, one on a line: those of the command, or (`everything`) those of the library too."""
        more = "" if everything else f"; --help_all also shows {self.library.__name__}"
        lines = [f"usage: {self.usage}{more}", str(self.description)]
        for kind in self.kinds:
            lines += [""] if kind is not self.kinds[0] else []
            lines.append(f"{(kind.__doc__ or '').splitlines()[0].rstrip('.')}:")
            lines += [_option_line(field) for field in dataclasses.fields(kind)]
        if everything:
            full = HfArgumentParser(self.library, usage=self.usage, add_help=False)
            return "\n".join([*lines, "", "Options of the library:", *full.format_help().splitlines()[3:]])
        return "\n".join(lines)

    def _read(self, file: str) -> dict[str, Any]:
        path = Path(file)
        if not path.is_file():
            self.error(f"there is no settings file {file!r}; the first argument is one, such as configs/probe.yaml")
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            at = "" if mark is None else f"line {mark.line + 1}: "
            reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
            self.error(f"{file} is no YAML file ({at}{reason}); write lines such as 'fusion_size: 256'")
        if not isinstance(settings, dict):
            self.error(f"{file} is no settings file: write lines such as 'fusion_size: 256'")
        self._refuse_unknown([str(name) for name in settings if name not in self.fields], file)
        for name, value in [*settings.items()]:
            if isinstance(value, list) and value and (further := self.fields[name].metadata.get("further")):
                # A list of several: mappings are written as on the command line.
                shown = [
                    yaml.safe_dump(v, default_flow_style=True, sort_keys=False, width=math.inf).strip()
                    if isinstance(v, dict)
                    else v
                    for v in value
                ]
                settings[name], settings[further] = shown[0], [*shown[1:], *(settings.get(further) or [])]
        names = {field.name for kind in self.kinds for field in dataclasses.fields(kind)}
        return {name: _as_given(v, self.fields[name]) if name in names else v for name, v in settings.items()}

    def _without_repetitions(self, words: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
        """The command line with each option of `further` values once, and its other values by the list for them."""
        kept: list[str] = []
        again: dict[str, list[str]] = {}
        seen, rest = set[str](), list(words)
        while rest:
            word = rest.pop(0)
            name = _option_name(word) if word.startswith("--") else ""
            further = self.fields[name].metadata.get("further") if name in self.fields else None
            has_value = "=" in word or (rest and not rest[0].startswith("--"))
            if further is None or name not in seen or not has_value:
                kept.append(word)
            else:
                again.setdefault(further, []).append(word.partition("=")[2] if "=" in word else rest.pop(0))
            seen.add(name)
        return kept, again

    def _refuse_unknown(self, names: Sequence[str], source: str) -> None:
        if not names:
            return
        near = difflib.get_close_matches(names[0].lstrip("-").partition("=")[0], self.fields, n=1)
        hint = f"did you mean {near[0]}?" if near else "--help_all lists the settings"
        self.error(f"{source} has unknown settings ({', '.join(names)}); {hint}".removesuffix("?"))


def _option_name(word: str) -> str:
    """The setting that a word of the command line, such as `--label-range=1`, names."""
    return word.removeprefix("--").partition("=")[0].replace("-", "_")


def _options_of(kind: Any) -> Any:
    """A copy for the parser, which changes the types of the fields."""
    fields = []
    for field in dataclasses.fields(kind):
        option, item = copy.copy(field), field.metadata.get("item")
        # What is left becomes arguments of argparse.
        option.metadata = MappingProxyType({k: v for k, v in field.metadata.items() if k not in ("item", "further")})
        fields.append((field.name, GenericAlias(list, (item,)) if item else field.type, option))
    return dataclasses.make_dataclass(kind.__name__, fields)


def plain(value: Any) -> Any:
    """A value as YAML writes it."""
    if isinstance(value, Enum):
        return value.value
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _as_given(value: Any, field: dataclasses.Field) -> Any:
    """A value of a file as the parser wants a default: text, which it converts, or a list of the right type."""
    listed = field.metadata.get("item") or _list_item(field.type)
    if listed is not None and value is not None:
        items = value if isinstance(value, list) else [value]
        try:
            return [listed(item) for item in items]
        except (TypeError, ValueError):
            return items  # of the wrong type, which the dataclass says
    return str(value) if isinstance(value, bool | int | float) else value


def _list_item(kind: Any) -> Any:
    """The type of the items of a list; `None` of other types."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((get_args(one)[0] for one in kinds if get_origin(one) is list), None)


def _option_line(field: dataclasses.Field) -> str:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    shown = EMPTY_LIST if default in (None, []) else shown
    words = f"{field.metadata['help'].rstrip('.')} [{shown.lower() if isinstance(default, bool) else shown}]"
    return f"  --{field.name:{_NAME_WIDTH}} {words}"
