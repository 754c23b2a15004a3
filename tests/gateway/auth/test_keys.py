"""Keys: typing errors are caught without asking anybody, and the secret shows up nowhere."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.keys import (
    KEY_CHARACTERS,
    PREFIXES,
    SHOWN_CHARACTERS,
    derive_pepper,
    digest,
    generate_key,
    is_well_formed,
)

ALPHABET = string.digits + string.ascii_letters + "_-"
modes = st.sampled_from(sorted(PREFIXES))
keys = modes.map(generate_key)
secrets = st.text(min_size=32, max_size=64)


@given(modes)
def test_a_new_key_is_well_formed_and_says_its_mode(mode: str) -> None:
    key = generate_key(mode)
    assert key.startswith(f"aph_{mode}_")
    assert len(key) == KEY_CHARACTERS
    assert is_well_formed(key)
    assert len({generate_key(mode) for _ in range(20)}) == 20


@given(keys, st.integers(0, KEY_CHARACTERS - 1), st.sampled_from(ALPHABET))
def test_a_wrong_character_is_caught(key: str, position: int, character: str) -> None:
    mistyped = key[:position] + character + key[position + 1 :]
    assert is_well_formed(mistyped) == (mistyped == key)


@given(keys, st.integers(0, KEY_CHARACTERS - 2))
def test_two_characters_the_wrong_way_round_are_caught(key: str, position: int) -> None:
    swapped = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
    assert is_well_formed(swapped) == (swapped == key)


@given(keys, st.integers(0, KEY_CHARACTERS - 1))
def test_a_cut_key_is_caught(key: str, length: int) -> None:
    assert not is_well_formed(key[:length])
    assert not is_well_formed(key + key[length])


@given(st.text())
def test_any_text_is_judged_without_an_error(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(text.ljust(KEY_CHARACTERS)[:KEY_CHARACTERS])
    assert not is_well_formed("aph_live_" + text.ljust(KEY_CHARACTERS)[: KEY_CHARACTERS - 9])


@given(keys, secrets, secrets)
def test_the_digest_is_of_key_and_pepper(key: str, secret: str, other: str) -> None:
    one = digest(key, derive_pepper(secret))
    assert len(one) == 32
    assert one == digest(key, derive_pepper(secret))
    assert one != digest(generate_key("live"), derive_pepper(secret))
    if secret != other:
        assert one != digest(key, derive_pepper(other))
        assert derive_pepper(secret).id != derive_pepper(other).id


@given(secrets)
def test_a_pepper_never_shows_its_secret(secret: str) -> None:
    pepper = derive_pepper(secret)
    for text in (repr(pepper), str(pepper), f"{[pepper]}"):
        assert text.strip("[]") == f"Pepper(id={pepper.id})"
    assert pepper.secret.hex()[:12] != pepper.id


@pytest.mark.parametrize("mode", PREFIXES)
def test_what_is_shown_of_a_key_later_gives_little_away(mode: str) -> None:
    assert len(generate_key(mode)[:SHOWN_CHARACTERS]) == len(PREFIXES[mode]) + 4
