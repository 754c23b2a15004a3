"""A link opens one file until its time is over; whatever was changed about it opens nothing."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import pytest
import pytest_asyncio

from gateway.signed_urls import UrlSigner
from tests.gateway.api.installation import SECRET, SONG, Customer, Installation


class Link:
    """A good one, in parts, and another file beside it."""

    def __init__(self, url: str, other_url: str) -> None:
        self.path, self.query = urlsplit(url).path, urlsplit(url).query
        self.parameters = dict(parse_qsl(self.query))
        self.other_path, self.other_query = urlsplit(other_url).path, urlsplit(other_url).query

    def having(self, **changes: Any) -> str:
        """The same link with other parameters; None leaves one out."""
        parameters = {name: value for name, value in (self.parameters | changes).items() if value is not None}
        return f"{self.path}?{urlencode(parameters, quote_via=quote)}"


@pytest_asyncio.fixture(loop_scope="session")
async def link(customer: Customer, installation: Installation) -> Link:
    urls = []
    for owner in (customer, await installation.customer()):
        job = await owner.submitted()
        await installation.finish(job["id"])
        urls.append((await owner.job(job["id"]))["result"]["data"][0]["url"])
    return Link(*urls)


def tampered(link: Link) -> dict[str, str]:
    """Every way to change a link that we could think of."""
    path, query, expires = link.path, link.query, int(link.parameters["expires"])
    signature, name = link.parameters["signature"], link.parameters["name"]
    folder, _, file = path.rpartition("/")
    return {
        "nothing signed": path,
        "an empty query": f"{path}?",
        "a second longer": link.having(expires=expires + 1),
        "a second shorter": link.having(expires=expires - 1),
        "for ever": link.having(expires=10**15),
        "no expiry": link.having(expires=None),
        "an empty expiry": link.having(expires=""),
        "a negative expiry": link.having(expires=-1),
        "a zero in front": link.having(expires=f"0{expires}"),
        "a plus in front": link.having(expires=f"+{expires}"),
        "a blank behind": link.having(expires=f"{expires} "),
        "other digits": link.having(expires="".join(chr(0x660 + int(digit)) for digit in str(expires))),
        "an underscore": link.having(expires=f"{str(expires)[:3]}_{str(expires)[3:]}"),
        "an exponent": link.having(expires="9e9"),
        "another name": link.having(name=name + "x"),
        "no name": link.having(name=None),
        "an empty name": link.having(name=""),
        "a name with a header in it": link.having(name=name + "\r\nset-cookie: a=b"),
        "no signature": link.having(signature=None),
        "an empty signature": link.having(signature=""),
        "half a signature": link.having(signature=signature[:32]),
        "a longer signature": link.having(signature=signature + "0"),
        "a signature in capitals": link.having(signature=signature.upper()),
        "a signature in base64": link.having(signature="A" * 43 + "="),
        "a signature of zeros": link.having(signature="0" * 64),
        "a signature that is no text": f"{path}?{query[:-64]}%ff%fe",
        "a NUL behind the signature": f"{path}?{query}%00",
        "the signature of another file": f"{path}?{link.other_query}",
        "the path of another file": f"{link.other_path}?{query}",
        "the parameters twice": f"{path}?{query}&{query}",
        "the expiry twice": f"{path}?{query}&expires={expires + 1}",
        "one parameter more": f"{path}?{query}&x=1",
        "capital names": f"{path}?{query.replace('expires', 'Expires')}",
        "a name as a list": f"{path}?{query.replace('name=', 'name[]=')}",
        "semicolons": f"{path}?{query.replace('&', ';')}",
        "another attempt": f"{path.replace('/1-0.', '/2-0.')}?{query}",
        "another track": f"{path.replace('/1-0.', '/1-1.')}?{query}",
        "another format": f"{path.replace('.flac', '.wav')}?{query}",
        "a path in capitals": f"{path.upper().replace('/AUDIO/', '/audio/')}?{query}",
        "a slash more": f"{folder}//{file}?{query}",
        "a slash behind": f"{path}/?{query}",
        "a step in front": f"/.{path}?{query}",
        "a slash in front": f"/{path}?{query}",
        "a step up and down": f"{folder}/x/../{file}?{query}",
        "an encoded step up": f"{folder}/x/%2e%2e/{file}?{query}",
        "an encoded slash twice": f"{path.replace('/', '%252f')}?{query}",
        "a NUL behind the path": f"{path}%00?{query}",
        "a blank behind the path": f"{path}%20?{query}",
        "a parameter of the path": f"{path};a=b?{query}",
        "the whole folder": f"{folder}?{query}",
        "a file of the system": f"/audio/../../../../etc/passwd?{query}",
    }


async def open_link(http: httpx.AsyncClient, url: str, method: str = "GET") -> httpx.Response:
    """By hand: a client would tidy the path up."""
    where = urlsplit(str(http.base_url))
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(f"{method} {url} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    line, *fields = head.decode().split("\r\n")
    headers = [tuple(field.split(": ", 1)) for field in fields]
    return httpx.Response(int(line.split()[1]), headers=headers, content=body)


async def test_the_link_itself_is_good(link: Link, http: httpx.AsyncClient) -> None:
    url = f"{link.path}?{link.query}"
    assert (await open_link(http, url)).content == SONG
    assert (await open_link(http, url, "HEAD")).status_code == 200
    assert (await open_link(http, link.having())).content == SONG


async def test_every_change_is_refused(link: Link, http: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        for change, url in tampered(link).items():
            answer = await open_link(http, url, method)
            assert answer.status_code in {400, 403, 404}, (change, answer.status_code)
            assert SONG[:4] not in answer.content
            assert "set-cookie" not in answer.headers


async def test_a_refusal_tells_nothing_about_the_file(link: Link, http: httpx.AsyncClient) -> None:
    missing = link.path.replace("/1-0.", "/1-9.")
    answers = [
        await open_link(http, url)
        for url in (link.path, missing, f"{missing}?{link.query}", link.having(expires=1), link.other_path)
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"].pop("code")) == (403, "link_refused")
    stripped = [
        answer.text.replace(answer.headers["x-request-id"], "") + str(sorted(set(answer.headers) - {"date"}))
        for answer in answers
    ]
    assert len(set(stripped)) == 1


async def test_every_digit_of_the_signature_counts(link: Link, http: httpx.AsyncClient) -> None:
    signature = link.parameters["signature"]
    for place in range(0, 64, 3):
        digit = "0" if signature[place] != "0" else "1"
        changed = signature[:place] + digit + signature[place + 1 :]
        assert (await open_link(http, link.having(signature=changed))).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_link_is_for_reading(link: Link, http: httpx.AsyncClient, method: str) -> None:
    assert (await open_link(http, f"{link.path}?{link.query}", method)).status_code == 405
    assert (await open_link(http, f"{link.path}?{link.query}")).content == SONG


async def test_no_other_secret_signs_links(link: Link, http: httpx.AsyncClient) -> None:
    expires = {"expires": link.parameters["expires"], "name": link.parameters["name"]}
    for secret in ("", SECRET + " ", SECRET.upper(), link.parameters["signature"]):
        signature = UrlSigner(secret)._signature("GET", link.path, *expires.values())
        assert (await open_link(http, link.having(signature=signature))).status_code == 403
    signature = UrlSigner(SECRET)._signature("GET", link.path, *expires.values())
    assert (await open_link(http, link.having(signature=signature))).content == SONG
