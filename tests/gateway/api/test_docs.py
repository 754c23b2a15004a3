"""The reference under /docs: ours alone, valid, and of use."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.errors import raised_errors
from gateway.jobs.job import JobErrorCode
from tests.gateway.api.installation import Customer

FOREIGN = re.compile(
    r"""(?:https?:)?//(?!127\.0\.0\.1|localhost|[a-z0-9.-]+\.example\b)[a-z0-9-]+\.[a-z]""", re.IGNORECASE
)
"""What is named in an example (RFC 2606) is nowhere."""


@pytest_asyncio.fixture(loop_scope="session")
async def document(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.get("/docs/openapi.json")
    assert answer.status_code == 200
    return dict(answer.json())


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


@pytest.mark.parametrize("path", ["/docs", "/docs/", "/docs/errors"])
async def test_pages_load_nothing_from_elsewhere(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert FOREIGN.findall(answer.text) == []
    for source in re.findall(r"""(?:src|href)=["']([^"'#]+)""", answer.text):
        asset = await http.get(source)
        assert asset.status_code == 200, source
        assert len(asset.content) > 1_000


async def test_nothing_else_of_the_package_is_served(http: httpx.AsyncClient) -> None:
    for name in ("index.css", "oauth2-redirect.html", "../__init__.py", "%2e%2e/__init__.py", "", "LICENSE"):
        assert (await http.get(f"/docs/assets/{name}")).status_code == 404


async def test_the_document_hangs_together(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {"title", "version"} <= set(document["info"])
    for node in walk(document):
        if isinstance(node.get("$ref"), str):
            where: Any = document
            for step in node["$ref"].removeprefix("#/").split("/"):
                where = where[step]
            assert where
    ids = [node["operationId"] for node in walk(document["paths"]) if "operationId" in node]
    assert len(ids) == len(set(ids)) > 5
    for path, methods in document["paths"].items():
        named = set(re.findall(r"{(\w+)}", path))
        for operation in methods.values():
            parameters = operation.get("parameters", [])
            assert {p["name"] for p in parameters if p["in"] == "path"} == named
            assert operation["security"] == [{"bearer": []}, {"x-api-key": []}]
            assert operation["summary"]
            assert operation["description"]
            assert {"401", "403"} <= set(operation["responses"])


async def test_bodies_that_refuse_unknown_names_say_so(document: dict[str, Any]) -> None:
    for name in ("GenerationBody", "AudioSettingsBody"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False


async def test_every_field_of_a_generation_is_explained(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["GenerationBody"]
    fields = schema["properties"]
    for name, field in fields.items():
        assert field.get("description"), name
    assert (fields["bpm"]["minimum"], fields["bpm"]["maximum"]) == (30, 300)
    assert (fields["seed"]["minimum"], fields["seed"]["maximum"]) == (-1, 2**32 - 1)
    assert set(fields["format"]["enum"]) - {None} == {"flac", "wav", "mp3", "ogg"}
    assert set(fields["response_format"]["enum"]) - {None} == {"url", "b64_json", "base64"}
    assert set(fields["time_signature"]["enum"]) - {None} == {2, 3, 4, 6}
    assert "en" in fields["vocal_language"]["enum"]
    assert fields["prompt"]["maxLength"] == 4_000
    assert schema["examples"]


async def test_the_example_of_the_document_is_accepted(customer: Customer, document: dict[str, Any]) -> None:
    for example in document["components"]["schemas"]["GenerationBody"]["examples"]:
        answer = await customer.http.post(
            "/v1/audio/generations", json=example, headers=customer.headers(customer.test_key)
        )
        assert answer.status_code == 202, answer.text


async def test_the_submit_tells_of_its_headers(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/audio/generations"]["post"]
    headers = {p["name"].lower() for p in operation.get("parameters", []) if p["in"] == "header"}
    assert "idempotency-key" in headers
    assert {"202", "400", "402", "404", "413", "415", "422", "429", "503"} <= set(operation["responses"])


async def test_answers_tell_of_their_headers(document: dict[str, Any]) -> None:
    known = document["components"]["headers"]
    for methods in document["paths"].values():
        for operation in methods.values():
            assert {"408", "431", "503"} <= set(operation["responses"])
            for status, answer in operation["responses"].items():
                headers = {name: known[name] | header for name, header in answer["headers"].items()}
                needed = {name for name, header in headers.items() if header.get("required")}
                assert "x-request-id" in needed
                assert ("location" in headers) == ("location" in needed)
                if status in {"400", "401", "402", "403", "404", "413", "415", "422", "431"}:
                    assert "x-should-retry" in needed
                if status in {"429", "503"}:
                    assert "retry-after" in headers
    answers = document["paths"]["/v1/audio/generations"]["post"]["responses"]
    for status in ("200", "202"):
        assert {"location", "idempotent-replayed", "x-ratelimit-remaining-requests"} <= set(
            answers[status]["headers"]
        )


async def test_parameters_tell_what_they_may_be(document: dict[str, Any]) -> None:
    listing = document["paths"]["/v1/jobs"]["get"]["parameters"]
    schemas = {parameter["name"]: parameter["schema"] for parameter in listing}
    assert (schemas["limit"]["minimum"], schemas["limit"]["maximum"]) == (1, 100)
    assert schemas["status"]["enum"] == ["queued", "processing", "completed", "failed"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                assert parameter["description"], (path, parameter["name"])
                assert {"type": "null"} not in parameter["schema"].get("oneOf", [])
                if parameter["name"] == "job_id":
                    assert parameter["schema"]["pattern"] == "^[0-9a-f]{32}$"


async def test_every_code_has_its_line_on_the_errors_page(http: httpx.AsyncClient) -> None:
    page = (await http.get("/docs/errors")).text
    anchors = re.findall(r'id="([a-z_]+)"', page)
    assert {kind.code for kind in raised_errors()} | set(JobErrorCode) <= set(anchors)
    assert len(anchors) == len(set(anchors))
