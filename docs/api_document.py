"""The app's OpenAPI document as the generator of the API reference reads it: routes, fields, examples."""

# ruff: noqa: INP001 - a module beside files that are no Python
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from api_words import CHANGES, FIELDS
from example_marks import BUILT, OMITTED
from generated_page import ROOT
from litestar.routes import HTTPRoute

from gateway.app import create_app
from gateway.bootstrap import Live
from gateway.catalog import Model, read_catalog

Node = dict[str, Any]
METHODS: Final = ("get", "post", "put", "patch", "delete")
SCHEMAS: Final = "#/components/schemas"
PLACEHOLDERS: Final = {
    "string": "...",
    "integer": 0,
    "number": 0.0,
    "boolean": False,
    "array": [],
    "object": {},
}


class _Unopened:
    """Stands for what `bootstrap` would have opened: routes only hand it on, so none of it is needed here."""

    def __getattr__(self, name: str) -> None:
        return None


class Route(NamedTuple):
    """A method on a path, as a client writes it."""

    method: str
    path: str
    scope: str | None
    """What a key needs for it; None where no key is asked for."""
    text: str
    """The handler's docstring."""

    @property
    def name(self) -> str:
        """`GET /v1/jobs/{job_id}`"""
        return f"{self.method} {self.path}"


class Field(NamedTuple):
    """One field of an object, or one parameter."""

    name: str
    type: str
    values: str
    default: str
    meaning: str
    required: bool


class Document:
    """The OpenAPI document, and the routes that it leaves out."""

    def __init__(self) -> None:
        app = create_app(cast(Live, _Unopened()))
        self._content: Final[Node] = app.openapi_schema.to_schema()
        self.routes: Final = [
            Route(method, re.sub(r":\w+}", "}", route.path), _scope(handler), _text(handler))
            for route in app.routes
            if isinstance(route, HTTPRoute)
            for handler in route.route_handlers
            for method in sorted(handler.http_methods)
            if method != "OPTIONS"
        ]

    def operations(self) -> Iterator[tuple[Route, Node]]:
        """Documented ones, in the document's order."""
        known = {route.name: route for route in self.routes}
        for path, item in self._content["paths"].items():
            for method in METHODS:
                if method in item:
                    yield known[f"{method.upper()} {path}"], item[method]

    def schema(self, name: str) -> Node:
        """A component."""
        return cast(Node, self._content["components"]["schemas"][name])

    def fields(self, name: str) -> list[Field]:
        """Of an object, in the order in which answers have them."""
        schema = self.schema(name)
        required = schema.get("required", [])
        return [
            self.field(key, part, required=key in required, meaning=FIELDS.get(name, {}).get(key, ("",))[0])
            for key, part in schema.get("properties", {}).items()
        ]

    def field(self, name: str, part: Node, *, required: bool, meaning: str = "") -> Field:
        """What a table says of a field: the document's own words first."""
        default = part.get("default")
        return Field(
            name=name,
            type=self.type_of(part),
            values=_values(part),
            default="" if default is None else f"`{_plain(default)}`",
            meaning=part.get("description") or meaning,
            required=required,
        )

    def type_of(self, part: Node) -> str:
        """In words, with a link to an object that has a table of its own."""
        if "$ref" in part:
            name = str(part["$ref"]).rpartition("/")[2]
            return f"[{title_of(name)}](#{anchor_of(title_of(name))})"
        for union in ("oneOf", "anyOf", "allOf"):
            if union in part:
                return " or ".join(dict.fromkeys(self.type_of(choice) for choice in part[union]))
        kinds = part.get("type", "any")
        names = [self._named(kind, part) for kind in (kinds if isinstance(kinds, list) else [kinds])]
        return " or ".join(names)

    def _named(self, kind: str, part: Node) -> str:
        if kind == "array":
            return f"list of {self.type_of(part.get('items', {}))}"
        if kind == "object" and isinstance(part.get("additionalProperties"), dict):
            return f"object of {self.type_of(part['additionalProperties'])}"
        return kind

    def headers(self) -> dict[str, Node]:
        """Those of answers that the document explains, by name."""
        return dict(self._content["components"].get("headers", {}))

    def references(self, part: Any) -> Iterator[str]:
        """Names of the schemas below a node, outermost first."""
        if isinstance(part, dict):
            folder, _, name = str(part.get("$ref", "")).rpartition("/")
            if folder == SCHEMAS:
                yield name
                yield from self.references(self.schema(name).get("properties", {}))
            for value in part.values():
                yield from self.references(value)
        elif isinstance(part, list):
            for value in part:
                yield from self.references(value)

    def example(self, part: Node) -> Any:
        """A value of that type: the document's own example, or one built from its parts."""
        if "$ref" in part:
            return self._object(str(part["$ref"]).rpartition("/")[2])
        for union in ("oneOf", "anyOf", "allOf"):
            if union in part:
                return self.example(part[union][0])
        for key in ("examples", "enum"):
            if part.get(key):
                return part[key][0]
        for key in ("default", "const"):
            if key in part:
                return part[key]
        kinds = part.get("type", "string")
        kind = kinds[0] if isinstance(kinds, list) else kinds
        return [self.example(part.get("items", {}))] if kind == "array" else PLACEHOLDERS.get(kind)

    def answer(self, route: Route, part: Node) -> Any:
        """The example of an operation's answer."""
        found = self.example(part)
        changes = CHANGES.get(route.name)
        return self._changed(found, part, changes) if changes else found

    def _object(self, name: str) -> Any:
        schema = self.schema(name)
        if schema.get("examples"):
            return schema["examples"][0]
        words = FIELDS.get(name, {})
        values = {
            key: (words[key][1] if key in words else BUILT, part)
            for key, part in schema.get("properties", {}).items()
        }
        return {
            key: self.example(part) if value is BUILT else value
            for key, (value, part) in values.items()
            if value is not OMITTED
        }

    def _changed(self, value: Node, part: Node, changes: Node) -> Node:
        properties = self.schema(next(self.references(part))).get("properties", {})
        changed = dict(value)
        for key, change in changes.items():
            if change is BUILT:
                changed[key] = self.example(properties[key])
            elif isinstance(change, dict):
                changed[key] = self._changed(changed[key], properties[key], change)
            else:
                changed[key] = change
        return changed


