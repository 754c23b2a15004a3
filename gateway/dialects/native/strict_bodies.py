"""What OpenAPI says about bodies of a few fields, beyond what their types say."""

from collections.abc import Mapping
from typing import Any

from litestar._openapi.schema_generation import SchemaCreator
from litestar.openapi.spec import Reference, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition

from gateway.dialects.native.answer_document import Facts, derived_schema, described

KnownBodies = Mapping[Any, tuple[Mapping[str, tuple[str, Facts]], Mapping[str, Any]]]
"""By their types: what each field means, with keywords of its schema; and an example of the body."""


class StrictBodies(OpenAPISchemaPlugin):
    """Completes the schemas of request bodies, which Litestar derives from their types alone."""

    def __init__(self, bodies: KnownBodies) -> None:
        self._bodies = bodies

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """One of the bodies."""
        return field_definition.annotation in self._bodies

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """The derived schema, and what only we know."""
        schema = derived_schema(self, field_definition, schema_creator)
        known, example = self._bodies[field_definition.annotation]
        schema.additional_properties = False
        schema.examples = [example]
        schema.properties = {
            name: _complete(found, *known[name]) for name, found in (schema.properties or {}).items()
        }
        return schema


def _complete(found: Schema | Reference, description: str, facts: Facts) -> Schema | Reference:
    completed = described(found, facts)
    if isinstance(completed, Schema):
        completed.description = description
    return completed
