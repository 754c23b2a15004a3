"""Both layouts load into the very modules that were saved, donors fill gaps, and nothing else is needed."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step.bundle import Bundle
from engine.ace_step.checkpoint import inspect
from engine.ace_step.checkpoint.loading import _build, load_bundle
from engine.ace_step.checkpoint.pieces import Piece
from tests.checkpoints.tiny import write_checkpoint
from tests.checkpoints.upstream import write_upstream
from tests.engine.ace_step.checkpoint_copies import assert_same, copied, edit_json, load, refusal


@pytest.fixture(scope="module", name="released")
def _released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("released") / "tiny-turbo")


@pytest.fixture(scope="module", name="upstream")
def _upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upstream") / "Ace-Step1.5"
    write_upstream(folder)
    return folder


def test_the_released_layout_loads_bit_for_bit(released: Path, turbo_bundle: Bundle) -> None:
    loaded = load(released)
    assert_same(loaded, turbo_bundle)
    assert (loaded.kind, loaded.channels, loaded.name) == ("turbo", 8, "tiny")
    assert loaded.tokenizer("[Verse] home").input_ids == turbo_bundle.tokenizer("[Verse] home").input_ids


@pytest.mark.parametrize("place", [".", "acestep-v15-turbo"])
def test_the_upstream_layout_is_converted_bit_for_bit(
    upstream: Path, turbo_bundle: Bundle, place: str
) -> None:
    """Named by the whole folder or by the model's own in it."""
    loaded = load(upstream / place)
    assert_same(loaded, turbo_bundle)
    assert loaded.kind == "turbo"
    assert loaded.dit.config.encoder_hidden_size == turbo_bundle.dit.config.encoder_hidden_size
    assert loaded.dit.layer_types == turbo_bundle.dit.layer_types


def test_weights_in_several_files_load_the_same(tmp_path: Path, base_bundle: Bundle) -> None:
    write_upstream(tmp_path, "base", shards=3)
    assert_same(load(tmp_path), base_bundle)


def test_a_loaded_model_sings_what_the_saved_one_sang(released: Path, turbo: AceStepPipeline) -> None:
    """Loaded, saved and loaded again by the oracle itself."""
    loaded = load(released)
    again = AceStepPipeline(
        vae=loaded.vae,
        text_encoder=loaded.text_encoder,
        tokenizer=loaded.tokenizer,
        transformer=loaded.dit,
        condition_encoder=loaded.condition_encoder,
        scheduler=turbo.scheduler,
    )
    again.set_progress_bar_config(disable=True)
    before, after = (
        pipeline(
            prompt="piano", lyrics="[Verse]", audio_duration=1.0, generator=torch.Generator().manual_seed(7)
        ).audios
        for pipeline in (turbo, again)
    )
    assert torch.equal(before, after)


def test_what_is_saved_from_loaded_modules_loads_the_same(released: Path, tmp_path: Path) -> None:
    loaded = load(released)
    copy = copied(released, tmp_path)
    for role, module in (("transformer", loaded.dit), ("vae", loaded.vae)):
        shutil.rmtree(copy / role)
        module.save_pretrained(copy / role, safe_serialization=True)
    assert_same(load(copy), loaded)


def test_a_model_alone_takes_the_rest_from_a_donor(
    tmp_path: Path, upstream: Path, base_bundle: Bundle
) -> None:
    alone = write_upstream(tmp_path, "base", bundle=False)
    assert "no audio autoencoder (vae/)" in refusal(alone)
    assert "after a plus sign" in refusal(alone)
    for bundle in (load(alone, donor=upstream), load(f"{alone}+{upstream}")):
        assert bundle.kind == "base"
        assert torch.equal(bundle.dit.proj_in_conv.weight, base_bundle.dit.proj_in_conv.weight)
        assert bundle.audio_tokenizer is not None


@pytest.mark.parametrize("layout", ["diffusers", "upstream"])
def test_audio_tokenizers_come_from_a_donor_of_either_layout(
    tmp_path: Path, released: Path, upstream: Path, turbo_bundle: Bundle, layout: str
) -> None:
    bare = write_checkpoint(tmp_path / "bare", tokenizers=False)
    alone = load(bare)
    assert (alone.audio_tokenizer, alone.audio_detokenizer) == (None, None)
    donor = released if layout == "diffusers" else upstream
    assert_same(load(bare, donor=donor), turbo_bundle)


def test_a_donor_may_have_nothing_but_what_is_wanted_of_it(
    tmp_path: Path, released: Path, turbo_bundle: Bundle
) -> None:
    """As `models pull` leaves it, which fetches two folders of ten gigabytes."""
    donor = tmp_path / "donor"
    for role in ("audio_tokenizer", "audio_token_detokenizer"):
        shutil.copytree(released / role, donor / role)
    assert_same(load(write_checkpoint(tmp_path / "bare", tokenizers=False), donor=donor), turbo_bundle)
    assert "it can only be a donor" in refusal(donor)


