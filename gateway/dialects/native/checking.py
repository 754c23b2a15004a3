"""The body of a generation or a quote, checked for whoever sent it: its model, its files, its words."""

from collections.abc import Sequence

import msgspec

from gateway.catalog import SANDBOX, Model
from gateway.dialects.native.body import GenerationBody
from gateway.dialects.native.guarding import GatewayRequest
from gateway.dialects.native.validation import Checked, check_body, check_metadata
from gateway.dialects.native.validation_audio import Context, Usable
from gateway.generation import AudioInput
from gateway.outbound import PORTS
from gateway.routing import Route, Routes, offer


class Asked(msgspec.Struct, frozen=True):
    """A model, and a request that it can serve."""

    model: Model
    checked: Checked


def usable_models(request: GatewayRequest, routes: Routes) -> tuple[Usable, ...]:
    """Those that the key may use and that would serve it, with what they can do here; the sandbox last."""
    principal = request.auth
    found = [
        model
        for model in request.desk.catalog.models.values()
        if (principal.models is None or model.id in principal.models)
        and (principal.test or routes.can_serve(model))
    ]
    return tuple(
        _usable(model, () if principal.test else routes.of(model))
        for model in sorted(found, key=lambda model: model.id == SANDBOX)
    )


def _usable(model: Model, routes: Sequence[Route]) -> Usable:
    """Of test keys no routes are asked."""
    offered = offer(model, routes)
    takes_reference = model.engine is not None and "reference_audio" not in offered.unheard
    return Usable(model.id, offered.tasks, takes_reference)


async def check_asked(request: GatewayRequest, body: GenerationBody) -> Asked:
    """Raises ModelNotFound, InvalidRequest, UnsupportedParameter or FileGone, naming the field."""
    desk = request.desk
    model = desk.catalog.find(body.model)

    async def find_file(file_id: str) -> AudioInput | None:
        return await desk.files.find_input(request.auth, file_id)

    context = Context(
        planner=desk.jobs.routes.planner,
        ports=None if desk.settings.allow_private_hosts else PORTS,
        find_file=find_file,
        models=usable_models(request, desk.jobs.routes),
    )
    checked = await check_body(body, model, context)
    check_metadata(body.metadata)
    return Asked(model, checked)
