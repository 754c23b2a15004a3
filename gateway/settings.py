"""The only reader of the environment: a frozen Settings that lists every problem at once."""

import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

SECRET_MIN_CHARACTERS = 32
ENGINE_MODEL_OF_THE_GUIDE = "ace-step-1.5"
"""What ACESTEP_CONFIG_PATH holds, as in the guide of the model's own server."""
WAVESPEED = "https://api.wavespeed.ai"
RUNWARE = "https://api.runware.ai/v1"
DEFAULT_CATALOG = Path(__file__).resolve().parent.parent / "deploy" / "catalog.toml"


class SettingsError(Exception):
    """The environment cannot be used; the message lists each problem on its own line."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decided. Secrets are excluded from `repr`."""

    home: Path
    """State folder: embedded database, generated secret, first keys, audio."""
    database_url: str | None
    """None: the embedded Postgres of `home`."""
    bind_host: str
    bind_port: int
    public_url: str | None
    """Origin put in front of signed URLs; None: the origin that the request came to."""
    storage_url: str
    catalog: Path
    secret_key: str
    """Pepper of API keys and key of URL signatures; at least 32 characters."""
    metrics_token: str | None
    engine_device: str
    engine_models: tuple[tuple[str, str], ...]
    """Public model ids, each with the folder or hub repository of its weights."""
    engine_planner: str | None
    """Folder or hub repository of the language model that plans songs; None: nothing can be planned."""
    allow_private_hosts: bool
    """For development: URLs of clients may reach loopback and private networks."""
    wavespeed_api_key: str | None
    """None: no route to WaveSpeed."""
    wavespeed_base_url: str
    runware_api_key: str | None
    """None: no route to Runware."""
    runware_base_url: str
    provider_webhooks: bool
    """Ask providers to tell us when a task has ended; needs a public URL."""
    provider_concurrency: int
    """Tasks under way at one provider, for each worker process."""
    stripe_secret_key: str | None
    """None: no payments, everything else works."""
    stripe_webhook_secret: str | None
    """None: nothing is believed that is posted to /webhooks/stripe; payments are asked for instead."""
    stripe_base_url: str | None
    """None: Stripe itself."""

    def __repr__(self) -> str:
        return f"Settings(home={self.home!s}, bind={self.bind_host}:{self.bind_port})"

    @property
    def base_url(self) -> str:
        """Origin for people on this machine."""
        host = "127.0.0.1" if self.bind_host in {"0.0.0.0", "::"} else self.bind_host  # noqa: S104
        return f"http://[{host}]:{self.bind_port}" if ":" in host else f"http://{host}:{self.bind_port}"


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read `ANTIPHON_*`; raises SettingsError naming every variable that cannot be used."""
    problems: list[str] = []
    home = Path(environ.get("ANTIPHON_HOME") or ".antiphon").absolute()
    host, port = _bind(environ.get("ANTIPHON_BIND") or "127.0.0.1:8000", problems)
    settings = Settings(
        home=home,
        database_url=_database_url(environ.get("ANTIPHON_DATABASE_URL") or None, problems),
        bind_host=host,
        bind_port=port,
        public_url=_origin(
            "ANTIPHON_PUBLIC_URL",
            environ.get("ANTIPHON_PUBLIC_URL") or None,
            "https://music.example",
            problems,
        ),
        storage_url=_storage_url(environ.get("ANTIPHON_STORAGE_URL") or (home / "audio").as_uri(), problems),
        catalog=_catalog(environ.get("ANTIPHON_CATALOG"), problems),
        secret_key=_secret_key(environ.get("ANTIPHON_SECRET_KEY") or None, home, problems),
        metrics_token=environ.get("ANTIPHON_METRICS_TOKEN") or None,
        engine_device=environ.get("ANTIPHON_ENGINE_DEVICE") or environ.get("ACESTEP_DEVICE") or "auto",
        engine_models=_engine_models(environ, problems),
        engine_planner=environ.get("ANTIPHON_ENGINE_PLANNER") or environ.get("ACESTEP_LM_MODEL_PATH") or None,
        allow_private_hosts=_switch(
            "ANTIPHON_ALLOW_PRIVATE_HOSTS", environ.get("ANTIPHON_ALLOW_PRIVATE_HOSTS"), problems
        ),
        **_providers(environ, problems),
        stripe_secret_key=_stripe_secret_key(environ, problems),
        stripe_webhook_secret=_stripe_webhook_secret(environ, problems),
        stripe_base_url=_origin(
            "ANTIPHON_STRIPE_BASE_URL",
            environ.get("ANTIPHON_STRIPE_BASE_URL") or None,
            "http://127.0.0.1:12111",
            problems,
        ),
    )
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _providers(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    """What reaches the remote providers."""
    name, concurrency = "ANTIPHON_PROVIDER_CONCURRENCY", environ.get("ANTIPHON_PROVIDER_CONCURRENCY") or "100"
    if re.fullmatch(r"[1-9][0-9]{0,4}", concurrency) is None:
        problems.append(f"{name}={concurrency!r}: write a number from 1 to 99999")
        concurrency = "100"
    webhooks = _switch("ANTIPHON_PROVIDER_WEBHOOKS", environ.get("ANTIPHON_PROVIDER_WEBHOOKS"), problems)
    if webhooks and not environ.get("ANTIPHON_PUBLIC_URL"):
        problems.append(
            "ANTIPHON_PROVIDER_WEBHOOKS: providers reach us by ANTIPHON_PUBLIC_URL, which is not set"
        )
    wavespeed_url = environ.get("ANTIPHON_WAVESPEED_BASE_URL") or WAVESPEED
    runware_url = environ.get("ANTIPHON_RUNWARE_BASE_URL") or RUNWARE
    return {
        "wavespeed_api_key": environ.get("ANTIPHON_WAVESPEED_API_KEY") or None,
        "wavespeed_base_url": _base_url("ANTIPHON_WAVESPEED_BASE_URL", wavespeed_url, WAVESPEED, problems),
        "runware_api_key": environ.get("ANTIPHON_RUNWARE_API_KEY") or None,
        "runware_base_url": _base_url("ANTIPHON_RUNWARE_BASE_URL", runware_url, RUNWARE, problems),
        "provider_webhooks": webhooks,
        "provider_concurrency": int(concurrency),
    }


def _base_url(name: str, value: str, example: str, problems: list[str]) -> str:
    """With a path, unlike an origin: a provider may stand behind a prefix."""
    value = value.rstrip("/")
    parts = _split(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        problems.append(f"{name}={value!r}: write a URL, for example {example}")
    return value


def _bind(value: str, problems: list[str]) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+)):(\d{1,5})", value)
    if match is None or int(match[3]) > 65535:
        problems.append(f"ANTIPHON_BIND={value!r}: write host:port, for example 127.0.0.1:8000")
        return "127.0.0.1", 8000
    host = match[1] or match[2]
    if match[1]:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            problems.append(f"ANTIPHON_BIND={value!r}: {host!r} is not an IPv6 address")
    return host, int(match[3])


def _database_url(value: str | None, problems: list[str]) -> str | None:
    if value is not None and _split(value).scheme not in {"postgres", "postgresql"}:
        problems.append("ANTIPHON_DATABASE_URL: write postgresql://user:password@host:port/database")
    return value


def _origin(name: str, value: str | None, example: str, problems: list[str]) -> str | None:
    if value is None:
        return None
    parts = _split(value)
    is_origin = parts.path in {"", "/"} and not parts.query and not parts.fragment
    if parts.scheme not in {"http", "https"} or not parts.netloc or not is_origin:
        problems.append(f"{name}={value!r}: write an origin, for example {example}")
    return value.rstrip("/")


def _engine_models(environ: Mapping[str, str], problems: list[str]) -> tuple[tuple[str, str], ...]:
    """`name=folder-or-repository,...`; the guide's ACESTEP_CONFIG_PATH is a source alone."""
    value = environ.get("ANTIPHON_ENGINE_MODELS") or ""
    if not value and (alias := environ.get("ACESTEP_CONFIG_PATH")):
        return ((ENGINE_MODEL_OF_THE_GUIDE, alias),)
    models: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in value.split(","))):
        name, equals, source = (part.strip() for part in entry.partition("="))
        if not (name and equals and source):
            problems.append(f"ANTIPHON_ENGINE_MODELS: {entry!r}: write name=folder-or-repository,...")
        elif name in models:
            problems.append(f"ANTIPHON_ENGINE_MODELS: {name!r} stands there twice")
        else:
            models[name] = source
    return tuple(models.items())


