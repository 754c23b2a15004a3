"""Write docs/api.md from the OpenAPI document: `python docs/generate_api.py`; `--check` only compares."""

# ruff: noqa: INP001 - a script beside files that are no Python
import json
import sys
from http import HTTPStatus
from typing import Any, Final

from api_document import Document, Field, Node, Route, anchor_of, models, title_of
from api_words import HEADER_WORDS, HEADERS, OBJECTS, OTHERS, PARAMETERS, PATH_VALUES, QUERIES, STREAMS
from generated_page import ROOT, table, write_or_check

PAGE: Final = ROOT / "docs" / "api.md"
JSON: Final = "application/json"
FORM: Final = "multipart/form-data"
EVENTS: Final = "text/event-stream"
FIRST_REFUSAL: Final = 400
EVERYWHERE: Final = ("x-request-id",)
MOST_MARKS: Final = 20
"""Of a list of values inside an object: longer ones are explained elsewhere."""
HEAD: Final = """\
# API reference

<!-- Made by docs/generate_api.py from the app's OpenAPI document. Do not edit by hand. -->

A running gateway shows the same for a browser at `/docs`, and as an OpenAPI 3.1 document at
`/docs/openapi.json`. The [quickstart](quickstart.md) explains by example; the [errors page](errors.md)
has every code.

* Base URL: where the gateway listens, or its `ANTIPHON_PUBLIC_URL`; all paths here begin with `/v1`.
* Keys: `Authorization: Bearer aph_...`, or `x-api-key: aph_...`. A key has the scopes `generate`, `read`,
  `billing` and `webhooks` unless it was made with fewer. Keys that begin with `aph_test_` are free.
* Bodies are JSON in UTF-8, at most 1 MB. `null` is the same as leaving a field out. An unknown field is
  refused with the nearest valid name; a number is not read from text.
* Money is a string with nine decimals, in USD. Moments are UTC, in ISO 8601 with milliseconds.
* Ids of another organization, or of another project for a project's key, do not exist: 404.
* New fields may appear in answers at any time: ignore what you do not know.

The curl examples read `ANTIPHON_BASE_URL`, `ANTIPHON_API_KEY` and, for the id of a job, a top-up, a
file, a webhook endpoint or a delivery, `JOB`, `TOPUP`, `FILE`, `ENDPOINT` or `DELIVERY`. Those of
[payments](payments.md) need a gateway that takes payments.
"""
MODELS: Final = """\
## Models

Ranges and defaults of the catalog that comes with this version; operators change it. `GET /v1/models`
has those of your gateway, and the price that you pay. A dash: the model has no such knob.

"""
REFUSALS: Final = """\
## Refusals

The body is an [error envelope](#error-envelope). Nothing is charged, and nothing stays reserved. What
each code means and whose move it is: [errors](errors.md).

"""
OTHER_ROUTES: Final = """\
## Beside the API

None of these takes a key.

"""
DOWNLOADS: Final = """\
## Downloads

The `url` of a track needs no key: its signature is the permission, for seven days or until the file is
deleted. Do not store it; ask the job for a new one.

* `GET` and `HEAD`. One `Range` gives `206`; several, or a malformed one, give the whole file. `If-Range`
  is honoured.
* `ETag` with `If-None-Match` gives `304`.
* With an S3 store the answer is `302` to a link of the store's own, which lives for five minutes.
* A changed or expired link is `403` `link_refused`; a deleted file `404` `file_not_found`; a range
  behind the end `416`.
"""


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds the page out of date."""
    return write_or_check(PAGE, render, arguments)


def render() -> str:
    """The whole page."""
    document = Document()
    operations = list(document.operations())
    parts = [HEAD, _contents(operations), _model_table()]
    parts += [_section(document, route, operation) for route, operation in operations]
    parts += [_refusals(operations), _headers(document, operations), _objects(document, operations)]
    parts += [DOWNLOADS, _others(document, operations)]
    return "\n".join(part for part in parts if part)


def _contents(operations: list[tuple[Route, Node]]) -> str:
    rows = [
        (f"[{_title(operation)}](#{anchor_of(_title(operation))})", f"`{route.name}`")
        for route, operation in operations
    ]
    return table(("", "route"), rows)


def _model_table() -> str:
    rows = [
        (
            " ".join(f"`{name}`" for name in (model.id, *model.aliases)),
            ", ".join(model.tasks),
            _bounds(model.duration_seconds),
            _bounds(model.steps),
            _bounds(model.guidance_scale),
            model.usd_per_second,
        )
        for model in models()
    ]
    head = ("model", "tasks", "`audio_duration`", "`num_inference_steps`", "`guidance_scale`", "USD/s")
    return MODELS + table(head, rows)


def _bounds(bounds: tuple[float, float, float] | None) -> str:
    if bounds is None:
        return "-"
    low, high, default = (f"{number:g}" for number in bounds)
    return f"{low} to {high} ({default})"


def _title(operation: Node) -> str:
    return str(operation.get("summary") or operation.get("operationId"))


def _section(document: Document, route: Route, operation: Node) -> str:
    scope = f", scope `{route.scope}`" if route.scope else ""
    parts = [f"## {_title(operation)}", f"`{route.name}`{scope}", _description(operation)]
    parts += [_parameters(document, operation), _body(document, operation)]
    parts += [_answers(document, route, operation)]
    parts += [f"```sh\n{_curl(document, route, operation)}\n```", _example(document, route, operation)]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _description(operation: Node) -> str:
    """Without a first line that only repeats the title."""
    first, _, rest = str(operation.get("description", "")).partition("\n")
    repeats = first.rstrip(".").lower() == _title(operation).lower()
    return rest.strip() if repeats else f"{first}\n{rest}".strip()


def _parameters(document: Document, operation: Node) -> str:
    rows = []
    for parameter in operation.get("parameters", ()):
        part = dict(parameter.get("schema", {}))
        part["description"] = parameter.get("description") or part.get("description")
        name = parameter["name"]
        meaning = PARAMETERS.get(name, "")
        field = document.field(name, part, required=bool(parameter.get("required")), meaning=meaning)
        rows.append((f"`{name}`", parameter["in"], *_cells(field)))
    return table(("parameter", "in", "type", "values", "default", "meaning"), rows) if rows else ""


def _cells(field: Field) -> tuple[str, str, str, str]:
    """Absent and null are the same in requests, so only the other type is told."""
    kind = " or ".join(part for part in field.type.split(" or ") if part != "null")
    return (
        kind,
        field.values,
        "required" if field.required and not field.default else field.default,
        field.meaning,
    )


def _body(document: Document, operation: Node) -> str:
    """A body of fields as a table, with what is nested left to the objects; any other by its media type."""
    parts = []
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        name = next(document.references(body.get("schema", {})), None)
        if name is None:
            parts += [f"Body, `{media_type}`:", _form_table(document, body.get("schema", {}))]
        elif (first := _title(_first_with_body(document, name))) == _title(operation):
            parts += [f"Body, `{media_type}`:", _request_table(document, name)]
        else:
            parts.append(f"Body, `{media_type}`: the fields of [{first}](#{anchor_of(first)}).")
    return "\n\n".join(part.strip("\n") for part in parts)


def _first_with_body(document: Document, name: str) -> Node:
    """The operation whose section explains that body."""
    return next(
        operation
        for _, operation in document.operations()
        if name in document.references(operation.get("requestBody", {}))
    )


def _form_table(document: Document, schema: Node) -> str:
    """Of a form, which has no name of its own."""
    required = schema.get("required", ())
    fields = [
        document.field(name, part, required=name in required) for name, part in schema["properties"].items()
    ]
    rows = [(f"`{field.name}`", *_cells(field)) for field in fields]
    return table(("part", "type", "values", "default", "meaning"), rows)


def _request_table(document: Document, name: str) -> str:
    rows = [(f"`{field.name}`", *_cells(field)) for field in document.fields(name)]
    return table(("field", "type", "values", "default", "meaning"), rows)


def _answers(document: Document, route: Route, operation: Node) -> str:
    answers = operation.get("responses", {})
    rows = [
        (
            f"`{status}`",
            _media(document, media_type, content),
            _header_cell(route, answer),
            _meaning(status, answer),
        )
        for status, answer in sorted(answers.items())
        if int(status) < FIRST_REFUSAL
        for media_type, content in (answer.get("content") or {"": {}}).items()
    ]
    refusals = " ".join(f"`{status}`" for status in sorted(answers) if int(status) >= FIRST_REFUSAL)
    told = table(("answer", "body", "headers", "meaning"), rows)
    return f"{told}\n[Refusals](#refusals): {refusals}" if refusals else told


def _media(document: Document, media_type: str, content: Node) -> str:
    schema = content.get("schema", {})
    if media_type == JSON:
        return document.type_of(schema)
    what = f" of {document.type_of(schema)}" if next(document.references(schema), None) else ""
    return f"`{media_type}`{what}" if media_type else "none"


def _meaning(status: str, answer: Node) -> str:
    """Without the phrases that stand for every answer of that status."""
    known = HTTPStatus(int(status))
    text = str(answer.get("description", ""))
    return "" if text in {known.description, known.phrase} else text


def _refusals(operations: list[tuple[Route, Node]]) -> str:
    meanings: dict[str, dict[str, None]] = {}
    for _, operation in operations:
        for status, answer in operation.get("responses", {}).items():
            if int(status) >= FIRST_REFUSAL:
                meanings.setdefault(status, {})[str(answer.get("description", ""))] = None
    rows = [(f"`{status}`", " ".join(texts)) for status, texts in sorted(meanings.items())]
    return REFUSALS + table(("status", "meaning"), rows)


def _header_cell(route: Route, answer: Node) -> str:
    """Names of those that not every answer has; all are explained once, below."""
    names = [*answer.get("headers", {}), *HEADERS.get(route.name, ())]
    return ", ".join(f"`{name.lower()}`" for name in names if name.lower() not in EVERYWHERE)


def _curl(document: Document, route: Route, operation: Node) -> str:
    path = route.path
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            name = parameter["name"]
            path = path.replace(f"{{{name}}}", PATH_VALUES.get(name, f"${name.upper()}"))
    query = f"?{QUERIES[route.name]}" if route.name in QUERIES else ""
    lines = [f'curl -s{"N" if _is_stream(operation) else ""} "$ANTIPHON_BASE_URL{path}{query}"']
    content = operation.get("requestBody", {}).get("content", {})
    body = content.get(JSON)
    if route.method != ("POST" if content else "GET"):
        lines[0] += f" -X {route.method}"
    lines.append('-H "authorization: Bearer $ANTIPHON_API_KEY"')
    if body:
        text = json.dumps(document.example(body.get("schema", {})), ensure_ascii=False)
        lines += ['-H "content-type: application/json"', f"-d '{text}'"]
    if FORM in content:
        lines.append("-F file=@song.flac")
    return " \\\n  ".join(lines)


def _is_stream(operation: Node) -> bool:
    return any(EVENTS in (answer.get("content") or {}) for answer in operation.get("responses", {}).values())


def _example(document: Document, route: Route, operation: Node) -> str:
    if route.name in STREAMS:
        return f"```text\n{STREAMS[route.name]}```"
    for status, answer in sorted(operation.get("responses", {}).items(), reverse=True):
        content = (answer.get("content") or {}).get(JSON)
        if int(status) < FIRST_REFUSAL and content:
            return f"```json\n{_pretty(document.answer(route, content.get('schema', {})))}\n```"
    return ""


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _headers(document: Document, operations: list[tuple[Route, Node]]) -> str:
    """What each header means, and with which statuses it comes."""
    answers = [item for _, operation in operations for item in operation.get("responses", {}).items()]
    everywhere = {status for status, _ in answers}
    meanings = {name: str(node.get("description", "")) for name, node in document.headers().items()}
    rows = []
    for name, meaning in (HEADER_WORDS | meanings).items():
        found = {status for status, answer in answers if name in map(str.lower, answer.get("headers", {}))}
        told = "all" if found == everywhere else " ".join(f"`{status}`" for status in sorted(found))
        rows.append((f"`{name}`", told, meaning))
    return f"## Headers of answers\n\n{table(('header', 'with', 'meaning'), sorted(rows))}"


def _objects(document: Document, operations: list[tuple[Route, Node]]) -> str:
    """Every object of an answer, then those inside bodies, in the order in which a reader meets them."""
    answers = [operation.get("responses", {}) for _, operation in operations]
    answered = list(dict.fromkeys(name for part in answers for name in document.references(part)))
    parts = ["## Objects\n"]
    for name in answered:
        rows = [
            (
                f"`{field.name}`",
                field.type,
                field.values if field.values.count("`") <= MOST_MARKS else "",
                field.meaning,
            )
            for field in document.fields(name)
        ]
        words = f"{OBJECTS[name]}\n\n" if name in OBJECTS else ""
        parts.append(f"### {title_of(name)}\n\n{words}{table(('field', 'type', 'values', 'meaning'), rows)}")
    bodies = [list(document.references(operation.get("requestBody", {}))) for _, operation in operations]
    nested = dict.fromkeys(name for names in bodies for name in names[1:] if name not in answered)
    parts += [f"### {title_of(name)}\n\nIn a body.\n\n{_request_table(document, name)}" for name in nested]
    return "\n".join(parts)


def _others(document: Document, operations: list[tuple[Route, Node]]) -> str:
    documented = {route.name for route, _ in operations}
    rows = [
        (f"`{route.name}`", OTHERS.get(route.path) or route.text.partition("\n")[0])
        for route in document.routes
        if route.name not in documented
    ]
    return OTHER_ROUTES + table(("route", "what it answers"), sorted(rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
