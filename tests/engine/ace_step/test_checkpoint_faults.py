"""Each way in which weights can be unfit: loading refuses in words that say what is wrong and what to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.ace_step.checkpoint import check, declare, inspect
from tests.checkpoints.tiny import write_checkpoint
from tests.checkpoints.upstream import write_upstream
from tests.engine.ace_step.checkpoint_copies import copied, edit_json, edit_weights, refusal


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture(scope="module", name="whole_upstream")
def _whole_upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole-upstream") / "bundle"
    write_upstream(folder, shards=2)
    return folder


@pytest.fixture(name="model")
def _model(whole: Path, tmp_path: Path) -> Path:
    return copied(whole, tmp_path)


@pytest.fixture(name="bundle")
def _bundle(whole_upstream: Path, tmp_path: Path) -> Path:
    return copied(whole_upstream, tmp_path)


def told(source: Path, *words: str) -> None:
    """Loading and inspecting say these words."""
    message = refusal(source)
    for word in words:
        assert word in message, message
    assert any(words[0] in problem for problem in inspect(source).problems)


def told_by_check(source: Path, *words: str) -> None:
    """So do loading and checking, which build the modules; to inspect is too cheap for that."""
    message = refusal(source)
    for word in words:
        assert word in message, message
    assert inspect(source).problems == ()
    assert any(words[0] in problem for problem in check(source).problems)


def test_a_silent_latent_of_zeros_is_refused(model: Path) -> None:
    weights = model / "condition_encoder" / "diffusion_pytorch_model.safetensors"
    edit_weights(weights, lambda tensors: tensors["silence_latent"].zero_().neg_())
    told(model, "silence_latent is all zeros", "drone", "convert the model again")


def test_a_lacking_silent_latent_is_refused(model: Path) -> None:
    weights = model / "condition_encoder" / "diffusion_pytorch_model.safetensors"
    edit_weights(weights, lambda tensors: tensors.pop("silence_latent"))
    told(model, "the condition encoder lacks silence_latent", "drone")


def test_a_silent_latent_that_is_no_number_is_refused(model: Path) -> None:
    weights = model / "condition_encoder" / "diffusion_pytorch_model.safetensors"
    edit_weights(weights, lambda tensors: tensors["silence_latent"][0, 5].fill_(float("nan")))
    assert "holds infinities or no numbers" in refusal(model)


def test_a_lacking_silence_file_is_refused(bundle: Path) -> None:
    (bundle / "acestep-v15-turbo" / "silence_latent.pt").unlink()
    told(bundle, "silence_latent.pt is missing", "drone", "pull the model again")


def test_a_tokenizer_that_does_not_end_texts_is_refused(model: Path) -> None:
    edit_json(model / "tokenizer" / "tokenizer.json", post_processor=None)
    told(model, "does not end texts with <|endoftext|>", "take the released one")


def test_a_tokenizer_without_its_post_processor_file_is_refused(model: Path) -> None:
    (model / "tokenizer" / "tokenizer.json").unlink()
    told(model, "tokenizer.json is missing", "do not end texts")


def test_a_tokenizer_of_another_model_is_refused(model: Path) -> None:
    path = model / "tokenizer" / "tokenizer.json"
    other = json.loads(path.read_text().replace("<|endoftext|>", "</s>"))
    path.unlink()
    path.write_text(json.dumps(other))
    told(model, "has no token <|endoftext|>")


def test_a_large_vocabulary_must_have_the_end_at_its_released_number(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ace_step.checkpoint.faults.END_OF_TEXT_ID", 300)
    told(model, "has <|endoftext|> as 0 instead of 300")


def test_a_vocabulary_larger_than_the_text_encoder_is_refused(model: Path) -> None:
    edit_json(model / "text_encoder" / "config.json", vocab_size=100)
    told(model, "the text encoder knows 100: they do not belong together")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"downsampling_ratios": [2, 4, 4, 6, 8]}, "turns 1536 samples into a frame instead of 1920"),
        ({"downsampling_ratios": [3, 4, 4, 4, 10]}, "odd strides"),
        ({"sampling_rate": 44_100}, "44100 Hz instead of 48000"),
        ({"downsampling_ratios": "2446"}, "a config.json holds a value of the wrong kind"),
        ({"audio_channels": 1}, "1 channels instead of 2"),
        ({"decoder_input_channels": 16}, "do not belong together"),
    ],
)
def test_an_autoencoder_of_another_model_is_refused(model: Path, values: dict[str, Any], words: str) -> None:
    edit_json(model / "vae" / "config.json", **values)
    told(model, words)


@pytest.mark.parametrize("role", ["audio_tokenizer", "audio_token_detokenizer"])
def test_audio_tokenizers_of_another_width_are_refused(model: Path, role: str) -> None:
    edit_json(model / role / "config.json", audio_acoustic_hidden_dim=64)
    told(model, f"the {role}'s 64", "do not belong together")


def test_an_audio_tokenizer_with_other_codes_is_refused(model: Path) -> None:
    edit_json(model / "audio_tokenizer" / "config.json", fsq_input_levels=[8, 8, 8, 5, 5, 4])
    told(model, "51200 codes instead of 64000")


def test_half_a_pair_of_audio_tokenizers_is_refused(model: Path) -> None:
    shutil.rmtree(model / "audio_token_detokenizer")
    told(model, "one of audio_tokenizer and audio_token_detokenizer without the other")


def test_weights_that_do_not_say_their_kind_are_refused(model: Path) -> None:
    edit_json(model / "transformer" / "config.json", is_turbo=False, model_version="mystery")
    told(model, "neither is_turbo nor a model_version")


def test_another_text_encoder_is_refused(model: Path) -> None:
    edit_json(model / "text_encoder" / "config.json", model_type="umt5")
    told_by_check(model, "model_type is 'umt5'")


def test_pickled_weights_are_refused_with_the_reason(model: Path) -> None:
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    told(model, "diffusion_pytorch_model.bin", "can run code", "only .safetensors is read")


def test_a_folder_without_weights_is_refused(model: Path) -> None:
    (model / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    told(model, "has no weights")


def test_missing_and_unknown_tensors_are_named(model: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        tensors["proj_in_convolution.weight"] = tensors.pop("proj_in_conv.weight")

    edit_weights(model / "transformer" / "diffusion_pytorch_model.safetensors", rename)
    told_by_check(
        model, "lacks proj_in_conv.weight", "has proj_in_convolution.weight, which this module does not know"
    )


def test_tensors_of_another_shape_are_named(model: Path) -> None:
    edit_json(model / "transformer" / "config.json", intermediate_size=64)
    told_by_check(model, "layers.0.mlp.down_proj.weight as (32, 48) instead of (32, 64)", "different models")


def test_a_config_from_which_nothing_can_be_built_is_refused(model: Path) -> None:
    edit_json(model / "transformer" / "config.json", num_hidden_layers=6, layer_types=["full_attention"])
    told_by_check(model, "no transformer can be built from its config")


def test_upstream_tensors_that_no_module_knows_are_named(tmp_path: Path) -> None:
    folder = write_upstream(tmp_path)
    edit_weights(folder / "model.safetensors", lambda tensors: tensors.update(extra=torch.zeros(1)))
    told(tmp_path, "tensors that no ACE-Step 1.5 module knows: extra")


def test_a_truncated_file_is_refused(model: Path) -> None:
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data[:-100])
    told(model, "incomplete or damaged", f"{len(data) - 100} bytes instead of {len(data)}")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00not json", b"\xff" * 64, b"\x04\x00\x00\x00\x00\x00\x00\x00null"],
)
def test_a_file_that_is_no_safetensors_is_refused(model: Path, data: bytes) -> None:
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.write_bytes(data)
    told(model, "no safetensors file")


def test_a_header_that_lies_about_a_tensor_is_refused(model: Path) -> None:
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(data.replace(b'"shape":[2,', b'"shape":[9,', 1))
    told(model, "has the wrong size")


def test_quantised_weights_are_refused(model: Path) -> None:
    def quantise(tensors: dict[str, torch.Tensor]) -> None:
        tensors["norm_out.weight"] = tensors["norm_out.weight"].to(torch.float8_e4m3fn)

    edit_weights(model / "transformer" / "diffusion_pytorch_model.safetensors", quantise)
    told(model, "norm_out.weight is stored as F8_E4M3", "take the original release")


def test_a_missing_part_of_an_index_is_named(bundle: Path) -> None:
    (bundle / "acestep-v15-turbo" / "model-00002-of-00002.safetensors").unlink()
    told(
        bundle, "lacks 1 of 2 parts of its weights: model-00002-of-00002.safetensors", "pull the model again"
    )


def test_parts_without_their_index_are_refused(bundle: Path) -> None:
    (bundle / "acestep-v15-turbo" / "model.safetensors.index.json").unlink()
    told(bundle, "no *.safetensors.index.json that lists them")


def test_an_index_cannot_point_outside_of_its_folder(bundle: Path) -> None:
    index = bundle / "acestep-v15-turbo" / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=dict.fromkeys(where, "../../etc/model.safetensors"))
    told(bundle, "points outside of its folder")


def test_an_index_must_agree_with_its_parts(bundle: Path) -> None:
    index = bundle / "acestep-v15-turbo" / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    edit_json(index, weight_map=where | {"decoder.ghost": "model-00001-of-00002.safetensors"})
    told(bundle, "lists tensors that its parts do not have: decoder.ghost")


def test_several_models_in_one_folder_must_be_told_apart(bundle: Path) -> None:
    shutil.copytree(bundle / "acestep-v15-turbo", bundle / "acestep-v15-other")
    told(bundle, "holds several models", "acestep-v15-other", "name the folder of one")


def test_a_folder_that_does_not_exist_says_so(tmp_path: Path) -> None:
    told(tmp_path / "nowhere", "there is no folder")


def test_a_folder_of_something_else_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    told(tmp_path, "holds no ACE-Step 1.5 model", "diffusers layout", "upstream layout")


def test_a_repository_that_was_not_pulled_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = refusal("ACE-Step/no-such-model")
    assert "run `antiphon models pull ACE-Step/no-such-model`" in message


def test_changed_and_lost_files_are_found_by_their_checksums(model: Path) -> None:
    assert not check(model).verifiable
    declare(model)
    facts = check(model)
    assert facts.verifiable
    assert facts.problems == ()
    path = model / "vae" / "diffusion_pytorch_model.safetensors"
    edit_weights(path, lambda tensors: tensors["decoder.conv1.bias"].add_(1))
    (model / "tokenizer" / "tokenizer_config.json").unlink()
    problems = check(model).problems
    assert any("diffusion_pytorch_model.safetensors is not what was pulled" in line for line in problems)
    assert any("tokenizer_config.json is missing" in line for line in problems)
    assert inspect(model).problems == ()
