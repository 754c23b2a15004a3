"""create_app(): routes, dependencies, error handlers - the HTTP process put together."""

from typing import Any

from litestar.config.app import AppConfig
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from gateway import downloads, operations
from gateway.bootstrap import Live
from gateway.dialects import provider_webhooks, stripe_webhook
from gateway.dialects.native import (
    errors,
    files,
    payment_pages,
    payments,
    routes,
    statements,
    webhook_deliveries,
    webhooks,
)
from gateway.dialects.native.answer_document import AnswerSchemas
from gateway.dialects.native.body_document import BodySchemas
from gateway.dialects.native.description import DescribedConfig
from gateway.dialects.native.guarding import Desk, GatewayApp
from gateway.dialects.native.methods import AnswerOptions
from gateway.dialects.native.payment_documents import PAYMENT_BODIES
from gateway.dialects.native.strict_bodies import StrictBodies
from gateway.dialects.native.webhook_documents import WEBHOOK_BODIES
from gateway.errors import GatewayError
from gateway.observability import ObserveRequests

MAX_BODY_BYTES = 1_000_000


def create_app(live: Live) -> GatewayApp:
    """The application on objects that `bootstrap` has opened and will close."""
    dependencies: dict[str, Any] = {
        "pool": live.pool,
        "store": live.store,
        "signer": live.signer,
        "settings": live.settings,
        "process_metrics": live.metrics,
        "provider_hooks": live.provider_hooks,
    }
    app = GatewayApp(
        route_handlers=[
            routes.router,
            files.router,
            downloads.router,
            statements.pages,
            payments.router,
            payment_pages.pages,
            webhooks.router,
            webhook_deliveries.router,
            stripe_webhook.router,
            provider_webhooks.router,
            operations.healthz,
            operations.readyz,
            operations.metrics,
            operations.errors_page,
            operations.docs_asset,
        ],
        dependencies={name: _provide(value) for name, value in dependencies.items()},
        exception_handlers={
            GatewayError: errors.handle_gateway_error,
            HTTPException: errors.handle_http_exception,
            Exception: errors.handle_unexpected,
        },
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=_openapi(),
        plugins=[BodySchemas(), StrictBodies({**PAYMENT_BODIES, **WEBHOOK_BODIES}), AnswerSchemas()],
        on_app_init=[_quiet],
    )
    app.desk = Desk(
        keys=live.keys,
        jobs=live.jobs,
        reports=live.reports,
        catalog=live.catalog,
        renderer=live.renderer,
        job_watch=live.job_watch,
        files=live.files,
        signer=live.signer,
        webhooks=live.webhooks,
        settings=live.settings,
        payments=live.payments,
    )
    # Around the router, not inside it as middleware: what has no route is answered and counted too.
    app.asgi_handler = ObserveRequests(AnswerOptions(app.asgi_handler), metrics=live.metrics)
    return app


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False, use_cache=True)


def _openapi() -> OpenAPIConfig:
    return DescribedConfig(
        title="Antiphon",
        version="0.1.0",
        description="Music generation with exact per-second billing.",
        path="/docs",
        use_handler_docstrings=True,
        render_plugins=[operations.swagger_plugin()],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "x-api-key": SecurityScheme(type="apiKey", name="x-api-key", security_scheme_in="header"),
            }
        ),
    )


def _quiet(config: AppConfig) -> AppConfig:
    """Our own middleware logs requests; Litestar's would log their bodies."""
    config.logging_config = None
    return config