def _switch(name: str, given: str | None, problems: list[str]) -> bool:
    value = (given or "0").lower()
    if value not in {"0", "1", "true", "false"}:
        problems.append(f"{name}={value!r}: write 1 or 0")
    return value in {"1", "true"}


def _stripe_secret_key(environ: Mapping[str, str], problems: list[str]) -> str | None:
    value = environ.get("ANTIPHON_STRIPE_SECRET_KEY") or None
    if value is not None and re.fullmatch(r"(sk|rk)_[A-Za-z0-9_]+", value) is None:
        problems.append("ANTIPHON_STRIPE_SECRET_KEY: write a secret or restricted key: sk_... or rk_...")
    return value


def _stripe_webhook_secret(environ: Mapping[str, str], problems: list[str]) -> str | None:
    value = environ.get("ANTIPHON_STRIPE_WEBHOOK_SECRET") or None
    if value is not None and re.fullmatch(r"whsec_[A-Za-z0-9_+/=-]+", value) is None:
        problems.append("ANTIPHON_STRIPE_WEBHOOK_SECRET: write the signing secret of the endpoint: whsec_...")
    if value is not None and not environ.get("ANTIPHON_STRIPE_SECRET_KEY"):
        problems.append("ANTIPHON_STRIPE_WEBHOOK_SECRET: of no use without ANTIPHON_STRIPE_SECRET_KEY")
    return value


