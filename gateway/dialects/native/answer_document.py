"""What OpenAPI says about the objects in our answers: which fields are always there, and what is in them."""

from typing import Any, Final

import msgspec
from litestar._openapi.schema_generation import SchemaCreator
from litestar.openapi.spec import OpenAPIType, Reference, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

import billing
from engine import Task
from gateway.audio import CONTENT_TYPES, AudioFormat
from gateway.auth.principal import Scope
from gateway.dialects.native.documents import LINE, MONTH
from gateway.dialects.native.file_documents import FILE_FACTS
from gateway.dialects.native.payment_facts import PAYMENT_FACTS
from gateway.dialects.native.webhook_facts import WEBHOOK_FACTS
from gateway.errors import raised_errors
from gateway.generation import MAX_SEED
from gateway.jobs.job import JobErrorCode
from gateway.jobs.usage import UsageGroup
from gateway.routing import BACKENDS

Facts = dict[str, Any]

_ID: Final[Facts] = {"pattern": "^[0-9a-f]{32}$"}
_USD: Final[Facts] = {"pattern": r"^-?[0-9]+\.[0-9]{9}$"}
_MOMENT: Final[Facts] = {"format": "date-time"}
_SECONDS: Final[Facts] = {"minimum": 0}
_COUNT: Final[Facts] = {"minimum": 0}
_LINE_ID: Final[Facts] = {"pattern": LINE}
_MONTH: Final[Facts] = {"pattern": MONTH}
_MONTH_SUMS: Final[dict[str, Facts]] = {
    "month": _MONTH,
    "opening_usd": _USD,
    "added_usd": _USD,
    "charged_usd": _USD,
    "removed_usd": _USD,
    "closing_usd": _USD,
}
_STATUSES: Final = ["queued", "processing", "completed", "failed"]


def _only(value: str) -> Facts:
    return {"const": value}


FACTS: Final[dict[str, dict[str, Facts]]] = {
    **PAYMENT_FACTS,
    **FILE_FACTS,
    **WEBHOOK_FACTS,
    "JobView": {
        "job_id": _ID,
        "id": _ID,
        "object": _only("job"),
        "task": {"enum": list(Task)},
        "status": {"enum": _STATUSES},
        "progress": {"minimum": 0, "maximum": 1},
        "queue_position": _COUNT,
        "eta_seconds": _SECONDS,
        "created_at": _MOMENT,
        "completed_at": _MOMENT,
        "expires_at": _MOMENT,
        "cancel_requested_at": _MOMENT,
        "poll_url": {"pattern": "^/v1/jobs/[0-9a-f]{32}$"},
    },
    "ResultView": {
        "created": _SECONDS,
        "data": {"min_items": 1},
        "deterministic": {"one_of": None, "enum": [True, False, "best_effort"]},
    },
    "TrackView": {
        "content_type": {"enum": list(dict.fromkeys(CONTENT_TYPES.values()))},
        "format": {"enum": list(AudioFormat)},
        "duration_seconds": _SECONDS,
        "sample_rate": {"minimum": 1},
        "channels": {"enum": [1, 2]},
        "seed": {"minimum": 0, "maximum": MAX_SEED},
        "sha256": {"pattern": "^[0-9a-f]{64}$"},
        "url": {"format": "uri"},
        "b64_json": {"content_encoding": "base64"},
    },
    "UsageView": {"billable_units": _SECONDS, "billing_unit": _only("second")},
    "CostView": {"usd": _USD, "usd_per_second": _USD, "billed_seconds": _SECONDS, "held_usd": _USD},
    "JobErrorView": {
        "code": {"enum": list(JobErrorCode)},
        "type": _only("api_error"),
        "charged": {"const": False},
    },
    "AttemptView": {
        "n": {"minimum": 1},
        "state": {"enum": ["intent", "sent", "accepted", "ambiguous", "done", "failed"]},
        "started_at": _MOMENT,
        "finished_at": _MOMENT,
    },
    "EventView": {
        "event": {"enum": ["progress", "completed", "failed"]},
        "data": {"content_media_type": "application/json"},
    },
    "JobList": {"object": _only("list"), "next_cursor": _ID},
    "BalanceView": {
        "object": _only("balance"),
        "balance_usd": _USD,
        "held_usd": _USD,
        "available_usd": _USD,
        "owed_usd": _USD,
        "level": {"enum": list(billing.LEVELS)},
        "low_usd": _USD,
        "critical_usd": _USD,
    },
    "GrantView": {
        "kind": {"enum": list(billing.GRANT_KINDS)},
        "remaining_usd": _USD,
        "expires_at": _MOMENT,
    },
    "AccountUsage": {"object": _only("account_usage"), "next_cursor": _ID},
    "UsageEventView": {
        "object": _only("usage_event"),
        "id": _ID,
        "job_id": _ID,
        "created_at": _MOMENT,
        "completed_at": _MOMENT,
        "status": {"enum": ["completed", "failed"]},
        "source": _only("api"),
        "billable_units": _SECONDS,
        "billing_unit": _only("second"),
        "cost_usd": _USD,
    },
    "UsageReport": {
        "object": _only("list"),
        "start": _MOMENT,
        "end": _MOMENT,
        "group_by": {"items": Schema(type=OpenAPIType.STRING, enum=list(UsageGroup))},
    },
    "UsageRowView": {
        "start": _MOMENT,
        "project_id": _ID,
        "key_id": _ID,
        "jobs": {"minimum": 1},
        "billed_seconds": _SECONDS,
        "cost_usd": _USD,
    },
    "UsageTotals": {"jobs": _COUNT, "billed_seconds": _SECONDS, "cost_usd": _USD},
    "EntryList": {"object": _only("list"), "next_cursor": _LINE_ID},
    "EntryView": {
        "id": _LINE_ID,
        "created_at": _MOMENT,
        "kind": {"enum": list(billing.ENTRY_KINDS)},
        "amount_usd": _USD,
        "balance_after_usd": _USD,
        "job_id": _ID,
    },
    "MonthList": {"object": _only("list"), "next_cursor": _MONTH},
    "MonthView": _MONTH_SUMS,
    "StatementView": {
        "object": _only("statement"),
        "organization_id": _ID,
        "start": _MOMENT,
        "end": _MOMENT,
        "total_usd": {"pattern": r"^[0-9]+\.[0-9]{2}$"},
        "url": {"format": "uri"},
        **_MONTH_SUMS,
    },
    "StatementLine": {
        "created_at": _MOMENT,
        "kind": {"enum": list(billing.ENTRY_KINDS)},
        "entries": {"minimum": 1},
        "amount_usd": _USD,
    },
    "ModelLine": {"jobs": {"minimum": 1}, "billed_seconds": _SECONDS, "cost_usd": _USD},
    "KeyView": {
        "object": _only("key"),
        "id": _ID,
        "organization_id": _ID,
        "project_id": _ID,
        "scopes": {"items": Schema(type=OpenAPIType.STRING, enum=list(Scope))},
        "requests_per_minute": _COUNT,
        "max_open_jobs": _COUNT,
    },
    "ModelList": {"object": _only("list")},
    "ModelView": {"object": _only("model")},
    "RouteView": {
        "backend": {"enum": list(BACKENDS)},
        "state": {"enum": ["ready", "loading", "failed", "absent", "open", "half_open", "no_credit"]},
        "latency_seconds": _SECONDS,
        "longest_seconds": _SECONDS,
    },
    "Parameter": {
        "type": {"enum": ["string", "number", "integer", "boolean", "array"]},
        "tasks": {"items": Schema(type=OpenAPIType.STRING, enum=list(Task))},
    },
    "Pricing": {
        "usd_per_second": _USD,
        "list_usd_per_second": _USD,
        "discount_percent": {"pattern": r"^[0-9]{1,3}(\.[0-9]{1,4})?$"},
        "was_usd_per_second": _USD,
        "price_version": _ID,
        "changes_at": _MOMENT,
        "next_usd_per_second": _USD,
        "billing_unit": _only("second"),
    },
    "QuoteView": {
        "object": _only("quote"),
        "task": {"enum": list(Task)},
        "max_cost_usd": _USD,
        "usd_per_second": _USD,
        "list_usd_per_second": _USD,
        "billable_seconds": _SECONDS,
        "outputs": {"minimum": 1},
        "price_version": _ID,
        "expires_at": _MOMENT,
        "available_usd": _USD,
    },
    "ErrorBody": {
        "type": {"enum": sorted({kind.type for kind in raised_errors()})},
        "code": {"enum": list(dict.fromkeys(kind.code for kind in raised_errors()))},
        "charged": {"const": False},
        "required_usd": _USD,
        "available_usd": _USD,
        "owed_usd": _USD,
        "max_cost_usd": _USD,
        "price_version": _ID,
    },
}