def test_a_known_release_finds_its_usual_donor_by_itself(
    tmp_path: Path, upstream: Path, base_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = _in_cache(tmp_path, "ACE-Step/acestep-v15-base")
    write_upstream(tmp_path, "base", bundle=False).rename(snapshot)
    message = refusal("ACE-Step/acestep-v15-base")
    assert "no audio autoencoder" in message
    assert "`antiphon models pull ACE-Step/acestep-v15-base` brings the usual donor" in message
    shutil.copytree(upstream, _in_cache(tmp_path, "ACE-Step/Ace-Step1.5"))
    assert_same(load("ACE-Step/acestep-v15-base"), base_bundle)


def _in_cache(cache: Path, repository: str) -> Path:
    """Where the snapshot of a repository goes in the hub client's cache."""
    store = cache / f"models--{repository.replace('/', '--')}"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text("c0ffee")
    (store / "snapshots").mkdir()
    return store / "snapshots" / "c0ffee"


def test_a_donor_never_replaces_what_the_model_has(
    tmp_path: Path, released: Path, base_bundle: Bundle
) -> None:
    own = write_checkpoint(tmp_path / "base", "base", seed=0)
    other = write_checkpoint(tmp_path / "other", "turbo", seed=5)
    assert_same(load(own, donor=other), base_bundle)
    assert load(own, donor=released).kind == "base"


def test_half_precision_holds_the_rounded_numbers_and_exact_constants(
    released: Path, turbo_bundle: Bundle
) -> None:
    half = load_bundle(released, name="half", device="cpu", dtype=torch.bfloat16, vae_dtype=torch.float32)
    assert half.dtype is torch.bfloat16
    for name, tensor in half.dit.state_dict().items():
        assert torch.equal(tensor, turbo_bundle.dit.state_dict()[name].bfloat16()), name
    assert {tensor.dtype for tensor in half.vae.parameters()} == {torch.float32}
    rotary = half.text_encoder.rotary_emb.inv_freq
    assert rotary.dtype is torch.float32
    assert torch.equal(rotary, turbo_bundle.text_encoder.rotary_emb.inv_freq)


def test_loaded_weights_outlive_their_files(tmp_path: Path, released: Path, turbo_bundle: Bundle) -> None:
    """A pull that replaces files must not reach into a running engine."""
    copy = tmp_path / "mine"
    shutil.copytree(released, copy)
    loaded = load(copy)
    for path in copy.rglob("*.safetensors"):
        path.write_bytes(bytes(path.stat().st_size))
    assert_same(loaded, turbo_bundle)


def test_the_weights_say_what_they_are(tmp_path: Path) -> None:
    released = write_checkpoint(tmp_path / "one", "sft")
    upstream = write_upstream(tmp_path / "two", "sft")
    assert inspect(released).kind == inspect(upstream.parent).kind == "sft"


def test_a_name_tells_sft_from_the_base_that_it_calls_itself(tmp_path: Path, released: Path) -> None:
    folder = copied(released, tmp_path)
    edit_json(folder / "transformer" / "config.json", is_turbo=False, model_version="base")
    assert load(folder).kind == "base"
    assert load(folder.rename(tmp_path / "xl-sft-diffusers")).kind == "sft"


def test_inspection_knows_sizes_and_layout_without_loading(released: Path, upstream: Path) -> None:
    one, two = inspect(released), inspect(upstream)
    assert (one.layout, two.layout) == ("diffusers", "upstream")
    assert one.problems == two.problems == ()
    assert (one.kind, one.size, one.variant, one.channels) == ("turbo", "custom", "turbo", 8)
    assert one.has_audio_tokenizers
    assert one.parameters == two.parameters
    bundle = load(released)
    for role, module in (
        ("transformer", bundle.dit),
        ("vae", bundle.vae),
        ("text_encoder", bundle.text_encoder),
    ):
        count = sum(parameter.numel() for parameter in module.parameters())
        assert one.modules[role].parameters == count
        assert one.modules[role].bytes_by_dtype == {"F32": 4 * count}


def test_modules_of_the_released_sizes_are_built_without_their_memory(tmp_path: Path) -> None:
    """Eleven gigabytes would be missed here. The counts are those of the released files."""
    xl = {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "encoder_hidden_size": 2048,
    }
    roles = {"transformer": xl, "condition_encoder": {}, "audio_tokenizer": {}, "audio_token_detokenizer": {}}
    counts = {}
    for role, config in roles.items():
        module = _build(Piece(role, tmp_path, config, {}))
        large = [tensor for tensor in module.parameters() if tensor.numel() > 100_000]
        assert all(tensor.is_meta for tensor in large)
        counts[role] = sum(tensor.numel() for tensor in module.parameters())
    assert counts["transformer"] == 4_168_897_088
    assert sum(counts.values()) == 4_987_310_726
