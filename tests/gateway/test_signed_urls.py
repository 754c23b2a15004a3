from datetime import UTC, datetime, timedelta
from email.message import Message
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.signed_urls import (
    SignatureExpired,
    SignatureInvalid,
    UrlSigner,
    content_disposition,
    derive_key,
)

SECRET = "a secret of at least thirty-two characters"
SIGNER = UrlSigner(SECRET)
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
PATH = "/audio/0a1b/2c3d/0.flac"

paths = st.text(max_size=40).map(lambda text: f"/{text}")
printable = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=40
)
names = st.none() | printable


def refused(query: str, *, method: str = "GET", path: str = PATH, signer: UrlSigner = SIGNER) -> None:
    with pytest.raises(SignatureInvalid):
        signer.verify(method, path, query, now=NOW)


@settings(deadline=None)
@given(path=paths, filename=names)
def test_what_was_signed_is_verified(path: str, filename: str | None) -> None:
    grant = SIGNER.verify("GET", path, SIGNER.sign(path, expires_at=LATER, filename=filename), now=NOW)
    assert (grant.filename, grant.expires_at) == (filename, LATER)


@settings(deadline=None)
@given(path=paths, other=paths, filename=names)
def test_another_path_is_refused(path: str, other: str, filename: str | None) -> None:
    assume(path != other)
    refused(SIGNER.sign(path, expires_at=LATER, filename=filename), path=other)


@settings(deadline=None)
@given(seconds=st.integers(-(10**6), 10**9).filter(bool), filename=names)
def test_another_expiry_is_refused(seconds: int, filename: str | None) -> None:
    query = SIGNER.sign(PATH, expires_at=LATER, filename=filename)
    stamp = int(LATER.timestamp())
    refused(query.replace(f"expires={stamp}", f"expires={stamp + seconds}"))


@settings(deadline=None)
@given(filename=names, other=names)
def test_another_file_name_or_none_is_refused(filename: str | None, other: str | None) -> None:
    assume(filename != other)
    parameters = dict(parse_qsl(SIGNER.sign(PATH, expires_at=LATER, filename=filename)))
    parameters.pop("name", None)
    refused(urlencode(parameters | ({} if other is None else {"name": other})))


@settings(deadline=None)
@given(place=st.integers(0, 63), char=st.characters())
def test_another_signature_is_refused(place: int, char: str) -> None:
    parameters = dict(parse_qsl(SIGNER.sign(PATH, expires_at=LATER)))
    signature = parameters["signature"]
    assume(signature[place] != char)
    changed = signature[:place] + char + signature[place + 1 :]
    refused(urlencode(parameters | {"signature": changed}, errors="replace"))


@settings(deadline=None)
@given(query=st.text(max_size=200))
def test_no_query_at_all_crashes_the_verifier(query: str) -> None:
    refused(query)


@settings(deadline=None)
@given(first=names, second=names, path=paths, other=paths)
def test_no_two_urls_share_a_signature(first: str | None, second: str | None, path: str, other: str) -> None:
    assume((first, path) != (second, other))
    one = SIGNER.sign(path, expires_at=LATER, filename=first)
    two = SIGNER.sign(other, expires_at=LATER, filename=second)
    assert one.rpartition("=")[2] != two.rpartition("=")[2]


@pytest.mark.parametrize(
    "change",
    [
        lambda query: query + "&x=1",
        lambda query: query + "&" + query,
        lambda query: query + "&name=",
        lambda query: query.replace("expires=", "expires=%30"),
        lambda query: query.replace("expires=", "expires=+"),
        lambda query: query.replace("signature", "Signature"),
        lambda query: query.upper(),
        lambda query: query + "%ff",
        lambda query: query.partition("&")[0],
        lambda _: "",
    ],
)
def test_a_query_that_is_not_exactly_ours_is_refused(change: object) -> None:
    assert callable(change)
    refused(change(SIGNER.sign(PATH, expires_at=LATER)))


def test_a_url_for_get_serves_head_and_nothing_else() -> None:
    query = SIGNER.sign(PATH, expires_at=LATER)
    SIGNER.verify("HEAD", PATH, query, now=NOW)
    for method in ("PUT", "POST", "DELETE", "get", ""):
        refused(query, method=method)


def test_a_url_for_put_serves_put_alone() -> None:
    query = SIGNER.sign(PATH, expires_at=LATER, method="PUT")
    SIGNER.verify("PUT", PATH, query, now=NOW)
    refused(query)


def test_a_url_ends_at_its_second() -> None:
    query = SIGNER.sign(PATH, expires_at=LATER)
    SIGNER.verify("GET", PATH, query, now=LATER - timedelta(microseconds=1))
    with pytest.raises(SignatureExpired):
        SIGNER.verify("GET", PATH, query, now=LATER)


def test_a_forged_url_is_invalid_even_when_expired() -> None:
    query = SIGNER.sign(PATH, expires_at=LATER)
    with pytest.raises(SignatureInvalid):
        SIGNER.verify("GET", PATH + "x", query, now=LATER)


def test_another_secret_signs_otherwise() -> None:
    refused(UrlSigner(SECRET + "!").sign(PATH, expires_at=LATER))


def test_a_key_serves_one_purpose() -> None:
    assert derive_key(SECRET, b"one") != derive_key(SECRET, b"two")


def test_the_key_is_hkdf_sha256() -> None:
    # RFC 5869, test case 3: no salt, no info, 22 bytes of 0x0b; its first 32 bytes of output.
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert derive_key("\x0b" * 22, b"").hex() == okm


@pytest.mark.parametrize(
    "filename", ["", "a/b", "a\nb", "a\r\nSet-Cookie: x", "\ud800", "a\u202eb", "a" * 201]
)
def test_a_file_name_that_no_header_may_carry_is_not_signed(filename: str) -> None:
    with pytest.raises(ValueError, match="no file name"):
        SIGNER.sign(PATH, expires_at=LATER, filename=filename)


def test_a_naive_time_is_not_signed() -> None:
    with pytest.raises(ValueError, match="no expiry"):
        SIGNER.sign(PATH, expires_at=LATER.replace(tzinfo=None))


def test_no_file_name_means_inline() -> None:
    assert content_disposition(None) == "inline"


@settings(deadline=None)
@given(filename=printable)
def test_a_file_name_survives_its_header(filename: str) -> None:
    header = content_disposition(filename)
    assert header.isascii()
    assert header.isprintable()
    message = Message()
    message["content-disposition"] = header
    assert message.get_content_disposition() == "attachment"
    assert header.endswith(f"filename*=UTF-8''{header.rpartition(chr(39))[2]}")
    assert dict(parse_qsl("x=" + header.rpartition(chr(39))[2].replace("+", "%2B").replace("&", "%26"))) == {
        "x": filename
    }


@pytest.mark.parametrize(
    ("filename", "plain"),
    [
        ("My song.flac", "My song.flac"),
        ('a"b;c.mp3', "a_b_c.mp3"),
        ("Lied für Élise.ogg", "Lied f_r _lise.ogg"),
    ],
)
def test_old_clients_get_an_ascii_name(filename: str, plain: str) -> None:
    assert f'filename="{plain}"' in content_disposition(filename)