class AnswerSchemas(OpenAPISchemaPlugin):
    """Completes the schemas of what we answer, which Litestar derives from their types alone."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Objects of answers: those that clients send forbid unknown fields."""
        return (
            not field_definition.is_union
            and field_definition.is_subclass_of(msgspec.Struct)
            and not field_definition.annotation.__struct_config__.forbid_unknown_fields
        )

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """The derived schema, and what only we know."""
        schema = derived_schema(self, field_definition, schema_creator)
        facts = FACTS.get(field_definition.annotation.__name__, {})
        schema.properties = {
            name: described(found, facts.get(name, {})) for name, found in (schema.properties or {}).items()
        }
        schema.required = _always_there(field_definition.annotation)
        return schema


def derived_schema(
    plugin: OpenAPISchemaPlugin, field_definition: FieldDefinition, schema_creator: SchemaCreator
) -> Schema:
    """What Litestar makes of the type by itself."""
    others = (other for other in schema_creator.plugins if not isinstance(other, type(plugin)))
    derive = next(other for other in others if schema_creator.plugin_supports_field(other, field_definition))
    schema: Schema = derive.to_openapi_schema(field_definition, schema_creator)
    return schema


def described(found: Schema | Reference, facts: Facts) -> Schema | Reference:
    """With these keywords; `X or null` as one schema of two types: shorter, and limits stand in one place."""
    if isinstance(found, Reference):
        return found
    choices = found.one_of or []
    plain = [part for part in choices if isinstance(part, Schema) and part.type != OpenAPIType.NULL]
    if len(plain) == 1 and len(choices) <= 2 and isinstance(plain[0].type, OpenAPIType):
        default, found = found.default, plain[0]
        found.default = default
        if len(choices) == 2:
            found.type = [plain[0].type, OpenAPIType.NULL]
            facts = facts | ({"enum": [*facts["enum"], None]} if "enum" in facts else {})
    for name, value in facts.items():
        setattr(found, name, value)
    return found


def _always_there(struct: type[msgspec.Struct]) -> list[str]:
    """Fields that have a value whatever happens: not those that are left out while they say nothing."""
    leaves_out = struct.__struct_config__.omit_defaults
    return [
        field.encode_name
        for field in msgspec.structs.fields(struct)
        if field.default is not msgspec.UNSET and (field.required or not leaves_out)
    ]
