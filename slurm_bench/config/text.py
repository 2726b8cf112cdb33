"""Text ↔ settings. The schema decides what a text means, in a word `key=value` and in a YAML file alike.

What the schema says is text stays as it was typed: `data.fields.id=no` names the column "no". Elsewhere (numbers,
and the params of plug-ins) a word is a number, a truth value, null, a list or a mapping where it plainly is one.
In a file YAML's own rules hold there, but for numbers in base 60 (12:00:00) and dates, which are text, and `1e6`,
which is a number.
"""

from __future__ import annotations

import codecs
import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from slurm_bench.bundled import CONFIGS
from slurm_bench.command import SLURM_OPTIONS
from slurm_bench.config.nearest import nearest
from slurm_bench.config.schema import Config, DataConfig, Option, PluginConfig, fields_of, split_optional
from slurm_bench.errors import UserError

STR, MAP, BOOL, NULL, INT, FLOAT, MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "map", "bool", "null", "int", "float", "merge")
)
# What reading a text as YAML may raise: ValueError and RecursionError where it has thousands of digits or brackets.
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)

# Options of ours that are lines or words, and those of sbatch's that are several things with commas between.
LINES = ("setup", "srun_args")
LISTED = (
    *("partition", "clusters", "nodelist", "exclude", "reservation", "account", "qos", "dependency", "licenses"),
    *("gres", "gpus", "gpus_per_node", "gpus_per_task", "tres_per_task", "export", "mail_type", "profile"),
)

EXAMPLES = {
    "": "gpus: 6",
    "data": "data: {reader: jsonl, path: bench.jsonl}",
    "editor": "editor: {class_path: mine.MyEditor}",
    "rewriter": "rewriter: {class_path: mine.MyRewriter}",
    "scorers": "scorers: {judge: {class_path: mine.MyScorer}}",
    "slurm": "slurm: {partition: h100}",
    "score_slurm": "score_slurm: {partition: h100}",
}


class Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        _refuse_repeats(node)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Puts in quotes what `Loader` would not read as text."""

    def represent_str(self, data: str) -> yaml.Node:
        """PyYAML writes a rarer line break as it is and reads it as a space; in double quotes it escapes it."""
        return self.represent_scalar(STR, data, style='"' if re.search("[\r\x85\u2028\u2029]", data) else None)


Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag in (BOOL, NULL, MERGE)]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _rule in (
    (INT, r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)"),
    (FLOAT, r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?"),
    (FLOAT, r"[-+]?[0-9]+[eE][-+]?[0-9]+"),
    (FLOAT, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
):
    Loader.add_implicit_resolver(_tag, re.compile(rf"({_rule})\Z"), list("-+.0123456789"))
Dumper.yaml_implicit_resolvers = Loader.yaml_implicit_resolvers
Dumper.add_representer(str, Dumper.represent_str)


def read_file(file: Path) -> dict[str, Any]:
    """The settings that a YAML file says. Raises UserError."""
    try:
        return read_text(utf8_text(file), str(file))
    except FileNotFoundError:
        raise UserError(f"{file}: no such configuration file; {_files_there(file)}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None


def utf8_text(file: Path) -> str:
    """Without a byte-order mark. Raises UserError where it is in another encoding, and OSError."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "but UTF-16" if marked else f"in line {data[: error.start].count(10) + 1}"
        raise UserError(f"{file}: it isn't UTF-8 {what}; save it as UTF-8") from None


def read_text(text: str, where: str) -> dict[str, Any]:
    """The settings that a YAML text says. Raises UserError that names `where` it stands."""
    try:
        node = yaml.compose(text, Loader)
        return {} if node is None else _Reader(where).value(node, Config, "")
    except NOT_YAML as error:
        raise UserError(f"{where}: not YAML: {_explained(error)}") from None


def read_word(word: str) -> dict[str, Any]:
    """`a.b=1` → {"a": {"b": 1}}. Raises UserError."""
    path, equals, text = word.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UserError(f"{quoted(word)}: expected key=value, like editor.params.steps=28")
    if not word.isascii() and word.encode(errors="replace").decode() != word:
        raise UserError(f"{quoted(word)}: not UTF-8")
    reader = _Reader(quoted(word))
    hint: Any = Config
    for n, key in enumerate(keys):
        hint = reader.type_of_part(hint, key, ".".join(keys[:n]))
    node = _typed(text, hint)
    for key in reversed(keys):
        node = yaml.MappingNode(MAP, [(yaml.ScalarNode(STR, key), node)])
    try:
        return reader.value(node, Config, "")
    except NOT_YAML as error:
        raise UserError(f"{quoted(word)}: {_explained(error)}") from None