def _storage_url(value: str, problems: list[str]) -> str:
    parts = _split(value)
    is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
    if not is_folder and not (parts.scheme == "s3" and parts.netloc):
        problems.append(f"ANTIPHON_STORAGE_URL={value!r}: write file:///folder or s3://bucket/prefix")
    return value


def _split(url: str) -> SplitResult:
    """Its parts; none of them if it cannot be read at all."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _catalog(value: str | None, problems: list[str]) -> Path:
    path = Path(value).absolute() if value else DEFAULT_CATALOG
    if not path.is_file():
        problems.append(f"ANTIPHON_CATALOG={value!r}: there is no such file")
    return path


def _secret_key(value: str | None, home: Path, problems: list[str]) -> str:
    """The operator's secret, else the one in the home, made on the first run.

    Created with O_EXCL semantics so that processes starting together agree on one.
    """
    if value is not None:
        if len(value) < SECRET_MIN_CHARACTERS:
            problems.append(f"ANTIPHON_SECRET_KEY: at least {SECRET_MIN_CHARACTERS} characters")
        return value
    path = home / "secret_key"
    try:
        make_home(home)
        if not path.exists():
            fresh = path.with_suffix(f".{secrets.token_hex(8)}")
            fresh.touch(mode=0o600)
            with fresh.open("w") as file:
                file.write(secrets.token_urlsafe(48))
                file.flush()
                os.fsync(file.fileno())  # lost in a power cut, every key and link would be void
            try:
                path.hardlink_to(fresh)
            except FileExistsError:
                pass  # another process was first; its secret counts
            finally:
                fresh.unlink()
        kept = path.read_text().strip()
    except OSError as error:
        problems.append(f"ANTIPHON_HOME={home!s}: cannot keep the secret there ({error.strerror})")
        return ""
    if len(kept) < SECRET_MIN_CHARACTERS:
        problems.append(f"{path} holds no secret: restore it, or remove it and every key becomes void")
    return kept


def make_home(home: Path) -> None:
    """Make the state folder, if it is missing, for nobody else's eyes.

    Started by root, Postgres runs as another user, who must be able to pass (not to list) the folder.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
