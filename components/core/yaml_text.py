"""YAML as writers of settings mean it: no octal or base-60 numbers, no dates, no key twice."""

import re
from typing import Any

import yaml

BOOL, INT, FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))
TIMESTAMP = "tag:yaml.org,2002:timestamp"
DIGITS = "-+0123456789"
# YAML 1.1 reads 0123 as 83, 1:30 as 90 and 1e3 as a text. As YAML 1.2, but 1_000 is a number too.
WHOLE_NUMBER = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")
NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.nan"
)


class SettingsLoader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does, and refuses keys that are there twice and endless values."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, rule) for tag, rule in rules if tag not in (INT, FLOAT, TIMESTAMP)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def get_single_data(self) -> Any:
        """The only document; a value that holds itself is an error."""
        node = self.get_single_node()
        return None if node is None else self.construct_object(node, deep=True)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key of which is there once."""
        refuse_double_keys(node)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """A decimal number, with leading zeros or not."""
        return int(str(self.construct_scalar(node)))


SettingsLoader.add_implicit_resolver(INT, re.compile(f"^({WHOLE_NUMBER.pattern})$"), list(DIGITS))
SettingsLoader.add_implicit_resolver(FLOAT, re.compile(f"^({NUMBER.pattern})$"), list(f"{DIGITS}."))
SettingsLoader.add_constructor(INT, SettingsLoader.construct_whole_number)


class PlainLoader(SettingsLoader):
    """Reads one value from a command line, where a comment, an anchor or a tag is a mistake."""

    def scan_to_next_token(self) -> None:
        """Go on to the next token; what YAML would skip as a comment is refused."""
        at = 0
        while self.peek(at) in " \n":
            at += 1
        if self.peek(at) == "#":
            raise yaml.scanner.ScannerError(
                None, None, "what follows # would be left out as a comment; put it in quotes", None
            )
        super().scan_to_next_token()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next value."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.composer.ComposerError(
                None, None, "a value that begins with &, * or ! must be in quotes", None
            )
        return super().compose_node(parent, index)


def refuse_double_keys(node: yaml.MappingNode) -> None:
    """Refuse a mapping in which a key is there twice: YAML would drop the first.

    Raises:
        ConstructorError: names the key.
    """
    seen: set[str] = set()
    for key, _ in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name in seen and name != "<<":
            raise yaml.constructor.ConstructorError(
                None, None, f"'{name}' is there twice", key.start_mark
            )
        seen.add(name)


def read_yaml(text: str) -> Any:
    """The value of a text.

    Raises:
        YAMLError: it is no YAML; also for a value without end or depth.
    """
    try:
        return yaml.load(text, SettingsLoader)  # noqa: S506  # a SafeLoader
    except (RecursionError, ValueError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {error}") from None


def reason_of(error: yaml.YAMLError) -> str:
    """What is wrong with a text and where, without its lines: they may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return " ".join(f"{error.context or ''} {error.problem}{place}".split())