def models() -> list[Model]:
    """The catalog that comes with this version."""
    return list(read_catalog(ROOT / "deploy" / "catalog.toml").models.values())


def title_of(name: str) -> str:
    """`JobErrorView` -> `Job error`"""
    words = re.findall(r"[A-Z][a-z]+|[A-Z]+(?![a-z])", name.removesuffix("View").removesuffix("Body"))
    return " ".join(words).capitalize()


def anchor_of(title: str) -> str:
    """As Markdown renderers make it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _scope(handler: Any) -> str | None:
    scope = handler.opt.get("scope")
    return None if scope is None else str(getattr(scope, "value", scope))


def _text(handler: Any) -> str:
    """Paragraphs; handlers that run in a thread hide theirs behind the wrapper's."""
    text = getattr(handler.fn, "func", handler.fn).__doc__ or ""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _values(part: Node) -> str:
    if "const" in part:
        return f"`{_plain(part['const'])}`"
    if "enum" in part:
        return ", ".join(f"`{_plain(value)}`" for value in part["enum"] if value is not None)
    low, high = part.get("minimum"), part.get("maximum")
    if low is not None or high is not None:
        ends = [_plain(end) for end in (low, high) if end is not None]
        return " to ".join(ends) if len(ends) == 2 else f"at {'least' if high is None else 'most'} {ends[0]}"
    for key, unit in (("maxLength", "characters"), ("maxProperties", "pairs"), ("maxItems", "items")):
        if key in part:
            return f"at most {part[key]:,} {unit}"
    if "format" in part:
        return f"{part['format']}"
    return next((_values(choice) for choice in part.get("oneOf", ()) if _values(choice)), "")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)
