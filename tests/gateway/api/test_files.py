"""Uploads over HTTP: what is taken, what is refused, who sees it, and that the bytes come back."""

import hashlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from gateway.auth.principal import Principal
from gateway.files import service
from gateway.generation import AudioInput
from gateway.ids import new_id, parse_id
from tests.gateway.api.installation import Customer, Installation

BOUNDARY = "a-boundary"


def wav(frames: int, *, rate: int = 48_000, channels: int = 2) -> bytes:
    """Noise as 16-bit PCM."""
    data = np.random.default_rng(1).integers(-9_000, 9_000, (frames, channels)).astype("<i2").tobytes()
    size = 2 * channels
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * size, size, 16)
    head = struct.pack("<4sI4s4s", b"RIFF", 36 + len(data), b"WAVE", b"fmt ")
    return head + layout + struct.pack("<4sI", b"data", len(data)) + data


SOUND = wav(9_600)


def part(name: str, data: bytes, *, filename: str | None = None, more: str = "") -> bytes:
    told = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{told}\r\n{more}\r\n'
    return head.encode() + data + b"\r\n"


FILE = part("file", SOUND, filename="take.wav")
END = f"--{BOUNDARY}--\r\n".encode()


async def upload(
    customer: Customer, data: bytes = SOUND, *, name: str = "take.wav", key: str | None = None, **form: str
) -> httpx.Response:
    return await customer.http.post(
        "/v1/files", files={"file": (name, data)}, data=form, headers=customer.headers(key)
    )


