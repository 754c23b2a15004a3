"""The body of a generation or a quote, checked for whoever sent it: its model, its files, its words."""

import msgspec

from gateway.catalog import SANDBOX, Model
from gateway.dialects.native.body import GenerationBody
from gateway.dialects.native.guarding import GatewayRequest
from gateway.dialects.native.validation import Checked, check_body, check_metadata
from gateway.dialects.native.validation_audio import Context
from gateway.generation import AudioInput
from gateway.outbound import PORTS
from gateway.routing import Routes


class Asked(msgspec.Struct, frozen=True):
    """A model, and a request that it can serve."""

    model: Model
    checked: Checked


def usable_models(request: GatewayRequest, routes: Routes) -> tuple[Model, ...]:
    """Those that the key may use and that would serve it; the sandbox last."""
    principal = request.auth
    found = [
        model
        for model in request.desk.catalog.models.values()
        if (principal.models is None or model.id in principal.models)
        and (principal.test or routes.can_serve(model))
    ]
    return tuple(sorted(found, key=lambda model: model.id == SANDBOX))


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
