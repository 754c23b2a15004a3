"""Bodies that nobody means well with: each is one clear 4xx, and none becomes a job."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dialects.json_body import decode_body
from gateway.errors import InvalidRequest
from tests.gateway.api.installation import Customer

PATH = "/v1/audio/generations"
GOOD = {"model": "sandbox", "prompt": "a calm piano", "audio_duration": 5}
ANYTHING = msgspec.json.Decoder()


def nested(depth: int, open_: str = "[", close: str = "]", core: str = "") -> str:
    return open_ * depth + core + close * depth


def with_field(name: str, raw: str) -> bytes:
    """A good body with one more field, whose value is that raw JSON."""
    return (json.dumps(GOOD)[:-1] + f', "{name}": {raw}}}').encode()


DEEP = {
    f"{depth} deep {shape} in {field}": with_field(field, nested(depth, *brackets))
    for depth in (900, 1_000, 100_000)
    for shape, brackets in (("arrays", ("[", "]")), ("objects", ('{"a":', "}", "1")))
    for field in ("lyrics", "user", "metadata", "audio_settings", "nonsense")
    if not (depth == 900 and field == "user")
}
BROKEN = {
    "nothing": b"",
    "a blank": b" ",
    "an array": b"[]",
    "a string": b'"sandbox"',
    "null": b"null",
    "a number": b"1",
    "half an object": b'{"model": "sandbox"',
    "two objects": b'{"model":"sandbox","prompt":"x"}{}',
    "single quotes": b"{'model': 'sandbox', 'prompt': 'x'}",
    "a comment": b'{"model":"sandbox",/* */"prompt":"x"}',
    "a form": b"model=sandbox&prompt=x",
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "UTF-32": json.dumps(GOOD).encode("utf-32"),
    "invalid UTF-8 in a text": b'{"model":"sandbox","prompt":"\xff\xfe"}',
    "invalid UTF-8 in a name": b'{"model":"sandbox","prompt":"x","\xc3(":1}',
    "an overlong encoding": b'{"model":"sandbox","prompt":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"model":"sandbox","prompt":"\xed\xa0\x80"}',
    "an escaped lone surrogate": b'{"model":"sandbox","prompt":"\\ud800"}',
    "a reversed surrogate pair": b'{"model":"sandbox","prompt":"\\udc00\\ud800"}',
    "a lone surrogate in an ignored field": with_field("user", '"\\ud800"'),
    "a raw NUL": b'{"model":"sandbox","prompt":"a\x00b"}',
    "an escaped NUL": b'{"model":"sandbox","prompt":"a\\u0000b"}',
    "a NUL in the model": b'{"model":"sandbox\\u0000","prompt":"x"}',
    "a NUL in a metadata key": with_field("metadata", '{"a\\u0000": "b"}'),
    "a NUL in a metadata value": with_field("metadata", '{"a": "b\\u0000"}'),
    "a NUL in an ignored field": with_field("user", '{"a": ["\\u0000"]}'),
    "a NUL deep in an ignored field": with_field("user", nested(800, core='"\\u0000"')),
    "a NUL in an unknown name": with_field("a\\u0000b", "1"),
    "NaN": with_field("shift", "NaN"),
    "Infinity": with_field("shift", "Infinity"),
    "minus Infinity": with_field("audio_duration", "-Infinity"),
    "a float past the largest": with_field("shift", "1e999"),
    "a float far past the largest": with_field("shift", "-1" + "0" * 5_000 + ".5"),
    "a huge exponent": with_field("shift", "1e99999999999999999999"),
    "a trailing dot": with_field("shift", "1."),
    "a leading zero": with_field("bpm", "0120"),
    "a hexadecimal number": with_field("bpm", "0x78"),
    "a number as text": with_field("bpm", '"120"'),
    "a float for a whole number": with_field("bpm", "120.5"),
    "a truth value for a number": with_field("bpm", "true"),
    "a number for a text": with_field("lyrics", "1"),
    "a number for a truth value": with_field("instrumental", "1"),
    "a list for a text": with_field("lyrics", '["la"]'),
    "a text for an object": with_field("metadata", '"a"'),
    "a number in the metadata": with_field("metadata", '{"a": 1}'),
    "null in the metadata": with_field("metadata", '{"a": null}'),
    "a list for the settings": with_field("audio_settings", "[]"),
    "a model that is a number": b'{"model":1,"prompt":"x"}',
    "a model that is null": b'{"model":null,"prompt":"x"}',
    "a long unknown name": with_field("x" * 100_000, "1"),
    "a long model": json.dumps(GOOD | {"model": "x" * 100_000}).encode(),
    "a long key": with_field("key_scale", json.dumps("C" * 100_000)),
    "a long format": with_field("format", json.dumps("mp" * 100_000)),
    "a long language": with_field("vocal_language", json.dumps("e" * 100_000)),
    "a long number that is ignored": with_field("user", "1" * 5_000),
}
LONG_NUMBERS = {
    f"{sign}{digits} digits of {field}": with_field(field, sign + "9" * digits)
    for digits in (20, 400, 5_000)
    for sign in ("", "-")
    for field in ("seed", "bpm", "time_signature", "shift", "duration")
} | {
    f"{digits} digits of {field}": with_field(
        "format", '"mp3", "audio_settings": {"' + field + '": ' + "9" * digits + "}"
    )
    for digits in (20, 400, 5_000)
    for field in ("bitrate", "channels", "sample_rate")
}
ALL = BROKEN | LONG_NUMBERS | DEEP


@pytest.mark.parametrize("name", list(ALL))
async def test_a_hostile_body_is_one_clear_refusal(customer: Customer, name: str) -> None:
    answer = await post(customer, ALL[name])
    assert answer.status_code in {400, 404}, answer.text[:500]
    error = answer.json()["error"]
    assert 0 < len(error["message"]) < 700
    assert error["request_id"] == answer.headers["x-request-id"]
    assert len(error["param"] or "") <= 200
    assert answer.headers["x-should-retry"] == "false"
    assert await customer.count_jobs() == 0


async def test_what_is_ignored_may_be_deep_as_long_as_it_can_be_read(customer: Customer) -> None:
    for value in (nested(500), nested(900, '{"a":', "}", "1"), "1e999", "[1, {}, null]", "1" * 400):
        answer = await post(customer, with_field("user", value))
        assert answer.status_code in {202, 400}, answer.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"nonsense","prompt":"x","model":"sandbox","audio_duration":5}', "model"),
        (with_field("prompt", '"a calm piano"'), "prompt"),
        (with_field("bpm", 'null, "bpm": 90'), "bpm"),
        (with_field("\\u0070rompt", '"a loud piano"'), "prompt"),
        (with_field("audio_settings", '{"bitrate": 128, "bitrate": 192}'), "audio_settings.bitrate"),
        (with_field("metadata", '{"a": "1", "\\u0061": "2"}'), "metadata.a"),
        (with_field("metadata", '{"\U0001f3b5": "1", "\\ud83c\\udfb5": "2"}'), "metadata.\U0001f3b5"),
        (with_field("metadata", '{"": "1", "": "2"}'), "metadata."),
        (with_field("user", '[1, {"a": {"b": 1, "b": 1}}, {"c": 1}]'), "user.a.b"),
        (with_field("user", "[" + '{"a": 1},' * 1_000 + '{"z": 1, "y": 2, "z": 3}]'), "user.z"),
        (with_field("user", nested(800, '{"a":', "}", '{"b":1,"b":1}')), ("user" + ".a" * 800 + ".b")[-200:]),
        (b"\r\n\t " + with_field("seed", '1 , "seed" : 1'), "seed"),
    ],
    ids=lambda case: case[:60] if isinstance(case, str) else "",
)
async def test_a_name_that_is_given_twice_is_refused(customer: Customer, body: bytes, param: str) -> None:
    answer = await post(customer, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert "given twice" in error["message"]
    assert len(error["message"]) < 300
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": 'say "prompt": "x", "prompt": "y"'},
        {"prompt": '{"a":1,"a":2}', "lyrics": '"prompt":"prompt"'},
        {"prompt": ': : "model":', "metadata": {"model": "model", "prompt": "prompt", "a:": '":"'}},
        {"metadata": {"a": "1", "A": "2", "a ": "3", "\u0430": "4", "": "5", "e\u0301": "6", "\xe9": "7"}},
        {"user": [{"a": 1}, {"a": 1}, {"b": {"a": 1}}], "audio_settings": {"bitrate": 192}, "format": "mp3"},
        {"lyrics": "\\", "negative_prompt": '\\"', "user": '\\\\"'},
    ],
)
async def test_the_same_text_elsewhere_is_no_repetition(customer: Customer, fields: dict[str, Any]) -> None:
    for separators in ((",", ":"), (" ,\n", "\t: ")):
        for ascii_only in (True, False):
            body = json.dumps(GOOD | fields, separators=separators, ensure_ascii=ascii_only).encode()
            answer = await post(customer, b" \r\n\t" + body + b"\n ")
            assert answer.status_code == 202, answer.text


objects = st.lists(
    st.tuples(st.text("ab", max_size=2), st.integers(0, 1) | st.just("x")), min_size=0, max_size=5
)


@given(pairs=objects, inner=objects, escapes=st.booleans())
def test_exactly_the_repeated_names_are_refused(
    pairs: list[tuple[str, Any]],
    inner: list[tuple[str, Any]],
    escapes: bool,  # noqa: FBT001 - a case of the table
) -> None:
    raw = written([*pairs, ("inner", inner)], escapes=escapes)
    outer_names, inner_names = [name for name, _ in pairs], [name for name, _ in inner]
    if len(set(outer_names)) == len(outer_names) and len(set(inner_names)) == len(inner_names):
        assert decode_body(raw.encode(), ANYTHING) == {**dict(pairs), "inner": dict(inner)}
        return
    with pytest.raises(InvalidRequest) as refusal:
        decode_body(raw.encode(), ANYTHING)
    place = refusal.value.param or ""
    names = inner_names if place.startswith("inner.") else outer_names
    assert names.count(place.removeprefix("inner.")) > 1


def written(pairs: list[tuple[str, Any]], *, escapes: bool) -> str:
    """An object, with every second name in escapes if so wished."""
    parts = []
    for number, (name, value) in enumerate(pairs):
        spelled = "".join(f"\\u{ord(char):04x}" for char in name) if escapes and number % 2 else name
        text = written(value, escapes=escapes) if isinstance(value, list) else json.dumps(value)
        parts.append(f'"{spelled}":{text}')
    return "{" + ",".join(parts) + "}"


def test_a_name_given_twice_above_what_is_too_deep_is_one_refusal() -> None:
    for depth in range(850, 1_000):
        raw = '[{"a":1,"a":1},' + nested(depth) + "]"
        with pytest.raises(InvalidRequest):
            decode_body(raw.encode(), ANYTHING)


async def test_a_megabyte_of_brackets_is_refused_unread(customer: Customer) -> None:
    for value in (
        "[" + "[]," * 300_000 + "0]",
        "[" + '{"":0},' * 120_000 + "0]",
        "[" + "{}," * 300_000 + "0]",
    ):
        answer = await post(customer, with_field("user", value))
        assert answer.status_code == 400
        assert "values" in answer.json()["error"]["message"]
    assert await customer.count_jobs() == 0


async def test_all_fields_at_their_longest_are_not_too_many_values(customer: Customer) -> None:
    fields = {
        "prompt": "," * 4_000,
        "lyrics": "[{" * 5_000,
        "negative_prompt": "," * 4_000,
        "metadata": {f"{number:02}" + "," * 62: "," * 512 for number in range(16)},
        "user": " " * 100_000,
    }
    answer = await post(customer, json.dumps(GOOD | fields).encode())
    assert answer.status_code == 202, answer.text


async def test_two_megabytes_are_too_many(customer: Customer) -> None:
    body = with_field("user", json.dumps("x" * 2_000_000))
    answer = await post(customer, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")

    async def chunks() -> Any:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    answer = await post(customer, chunks())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "image/png"],
)
async def test_only_json_is_taken(customer: Customer, content_type: str) -> None:
    answer = await post(customer, json.dumps(GOOD).encode(), content_type=content_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert await customer.count_jobs() == 0


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json", ";;;", "json", "é"],
)
async def test_no_content_type_breaks_the_server(customer: Customer, content_type: str) -> None:
    answer = await post(customer, json.dumps(GOOD).encode(), content_type=content_type.encode())
    assert answer.status_code in {202, 415}, answer.text


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
async def test_raw_bytes_never_break_the_server(customer: Customer, body: bytes) -> None:
    assert (await post(customer, body)).status_code in {400, 404}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    "prompt lyrics audio_duration num_inference_steps guidance_scale shift negative_prompt seed format "
    "response_format return_base64 audio_settings bpm key_scale time_signature vocal_language instrumental "
    "task metadata input duration steps cfg_scale output_format user".split()
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(FIELDS | st.text(max_size=8), json_values, min_size=1, max_size=3))
async def test_strange_values_never_break_the_server(customer: Customer, fields: dict[str, Any]) -> None:
    answer = await post(customer, json.dumps(GOOD | fields).encode(), key=customer.test_key)
    assert answer.status_code in {202, 400, 404}, answer.text


async def post(
    customer: Customer, body: Any, *, content_type: str | bytes = "application/json", key: str | None = None
) -> Any:
    headers: dict[str, Any] = customer.headers(key)
    return await customer.http.post(PATH, content=body, headers=headers | {"content-type": content_type})
