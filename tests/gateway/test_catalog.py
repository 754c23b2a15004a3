"""The models on offer: the shipped file is the contract's table, a wrong file says where."""

from pathlib import Path

import pytest

import billing
from gateway.catalog import Catalog, CatalogError, read_catalog
from gateway.errors import ModelNotFound
from gateway.settings import DEFAULT_CATALOG

GOOD = """
[[model]]
id = "a"
aliases = ["b"]
name = "A"
tasks = ["text2music"]
duration_seconds = [5, 600, 30]
usd_per_second = "0.00025"
"""
# id: lowest, highest, default seconds; steps; guidance; price; former price; WaveSpeed, Runware
TABLE = {
    "sandbox": ((5, 600, 30), None, None, "0.00025", None, None, None),
    "ace-step-1.5-xl": ((10, 240, 30), (1, 20, 8), (0, 20, 1), "0.00025", "0.0003", None, "1.5-xl-turbo"),
    "ace-step-1.5-xl-base": ((10, 600, 60), (1, 300, 50), (0, 30, 7), "0.001", None, None, "1.5-xl-base"),
    "ace-step-1.5-xl-sft": ((10, 600, 60), (1, 300, 50), (0, 30, 7), "0.001", None, None, "1.5-xl-sft"),
    "ace-step-1.5": ((5, 600, 60), (1, 20, 8), None, "0.0003", None, "ace-step-1.5", "1.5-turbo"),
    "ace-step-1.5-base": ((10, 600, 60), (1, 300, 50), (0, 30, 7), "0.0006", None, None, "1.5-base"),
    "ace-step": ((5, 240, 60), None, None, "0.0002", None, "ace-step", None),
}


@pytest.fixture
def shipped() -> Catalog:
    return read_catalog(DEFAULT_CATALOG)


def test_the_shipped_file_is_the_table_of_the_contract(shipped: Catalog) -> None:
    found = {
        model.id: (
            model.duration_seconds,
            model.steps,
            model.guidance_scale,
            model.usd_per_second,
            model.was_usd_per_second,
            model.wavespeed,
            model.runware,
        )
        for model in shipped.models.values()
    }
    expected = {
        name: (
            *row[:5],
            f"wavespeed-ai/{row[5]}" if row[5] else None,
            f"runware:ace-step@v{row[6]}" if row[6] else None,
        )
        for name, row in TABLE.items()
    }
    assert found == expected


def test_a_model_offers_all_that_its_weights_can_do(shipped: Catalog) -> None:
    for model in shipped.models.values():
        assert {task.value for task in model.tasks} == {task.value for task in model.variant.tasks}
    tasks = {model.id: len(model.tasks) for model in shipped.models.values()}
    assert tasks == {
        "sandbox": 6,
        "ace-step-1.5-xl": 3,
        "ace-step-1.5-xl-base": 6,
        "ace-step-1.5-xl-sft": 3,
        "ace-step-1.5": 3,
        "ace-step-1.5-base": 6,
        "ace-step": 1,
    }


def test_ranges_are_those_of_the_weights_or_within_them(shipped: Catalog) -> None:
    for model in shipped.models.values():
        if model.engine is None or not model.variant.renders:
            continue
        for found, able in (
            (model.steps, model.variant.steps),
            (model.guidance_scale, model.variant.guidance_scale),
        ):
            if found is not None:
                assert able[0] <= found[0]
                assert found[1] <= able[1]
                assert found[2] == able[2]


def test_defaults_lie_within_their_ranges(shipped: Catalog) -> None:
    for model in shipped.models.values():
        for low, high, default in filter(None, (model.duration_seconds, model.steps, model.guidance_scale)):
            assert low <= default <= high


