"""URLs that carry their own permission: this path, until then, under this file name - and nothing else.

The MAC covers method, path, expiry and file name, each with its length in front, so no two different URLs
share a signed message. Paths name the organization, so its URLs never open another's file.
"""

import hashlib
import hmac
import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

_PURPOSE = b"antiphon signed urls v1"
_EXPIRY = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_FILE_NAME_CHARACTERS = 200
_PARAMETERS = ("expires", "name", "signature")


class SignatureInvalid(Exception):
    """Not a URL of ours, or no longer the URL that we signed."""


class SignatureExpired(Exception):
    """It was ours; its time is over."""


class SignedGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified URL allows; a file name makes it an attachment."""

    expires_at: datetime
    filename: str | None


class UrlSigner:
    def __init__(self, secret: str) -> None:
        """`secret` is the installation's; the key is derived from it and serves nothing else."""
        self._key = derive_key(secret, _PURPOSE)

    def sign(
        self, path: str, *, expires_at: datetime, filename: str | None = None, method: str = "GET"
    ) -> str:
        """The query string for `path` (decoded, absolute); the expiry is rounded down to whole seconds.

        ValueError: a naive or prehistoric time; a file name that is empty, too long or not printable.
        """
        if expires_at.tzinfo is None or (stamp := int(expires_at.timestamp())) <= 0:
            raise ValueError(f"no expiry: {expires_at!r}")
        if filename is not None and not _is_file_name(filename):
            raise ValueError(f"no file name: {filename!r}")
        parameters = {"expires": str(stamp)}
        if filename is not None:
            parameters["name"] = filename
        parameters["signature"] = self._signature(method, path, str(stamp), filename)
        return urlencode(parameters, quote_via=quote)

    def verify(self, method: str, path: str, query: str, *, now: datetime) -> SignedGrant:
        """What was signed for `path` and this raw query string; a URL signed for GET also serves HEAD.

        Raises:
            SignatureInvalid: anything at all differs, or a parameter is missing, repeated or unknown.
            SignatureExpired: valid, but `now` is at or past its expiry.
        """
        parameters = _parse(query)
        expires, filename = parameters.get("expires", ""), parameters.get("name")
        signed_method = "GET" if method == "HEAD" else method
        expected = self._signature(signed_method, path, expires, filename)
        # Compared as text: base64 or mixed-case hex could spell the same bytes in several ways.
        given = parameters.get("signature", "")
        if not hmac.compare_digest(given.encode(), expected.encode()) or not _EXPIRY.fullmatch(expires):
            raise SignatureInvalid
        grant = SignedGrant(expires_at=datetime.fromtimestamp(int(expires), tz=UTC), filename=filename)
        if now >= grant.expires_at:
            raise SignatureExpired
        return grant

    def _signature(self, method: str, path: str, expires: str, filename: str | None) -> str:
        name = [] if filename is None else [filename]
        message = b"".join(_with_length(part) for part in (method, path, expires, *name))
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def derive_key(secret: str, purpose: bytes) -> bytes:
    """32 bytes for one purpose only: HKDF-SHA256 (RFC 5869) without salt, one output block."""
    seed = hmac.new(bytes(32), secret.encode(), hashlib.sha256).digest()
    return hmac.new(seed, purpose + b"\x01", hashlib.sha256).digest()


def content_disposition(filename: str | None) -> str:
    """RFC 6266: `inline`, or `attachment` with an ASCII name for old clients and the true one by RFC 8187."""
    if filename is None:
        return "inline"
    plain = "".join(
        char if char.isascii() and char.isprintable() and char not in '"\\%/;' else "_" for char in filename
    )
    exact = quote(filename, safe="!#$&+-.^_`|~")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"


def _is_file_name(name: str) -> bool:
    # Printable leaves out control characters, line ends, lone surrogates and bidirectional overrides.
    return 0 < len(name) <= _FILE_NAME_CHARACTERS and name.isprintable() and "/" not in name


def _parse(query: str) -> dict[str, str]:
    """Each parameter once and none unknown; SignatureInvalid otherwise."""
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=len(_PARAMETERS),
            encoding="utf-8",
            errors="strict",
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise SignatureInvalid from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs) or not parameters.keys() <= set(_PARAMETERS):
        raise SignatureInvalid
    return parameters


def _with_length(part: str) -> bytes:
    # surrogatepass: a path with a lone surrogate must be refused, not crash.
    encoded = part.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "big") + encoded