async def uploaded(customer: Customer, data: bytes = SOUND, **options: Any) -> dict[str, Any]:
    answer = await upload(customer, data, **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def send(customer: Customer, body: bytes, *, content_type: str | None = None) -> httpx.Response:
    kind = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    return await customer.http.post(
        "/v1/files", content=body, headers=customer.headers(**{"content-type": kind})
    )


def code(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def scratch(installation: Installation) -> list[str]:
    return [path.name for path in installation.live.files.scratch.iterdir()]


async def test_an_upload_tells_what_it_is_and_its_bytes_come_back(
    customer: Customer, installation: Installation
) -> None:
    data = wav(22_050, rate=44_100, channels=1)
    made = await uploaded(customer, data, name="../C:\\Songs\\Täke 1.wav", purpose="user_data")
    assert (made["object"], made["bytes"], made["filename"]) == ("file", len(data), "Täke 1.wav")
    assert (made["content_type"], made["purpose"], made["status"]) == ("audio/wav", "user_data", "processed")
    assert (made["duration_seconds"], made["sample_rate"], made["channels"]) == (0.5, 44_100, 1)
    assert made["sha256"] == hashlib.sha256(data).hexdigest()
    assert made["expires_at"] - made["created_at"] == 7 * 86_400
    assert (await customer.get(f"/v1/files/{made['id']}")).json()["id"] == made["file_id"] == made["id"]
    whole, piece = [
        await customer.http.get(made["url"], headers=headers) for headers in ({}, {"range": "bytes=4-7"})
    ]
    assert (whole.content, piece.content, piece.status_code) == (data, data[4:8], 206)
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert scratch(installation) == []


async def test_the_other_path_and_a_signed_link_work_as_documented(customer: Customer) -> None:
    answer = await customer.http.post(
        "/v1/files/upload", files={"file": ("a", SOUND)}, headers=customer.headers()
    )
    signed = (await customer.get("/v1/files/sign", file_id=answer.json()["id"])).json()
    assert set(signed) == {"url", "expires_at"}
    assert (await customer.http.get(signed["url"])).content == SOUND
    missing = await customer.get("/v1/files/sign")
    assert (missing.status_code, "file_id" in missing.json()["error"]["message"]) == (400, True)


async def test_the_client_of_openai_uploads_reads_lists_and_deletes(customer: Customer) -> None:
    base_url = str(customer.http.base_url) + "/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key=customer.live_key, max_retries=0) as client:
        made = [
            await client.files.create(
                file=(f"{n}.wav", SOUND),
                purpose="user_data",
                expires_after={"anchor": "created_at", "seconds": 3_600},
            )
            for n in range(3)
        ]
        assert made[0].expires_at == made[0].created_at + 3_600
        assert (await client.files.retrieve(made[0].id)).filename == "0.wav"
        listed = [found.id async for found in await client.files.list(limit=2)]
        assert listed == [file.id for file in reversed(made)]
        assert (await client.files.delete(made[0].id)).deleted
        with pytest.raises(openai.NotFoundError) as missing:
            await client.files.retrieve(made[0].id)
        assert missing.value.code == "file_not_found"


async def test_what_one_may_not_see_does_not_exist(customer: Customer, installation: Installation) -> None:
    other = await installation.customer()
    mine, theirs = [
        await customer.key(project_id=await customer.project(name)) for name in ("mine", "theirs")
    ]
    file_id = (await uploaded(customer, key=mine))["id"]
    seers = {"owner": customer.headers(mine), "organization": customer.headers()}
    strangers = {"project": customer.headers(theirs), "stranger": other.headers()}
    for headers in seers.values():
        assert (await customer.http.get(f"/v1/files/{file_id}", headers=headers)).status_code == 200
    for headers in strangers.values():
        for method, path in [
            ("GET", f"/v1/files/{file_id}"),
            ("DELETE", f"/v1/files/{file_id}"),
            ("GET", f"/v1/files/sign?file_id={file_id}"),
        ]:
            told = await customer.http.request(method, path, headers=headers)
            unknown = await customer.http.request(
                method, path.replace(file_id, new_id().hex), headers=headers
            )
            assert code(told) == code(unknown) == (404, "file_not_found", None)
            assert told.json()["error"]["message"] == unknown.json()["error"]["message"]
        assert (await customer.http.get("/v1/files", headers=headers)).json()["data"] == []
    assert (await customer.get(f"/v1/files/{file_id}")).status_code == 200


async def test_a_key_that_may_only_read_uploads_and_deletes_nothing(customer: Customer) -> None:
    reader = await customer.key(scopes=("read",))
    made = await uploaded(customer)
    assert code(await upload(customer, key=reader)) == (403, "scope_denied", None)
    deleted = await customer.http.delete(f"/v1/files/{made['id']}", headers=customer.headers(reader))
    assert code(deleted) == (403, "scope_denied", None)
    assert (await customer.get(f"/v1/files/{made['id']}", key=reader)).status_code == 200


async def test_a_request_finds_the_file_that_it_names_and_its_length(customer: Customer) -> None:
    made = await uploaded(customer)
    principal = Principal(
        key_id=new_id(), organization_id=customer.organization_id, project_id=None, test=False
    )
    files = customer.live.files
    assert await files.find_input(principal, made["id"]) == AudioInput(file_id=made["id"], frames=9_600)
    for unknown in (new_id().hex, "x", ""):
        assert await files.find_input(principal, unknown) is None
    await customer.live.pool.execute("UPDATE file SET expires_at = now() WHERE id = $1", parse_id(made["id"]))
    assert await files.find_input(principal, made["id"]) is None
    assert code(await customer.get(f"/v1/files/{made['id']}")) == (404, "file_not_found", None)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (400, "invalid_request", "file")),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), (415, "unsupported_media_type", "file")),
        (b"#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1/a", (415, "unsupported_media_type", "file")),
        (b"<svg/>", (415, "unsupported_media_type", "file")),
        (SOUND[:60], (400, "invalid_request", "file")),
        (b"fLaC" + bytes(500), (400, "invalid_request", "file")),
        (wav(100), (400, "invalid_request", "file")),
    ],
)
async def test_what_is_no_sound_is_refused_and_leaves_nothing(
    customer: Customer, installation: Installation, data: bytes, expected: tuple[int, str, str]
) -> None:
    assert code(await upload(customer, data)) == expected
    assert scratch(installation) == []
    assert (await customer.get("/v1/files")).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "invalid_request", None)),
        (END, (400, "invalid_request", "file")),
        (FILE, (400, "invalid_request", None)),
        (FILE[:-40] + END, (400, "invalid_request", None)),
        (FILE + FILE + END, (400, "invalid_request", "file")),
        (part("purpose", b"x") + END, (400, "invalid_request", "file")),
        (part("files", b"x") + FILE + END, (400, "unknown_parameter", "files")),
        (part("purpose", b"x") * 2 + FILE + END, (400, "invalid_request", "purpose")),
        (part("purpose", b"\xff") + FILE + END, (400, "invalid_request", "purpose")),
        (part("purpose", b"a\0b") + FILE + END, (400, "invalid_request", "purpose")),
        (part("purpose", "ä".encode()) + FILE + END, (400, "invalid_request", "purpose")),
        (part("purpose", b"x" * 2_000) + FILE + END, (400, "invalid_request", "purpose")),
        (
            part("expires_after[anchor]", b"now") + FILE + END,
            (400, "invalid_request", "expires_after[anchor]"),
        ),
        (
            part("expires_after[seconds]", b"1e9") + FILE + END,
            (400, "invalid_request", "expires_after[seconds]"),
        ),
        (part("file", SOUND, more="x" * 9_000 + ": y\r\n") + END, (400, "invalid_request", None)),
        (part("file", SOUND, more="a: b\r\n" * 50) + END, (400, "invalid_request", None)),
        (part("file", SOUND, more="\xff\r\n") + END, (400, "invalid_request", None)),
        (b"--another\r\n\r\n\r\n", (400, "invalid_request", None)),
        (b"".join(part(f"p{n}", b"") for n in range(99)) + END, (400, "unknown_parameter", "p0")),
        (bytes(300_000), (400, "invalid_request", None)),
    ],
)
async def test_hostile_forms_are_refused_in_words(
    customer: Customer, installation: Installation, body: bytes, expected: tuple[int, str, str | None]
) -> None:
    answer = await send(customer, body)
    assert code(answer) == expected
    assert "Error(" not in answer.text
    assert scratch(installation) == []


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("audio/wav", 415),
        ("multipart/mixed; boundary=a", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 2_000, 400),
    ],
)
async def test_what_is_no_form_is_refused(customer: Customer, content_type: str, status: int) -> None:
    assert (await send(customer, FILE + END, content_type=content_type)).status_code == status