def quoted(text: str) -> str:
    """For an error line: short, and nothing in it that a terminal would act on."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])
    return f"'{shown}…'" if len(text) > 200 else f"'{shown}'"


def to_yaml(tree: Mapping[str, Any], sort_keys: bool = False) -> str:
    return yaml.dump(dict(tree), Dumper=Dumper, allow_unicode=True, sort_keys=sort_keys, default_flow_style=False)


# A reference to a plug-in is one to all of it.
_PLUGIN = re.compile(r"\$\{((?:editor|rewriter|scorers\.[\w-]+))\}")
WHOLE = [field.name for field in dataclasses.fields(PluginConfig)]


@dataclass(frozen=True)
class _Reader:
    """Reads YAML nodes by the schema. `where` is the file or the word that they stand in."""

    where: str

    def value(self, node: yaml.Node, hint: Any, key: str) -> Any:
        """What `node` says of the setting `key`, whose type is `hint`. Raises UserError."""
        kind, optional = split_optional(hint)
        null = node.tag == NULL
        if kind is str:
            return None if null and optional else self.text(node, key)
        if kind is Option:
            return self.option(node, key)
        if kind in (int, bool, Any):
            return self.plain(node, kind, optional, key)
        if null:
            return None if key else {}
        if kind == list[str]:
            return [self.text(part, key) for part in (node.value if isinstance(node, yaml.SequenceNode) else [node])]
        if kind is PluginConfig and isinstance(node, yaml.ScalarNode):
            whole = _PLUGIN.fullmatch(node.value)
            return {name: f"${{{whole[1]}.{name}}}" for name in WHOLE} if whole else {"class_path": node.value}
        return {
            name: self.value(part, self.type_of_part(kind, name, key), _join(key, name))
            for name, part in self.parts(node, key)
        }

    def plain(self, node: yaml.Node, kind: Any, optional: bool, key: str) -> Any:
        value = Loader("").construct_object(node, deep=True)
        if kind is Any or (value is None and optional) or "${" in str(value):
            return value
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if type(value) is not kind:
            self.refuse(key, f"{_said(node)} is {'not a whole number' if kind is int else 'neither true nor false'}")
        return value

    def type_of_part(self, hint: Any, name: str, key: str) -> Any:
        hint, _ = split_optional(hint)
        if hint is Any:
            return Any
        if typing.get_origin(hint) is dict:
            return typing.get_args(hint)[1]
        if not isinstance(hint, type) or not dataclasses.is_dataclass(hint):
            self.refuse(key, f"there is nothing under it, such as {quoted(name)}")
        fields = fields_of(hint)
        if name not in fields:
            inner = [] if key else [f"data.{field}" for field in fields_of(DataConfig)]
            meant = (not key and _elsewhere(name)) or nearest(name, [*fields, *inner])
            raise UserError(f"{self.where}: unknown key {quoted(_join(key, name))}; {meant}")
        return fields[name]

    def parts(self, node: yaml.Node, key: str) -> list[tuple[str, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            example = EXAMPLES.get(key, f"{key}: {{name: value}}")
            self.refuse(key, f"{_said(node)} where names with values are expected, like {example}")
        _refuse_repeats(node)
        Loader("").flatten_mapping(node)
        return [(self.text(name, key), value) for name, value in node.value]

    def option(self, node: yaml.Node, key: str) -> Any:
        """Several nodes, partitions or lines of `setup` may be written as a list. What is one text may not, `[a|b]`
        neither: a constraint that YAML takes for a list."""
        name = key.rpartition(".")[2].replace("-", "_")
        if isinstance(node, yaml.SequenceNode) and name in LINES + LISTED:
            texts = [self.text(part, key) for part in node.value]
            return texts if name in LINES else ",".join(texts)
        text = self.text(node, key)
        if node.tag == NULL:
            return None
        return text == "true" if text in ("true", "false") and node.style is None else text

    def text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            self.refuse(key, f"{_said(node)} where a text is expected; put the text in quotes")
        return str(node.value)

    def refuse(self, key: str, problem: str) -> NoReturn:
        raise UserError(f"{self.where}: '{key}': {problem}" if key else f"{self.where}: {problem}")


def _typed(text: str, hint: Any) -> yaml.Node:
    """What a person means by `text`, typed as the value of a setting."""
    kind, optional = split_optional(hint)
    if kind in (str, Option):
        null = optional or kind is Option
        return yaml.ScalarNode(NULL if null and text == "null" else STR, text)
    if text[:1] + text[-1:] in ("[]", "{}") and (node := _collection(text)):
        return node
    if text[:1] == text[-1:] and text[:1] in ("'", '"') and _typed(text[1:-1], hint).tag != STR:
        return yaml.ScalarNode(STR, text[1:-1], style="'")  # "5" is how one types the text 5
    return yaml.ScalarNode(_plain_tag(text, kind), text)


def _plain_tag(text: str, kind: Any) -> str:
    """YAML takes `no`, `on`, `~` and nothing for more than text; whoever types them as a parameter seldom does."""
    tag = Loader("").resolve(yaml.ScalarNode, text, (True, False))
    plain = {BOOL: kind is bool or text.lower() in ("true", "false"), NULL: text == "null", INT: True, FLOAT: True}
    return tag if plain.get(tag, False) else STR


def _collection(text: str) -> yaml.Node | None:
    """A list or a mapping, where `text` plainly is one; `{blurry}` isn't."""
    try:
        node = yaml.compose(text, Loader)
        Loader("").construct_object(node, deep=True)
    except NOT_YAML:
        return None
    if isinstance(node, yaml.MappingNode):
        return None if any(value.tag == NULL and not value.value for _, value in node.value) else node
    return node if isinstance(node, yaml.SequenceNode) else None


def _refuse_repeats(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
        if name in seen:
            said = f"the key '{key.value}' stands twice"
            raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
        seen.add(name)


def _said(node: yaml.Node) -> str:
    kinds = {yaml.SequenceNode: "a list", yaml.MappingNode: "names with values"}
    return kinds.get(type(node)) or quoted(node.value)


def _explained(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())


def _elsewhere(name: str) -> str:
    """Where it may be said that isn't a setting by itself; "" where that isn't known."""
    option = name.replace("_", "-")
    if option in SLURM_OPTIONS or option in ("gres", "cpus-per-task", "setup", "python", "srun-args"):
        return f"did you mean 'slurm.{name}'?"
    return f"it is an option, --{option}" if option in ("config", "run-dir", "reuse", "like", "wait", "force") else ""


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _files_there(file: Path) -> str:
    names = sorted(p.name for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
    return nearest(file.name, names) if names else f"bundled ones are in {CONFIGS}"
