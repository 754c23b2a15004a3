"""What operators and their machines ask: alive? ready? how many? And the pages under /docs."""

import html
import importlib.util
import ipaddress
import secrets
from pathlib import Path
from typing import Any, Final

import asyncpg
from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.params import FromPath
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import CollectorRegistry

from gateway import schema
from gateway.catalog import SANDBOX
from gateway.database import DATABASE_ERRORS
from gateway.dialects.native.errors import AnyRequest
from gateway.errors import NotFound, raised_errors
from gateway.jobs.job import MEANINGS, JobErrorCode
from gateway.jobs.workforce import GONE_SECONDS, served_queues
from gateway.metrics import StoredMetrics, read_stored
from gateway.observability import Metrics
from gateway.settings import Settings
from gateway.storage import AudioStore, StoreError

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
"""Of the installed package; its other files are not ours to serve."""
_FORWARDED: Final = (
    "cf-connecting-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)


@get("/healthz", include_in_schema=False, media_type=MediaType.JSON)
async def healthz() -> dict[str, str]:
    """The process runs."""
    return {"status": "ok"}


@get("/readyz", include_in_schema=False, media_type=MediaType.JSON)
async def readyz(
    pool: NamedDependency[asyncpg.Pool], store: NamedDependency[AudioStore]
) -> Response[dict[str, Any]]:
    """Requests would be served: database and audio store answer, and somebody renders."""
    checks = {
        "database": await _check_database(pool),
        "storage": await _check_store(store),
        "engine": await _check_workers(pool),
    }
    ready = all(problem is None for problem in checks.values())
    results = {name: problem or "ok" for name, problem in checks.items()}
    body: dict[str, Any] = {"status": "ok" if ready else "unavailable", "checks": results}
    return Response(body, status_code=200 if ready else 503)


@get("/metrics", include_in_schema=False)
async def metrics(
    request: AnyRequest,
    pool: NamedDependency[asyncpg.Pool],
    process_metrics: NamedDependency[Metrics],
    settings: NamedDependency[Settings],
) -> Response[bytes]:
    """Prometheus' text format; with a token from anywhere, without one from this machine only."""
    if not may_read_metrics(request, settings.metrics_token):
        raise NotFound("there is nothing at this path")
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        stored = await read_stored(conn)
    registry = CollectorRegistry()
    registry.register(StoredMetrics(stored))
    body = generate_latest(registry) + generate_latest(process_metrics.registry)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


def may_read_metrics(request: AnyRequest, token: str | None) -> bool:
    """The bearer token if one is set, else a loopback caller that no proxy speaks for."""
    if token is not None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), token.encode())
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    return ipaddress.ip_address(request.client.host).is_loopback


@get("/docs/errors", include_in_schema=False, media_type=MediaType.HTML, sync_to_thread=False)
def errors_page() -> str:
    """Every error code, where `doc_url` points to; made from the error classes themselves."""
    refusals = "".join(_row(kind.code, str(kind.status), kind.__doc__ or "") for kind in raised_errors())
    endings = "".join(_row(code, "in jobs", MEANINGS[code]) for code in JobErrorCode)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Errors - Antiphon</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.4rem .8rem;text-align:left;border-bottom:1px solid #8884}"
        "tr:target{background:#ffd54a55}</style>"
        "<h1>Errors</h1><p>Every refusal is free: <code>charged</code> is always false. Retry only where "
        "<code>retryable</code> is true, after <code>Retry-After</code> seconds if the header is there.</p>"
        f"<table><tr><th>code</th><th>HTTP</th><th>meaning</th></tr>{refusals}{endings}</table></html>"
    )


def swagger_plugin() -> SwaggerRenderPlugin:
    """The API reference at /docs, from files of an installed package instead of a CDN."""
    return SwaggerRenderPlugin(
        js_url="/docs/assets/swagger-ui-bundle.js",
        css_url="/docs/assets/swagger-ui.css",
        standalone_preset_js_url="/docs/assets/swagger-ui-standalone-preset.js",
        favicon="",
        style="<style>body{margin:0}</style>",
        path="/",
    )


@get("/docs/assets/{name:str}", include_in_schema=False, sync_to_thread=True)
def docs_asset(name: FromPath[str]) -> Response[bytes]:
    """The reference's scripts and style sheet."""
    spec = importlib.util.find_spec("swagger_ui")
    if name not in _ASSETS or spec is None or spec.origin is None:
        raise NotFound("there is nothing at this path")
    content = (Path(spec.origin).parent / "static" / name).read_bytes()
    return Response(content, media_type=_ASSETS[name], headers={"cache-control": "max-age=3600"})


async def _check_database(pool: asyncpg.Pool) -> str | None:
    try:
        async with pool.acquire(timeout=2) as conn:
            await schema.check(conn)
    except (*DATABASE_ERRORS, TimeoutError):
        return "the database cannot be reached"
    except schema.SchemaError as error:
        return str(error)
    return None


async def _check_store(store: AudioStore) -> str | None:
    try:
        await store.probe()
    except StoreError:
        return "the audio store cannot be written"
    return None


async def _check_workers(pool: asyncpg.Pool) -> str | None:
    try:
        async with pool.acquire(timeout=2) as conn:
            served = await served_queues(conn)
    except (*DATABASE_ERRORS, TimeoutError):
        return "the database cannot be reached"
    return None if SANDBOX in served else f"no worker was seen for {GONE_SECONDS} s"


def _row(code: str, status: str, meaning: str) -> str:
    text = html.escape(" ".join(meaning.split()))
    return f'<tr id="{code}"><td><code>{code}</code></td><td>{status}</td><td>{text}</td></tr>'