async def test_odd_but_valid_forms_are_taken(customer: Customer) -> None:
    nameless = await send(customer, part("purpose", b"") + part("file", SOUND) + END[:-2])
    assert (nameless.status_code, nameless.json()["filename"], nameless.json()["purpose"]) == (
        200,
        "audio",
        None,
    )
    odd = await send(customer, part("file", SOUND, filename="a\0\x1b\u202e" + "b" * 500 + ".wav") + END)
    assert odd.json()["filename"] == "b" * 196 + ".wav"

    async def byte_by_byte_at_the_end() -> AsyncIterator[bytes]:
        body = FILE + END
        yield body[:-30]
        for byte in body[-30:]:
            yield bytes([byte])

    headers = customer.headers(**{"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
    slow = await customer.http.post("/v1/files", content=byte_by_byte_at_the_end(), headers=headers)
    assert slow.json()["bytes"] == len(SOUND)


async def test_a_file_that_is_too_large_is_refused_by_its_announcement_and_by_its_bytes(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.dialects.native.files.MAX_FILE_BYTES", 1_000)
    assert code(await upload(customer, wav(40_000))) == (413, "payload_too_large", "file")

    async def chunks() -> AsyncIterator[bytes]:
        yield FILE
        yield END

    headers = customer.headers(**{"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
    answer = await customer.http.post("/v1/files", content=chunks(), headers=headers)
    assert code(answer) == (413, "payload_too_large", "file")


async def test_places_and_room_are_bounded(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    principal = Principal(
        key_id=new_id(), organization_id=customer.organization_id, project_id=None, test=False
    )
    with customer.live.files.receiving(principal), monkeypatch.context() as patched:
        patched.setattr(service, "UPLOADS_AT_ONCE_EACH", 1)
        busy = await upload(customer)
        assert (*code(busy), busy.headers["retry-after"]) == (429, "concurrency_limit_exceeded", None, "2")
        patched.setattr(service, "UPLOADS_AT_ONCE", 1)
        assert code(await upload(customer)) == (503, "overloaded", None)
    await uploaded(customer)
    monkeypatch.setattr(service, "MAX_FILES", 1)
    assert code(await upload(customer)) == (413, "payload_too_large", "file")
