"""The models that are on offer: ranges, defaults, routes and first prices, from `deploy/catalog.toml`."""

import difflib
from pathlib import Path
from typing import Final

import msgspec

import billing
from engine import VARIANTS, Task, Variant
from gateway.errors import ModelNotFound

SANDBOX: Final = "sandbox"
"""The built-in composer; it also renders for every test key."""

IntRange = tuple[int, int, int]
FloatRange = tuple[float, float, float]
"""Lowest, highest, default; both ends count."""


class CatalogError(Exception):
    """The catalog file cannot be used."""


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One public model. Each of `engine`, `wavespeed`, `runware` is a route that may be configured."""

    id: str
    name: str
    tasks: tuple[Task, ...]
    duration_seconds: FloatRange
    usd_per_second: str
    description: str = ""
    aliases: tuple[str, ...] = ()
    was_usd_per_second: str | None = None
    steps: IntRange | None = None
    guidance_scale: FloatRange | None = None
    engine: str | None = None
    wavespeed: str | None = None
    wavespeed_usd_per_second: str | None = None
    runware: str | None = None
    runware_usd_per_second: str | None = None
    """What the providers charge us: their price cards, for the order of routes and where no cost is named."""
    routes: tuple[str, ...] = ()
    """Backends in the operator's order, before all others; empty: by price, health and latency."""

    @property
    def variant(self) -> Variant:
        """What the engine's table says of its weights; a model of others has no knob that we know of."""
        if self.engine is None:
            return Variant(name=self.id, tasks=frozenset(self.tasks), renders=False)
        return VARIANTS[self.engine]

    @property
    def backends(self) -> dict[str, str]:
        """What each backend that can have this model calls it."""
        names = {"engine": self.engine, "runware": self.runware, "wavespeed": self.wavespeed}
        return {backend: name for backend, name in names.items() if name is not None}

    def provider_price(self, backend: str) -> int | None:
        """What a remote backend charges us for a second, in nano-USD, as far as its card is known."""
        cards = {"runware": self.runware_usd_per_second, "wavespeed": self.wavespeed_usd_per_second}
        usd = cards.get(backend)
        return None if usd is None else billing.parse_usd(usd)


class _CatalogFile(msgspec.Struct, forbid_unknown_fields=True):
    model: list[Model]


class Catalog:
    """Models by id and alias."""

    def __init__(self, models: list[Model]) -> None:
        self.models: Final = {model.id: model for model in models}
        self._by_name: Final = dict(self.models)
        for model in models:
            self._by_name.update(dict.fromkeys(model.aliases, model))

    def find(self, name: str) -> Model:
        """The model of that id or alias; raises ModelNotFound with the nearest name."""
        model = self._by_name.get(name)
        if model is None:
            near = difflib.get_close_matches(name, self._by_name, n=1, cutoff=0.4)
            raise ModelNotFound(
                f"there is no model {name[:100]!r}; GET /v1/models lists them",
                param="model",
                suggestion=near[0] if near else SANDBOX,
            )
        return model

    def seed_prices(self) -> list[billing.SeedPrice]:
        """The list price that each model starts with."""
        return [
            billing.SeedPrice(
                model=model.id,
                nano_per_second=billing.parse_usd(model.usd_per_second),
                was_nano_per_second=billing.parse_usd(model.was_usd_per_second)
                if model.was_usd_per_second
                else None,
            )
            for model in self.models.values()
        ]


def read_catalog(path: Path) -> Catalog:
    """Read and check the file; raises CatalogError saying where it is wrong."""
    try:
        models = msgspec.toml.decode(path.read_bytes(), type=_CatalogFile).model
        names = [name for model in models for name in (model.id, *model.aliases)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise CatalogError(f"{path}: {min(twice)!r} names two models")
        for model in models:
            _check_ranges(path, model)
            _check_tasks(path, model)
            _check_routes(path, model)
        catalog = Catalog(models)
        for seed in catalog.seed_prices():
            _check_price(path, seed)
    except (msgspec.DecodeError, UnicodeDecodeError, billing.MoneyFormatError, OSError) as error:
        raise CatalogError(f"{path}: {error}") from error
    return catalog


def _check_ranges(path: Path, model: Model) -> None:
    for name in ("duration_seconds", "steps", "guidance_scale"):
        bounds = getattr(model, name)
        if bounds is not None and not 0 <= bounds[0] <= bounds[2] <= bounds[1]:
            raise CatalogError(f"{path}: {model.id}: {name} must be [lowest, highest, default], in order")
    if model.duration_seconds[0] <= 0:
        raise CatalogError(f"{path}: {model.id}: duration_seconds must be more than 0")


def _check_tasks(path: Path, model: Model) -> None:
    """What is on offer, the weights must be able to do."""
    if model.engine is not None and model.engine not in VARIANTS:
        near = difflib.get_close_matches(model.engine, VARIANTS, n=1, cutoff=0.0)
        raise CatalogError(f"{path}: {model.id}: there is no engine {model.engine!r}; {near[0]!r}?")
    able = model.variant.tasks
    if not model.tasks or (more := [task for task in model.tasks if task.value not in able]):
        told = f"the engine {model.engine!r} has no {more[0]}" if model.tasks else "say at least one"
        raise CatalogError(f"{path}: {model.id}: tasks: {told}")


def _check_routes(path: Path, model: Model) -> None:
    """The operator's order names backends that have the model, and price cards belong to some of them."""
    for backend in model.routes:
        if backend not in model.backends:
            near = difflib.get_close_matches(backend, model.backends, n=1, cutoff=0.0)
            known = f"; {near[0]!r}?" if near else ""
            raise CatalogError(f"{path}: {model.id}: routes: there is no route to it by {backend!r}{known}")
    if len(set(model.routes)) < len(model.routes):
        raise CatalogError(f"{path}: {model.id}: routes: a backend stands there twice")
    for backend in ("runware", "wavespeed"):
        nano = model.provider_price(backend)
        if nano is None:
            continue
        if backend not in model.backends:
            raise CatalogError(f"{path}: {model.id}: {backend}_usd_per_second: it has no route there")
        if nano < 0:
            raise CatalogError(f"{path}: {model.id}: {backend}_usd_per_second must not be negative")


def _check_price(path: Path, seed: billing.SeedPrice) -> None:
    if seed.nano_per_second < 0:
        raise CatalogError(f"{path}: {seed.model}: usd_per_second must not be negative")
    if seed.was_nano_per_second is not None and seed.was_nano_per_second <= seed.nano_per_second:
        raise CatalogError(f"{path}: {seed.model}: was_usd_per_second must be more than usd_per_second")