def test_models_are_found_by_id_and_alias(shipped: Catalog) -> None:
    assert shipped.find("ace-step-1-5-xl") is shipped.find("ace-step-1.5-xl")
    with pytest.raises(ModelNotFound) as caught:
        shipped.find("ace-step-1.5-sft")
    assert caught.value.suggestion in TABLE
    with pytest.raises(ModelNotFound) as caught:
        shipped.find("x" * 10_000)
    assert len(caught.value.message) < 200
    assert caught.value.suggestion == "sandbox"


def test_prices_are_exact(shipped: Catalog) -> None:
    prices = {seed.model: seed for seed in shipped.seed_prices()}
    assert prices["ace-step-1.5-xl"] == billing.SeedPrice(
        model="ace-step-1.5-xl", nano_per_second=250_000, was_nano_per_second=300_000
    )
    assert prices["sandbox"].was_nano_per_second is None


def test_a_price_card_that_is_not_known_is_no_price_of_nothing(shipped: Catalog) -> None:
    turbo = shipped.find("ace-step-1.5")
    assert (turbo.provider_price("runware"), turbo.provider_price("wavespeed")) == (100_000, 300_000)
    assert shipped.find("ace-step-1.5-xl").provider_price("runware") is None
    assert list(turbo.backends) == ["engine", "runware", "wavespeed"]
    assert shipped.find("ace-step").backends == {"wavespeed": "wavespeed-ai/ace-step"}


def test_an_operators_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(GOOD)
    assert read_catalog(path).find("b").id == "a"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("usd_per_second", "usd_per_secnd"), "usd_per_secnd"),
        (('"0.00025"', "0.00025"), "usd_per_second"),
        (('"0.00025"', '"a lot"'), "a lot"),
        (('"0.00025"', '"-1"'), "usd_per_second"),
        (('["b"]', '["a"]'), "'a' names two models"),
        (("[5, 600, 30]", "[5, 600]"), "duration_seconds"),
        (("[5, 600, 30]", "[600, 5, 30]"), "duration_seconds"),
        (("[5, 600, 30]", "[5, 600, 700]"), "duration_seconds"),
        (("[5, 600, 30]", "[0, 600, 30]"), "duration_seconds"),
        (("text2music", "text2video"), "tasks"),
        (('name = "A"', ""), "name"),
        (("[[model]]", "[[model"), "catalog.toml"),
        (('name = "A"', 'name = "A"\nwas_usd_per_second = "0.0001"'), "was_usd_per_second"),
        (('["text2music"]', "[]"), "tasks: say at least one"),
        (('name = "A"', 'name = "A"\nengine = "trubo"'), "there is no engine 'trubo'; 'turbo'?"),
        (
            ('tasks = ["text2music"]', 'tasks = ["cover", "lego"]\nengine = "xl-sft"'),
            "a: tasks: the engine 'xl-sft' has no lego",
        ),
        (
            ('name = "A"', 'name = "A"\nroutes = ["runware"]'),
            "a: routes: there is no route to it by 'runware'",
        ),
        (
            ('name = "A"', 'name = "A"\nrunware = "r:a@1"\nroutes = ["runwear"]'),
            "no route to it by 'runwear'; 'runware'?",
        ),
        (
            ('name = "A"', 'name = "A"\nrunware = "r:a@1"\nroutes = ["runware", "runware"]'),
            "a: routes: a backend stands there twice",
        ),
        (
            ('name = "A"', 'name = "A"\nwavespeed_usd_per_second = "0.1"'),
            "a: wavespeed_usd_per_second: it has no route there",
        ),
        (
            ('name = "A"', 'name = "A"\nrunware = "r:a@1"\nrunware_usd_per_second = "-1"'),
            "a: runware_usd_per_second must not be negative",
        ),
        (
            ('name = "A"', 'name = "A"\nrunware = "r:a@1"\nrunware_usd_per_second = "much"'),
            "much",
        ),
    ],
)
def test_a_wrong_file_says_where(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(CatalogError) as caught:
        read_catalog(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"nowhere\.toml"):
        read_catalog(tmp_path / "nowhere.toml")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogError):
        read_catalog(path)
