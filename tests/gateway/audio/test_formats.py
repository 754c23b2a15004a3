import pytest

from gateway.audio import MASTER, AudioFormat, AudioSettings, UnsupportedEncoding, resolve_encoding
from gateway.audio.formats import MP3_BITRATES_KBPS, OGG_BITRATES_KBPS, legal_bitrates_kbps

_LOW = (8, 16, 24, 32, 40, 48, 56, 64)
_MIDDLE = (*_LOW, 80, 96, 112, 128, 144, 160)
_HIGH = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MP3 = {
    **dict.fromkeys((8_000, 11_025, 12_000), _LOW),
    **dict.fromkeys((16_000, 22_050, 24_000), _MIDDLE),
    **dict.fromkeys((32_000, 44_100, 48_000), _HIGH),
}
OGG = {
    8_000: {1: (8, 40), 2: (16, 80)},
    12_000: {1: (16, 48), 2: (16, 96)},
    16_000: {1: (16, 96), 2: (24, 192)},
    24_000: {1: (16, 80), 2: (32, 160)},
    48_000: {1: (32, 224), 2: (48, 256)},
}


def refusal(audio_format: AudioFormat, **wishes: int) -> UnsupportedEncoding:
    with pytest.raises(UnsupportedEncoding) as caught:
        resolve_encoding(audio_format, AudioSettings(**wishes))
    return caught.value


def test_flac_is_the_master_itself() -> None:
    assert resolve_encoding(AudioFormat.FLAC, None) == MASTER
    assert (MASTER.sample_rate, MASTER.channels, MASTER.bits_per_sample) == (48_000, 2, 24)


def test_wav_has_sixteen_bits() -> None:
    wav = resolve_encoding(AudioFormat.WAV, AudioSettings())
    assert (wav.sample_rate, wav.channels, wav.bits_per_sample) == (48_000, 2, 16)


@pytest.mark.parametrize("audio_format", [AudioFormat.FLAC, AudioFormat.WAV])
@pytest.mark.parametrize("field", ["bitrate", "channels", "sample_rate"])
def test_lossless_formats_take_no_settings(audio_format: AudioFormat, field: str) -> None:
    assert refusal(audio_format, **{field: 2}).param == "audio_settings"


@pytest.mark.parametrize(("audio_format", "kbps"), [(AudioFormat.MP3, 192), (AudioFormat.OGG, 160)])
def test_lossy_defaults_are_48_khz_stereo(audio_format: AudioFormat, kbps: int) -> None:
    encoding = resolve_encoding(audio_format, None)
    assert (encoding.sample_rate, encoding.channels, encoding.bitrate_kbps) == (48_000, 2, kbps)
    assert encoding.bits_per_sample is None


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OGG])
def test_every_table_entry_resolves_to_itself(audio_format: AudioFormat) -> None:
    rates = MP3_BITRATES_KBPS if audio_format is AudioFormat.MP3 else OGG_BITRATES_KBPS
    for rate in rates:
        for channels in (1, 2):
            for kbps in legal_bitrates_kbps(audio_format, sample_rate=rate, channels=channels):
                settings = AudioSettings(bitrate=kbps, channels=channels, sample_rate=rate)
                made = resolve_encoding(audio_format, settings)
                assert (made.bitrate_kbps, made.channels, made.sample_rate) == (kbps, channels, rate)


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OGG])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_default_bitrate_is_legal_at_every_rate(audio_format: AudioFormat, channels: int) -> None:
    for rate in MP3_BITRATES_KBPS if audio_format is AudioFormat.MP3 else OGG_BITRATES_KBPS:
        made = resolve_encoding(audio_format, AudioSettings(channels=channels, sample_rate=rate))
        assert made.bitrate_kbps in legal_bitrates_kbps(audio_format, sample_rate=rate, channels=channels)


@pytest.mark.parametrize("rate", MP3)
def test_the_mp3_table_is_what_mpeg_offers_at_each_rate(rate: int) -> None:
    assert MP3_BITRATES_KBPS[rate] == MP3[rate]


def test_no_other_rates_are_offered() -> None:
    assert (set(MP3_BITRATES_KBPS), set(OGG_BITRATES_KBPS)) == (set(MP3), set(OGG))


@pytest.mark.parametrize("rate", OGG)
def test_the_ogg_table_is_the_range_that_vorbis_manages(rate: int) -> None:
    assert OGG_BITRATES_KBPS[rate] == OGG[rate]


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", MP3)
def test_any_other_mp3_bitrate_names_the_two_nearest(rate: int, channels: int) -> None:
    legal = MP3[rate]
    for wish in (*set(range(-1, 400)).difference(legal), -(10**30), 10**30):
        below = [kbps for kbps in legal if kbps < wish]
        above = [kbps for kbps in legal if kbps > wish]
        nearest = (below[-1], above[0]) if below and above else legal[:2] if above else legal[-2:]
        error = refusal(AudioFormat.MP3, bitrate=wish, sample_rate=rate, channels=channels)
        assert (error.param, error.nearest) == ("audio_settings.bitrate", nearest)
        assert str(error).endswith(f"{', '.join(map(str, legal))}. Nearest: {nearest[0]} or {nearest[1]}")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", OGG)
def test_an_ogg_bitrate_out_of_range_names_the_range_and_its_nearer_end(rate: int, channels: int) -> None:
    low, high = OGG[rate][channels]
    for wish, end in ((low - 1, low), (0, low), (-(10**30), low), (high + 1, high), (10**30, high)):
        error = refusal(AudioFormat.OGG, bitrate=wish, sample_rate=rate, channels=channels)
        assert (error.param, error.nearest) == ("audio_settings.bitrate", (end,))
        assert str(error).endswith(f"{low} to {high}. Nearest: {end}")


@pytest.mark.parametrize("rate", sorted(set(MP3) - set(OGG)))
def test_ogg_has_no_rate_that_vorbis_does_not_manage(rate: int) -> None:
    below, above = max(each for each in OGG if each < rate), min(each for each in OGG if each > rate)
    error = refusal(AudioFormat.OGG, sample_rate=rate)
    assert (error.param, error.nearest) == ("audio_settings.sample_rate", (below, above))


@pytest.mark.parametrize(
    ("wish", "nearest"), [(0, (8_000, 11_025)), (44_000, (32_000, 44_100)), (96_000, (44_100, 48_000))]
)
def test_an_unknown_mp3_rate_names_the_two_nearest(wish: int, nearest: tuple[int, int]) -> None:
    error = refusal(AudioFormat.MP3, sample_rate=wish)
    assert (error.param, error.nearest) == ("audio_settings.sample_rate", nearest)


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OGG])
@pytest.mark.parametrize("channels", [-1, 0, 3, 6])
def test_there_is_mono_and_stereo(audio_format: AudioFormat, channels: int) -> None:
    error = refusal(audio_format, channels=channels)
    assert (error.param, error.nearest) == ("audio_settings.channels", (1, 2))


@pytest.mark.parametrize("audio_format", [AudioFormat.MP3, AudioFormat.OGG])
def test_a_bitrate_alone_is_checked_at_48_khz_stereo(audio_format: AudioFormat) -> None:
    low, high = (32, 320) if audio_format is AudioFormat.MP3 else OGG[48_000][2]
    for kbps in (low, high):
        made = resolve_encoding(audio_format, AudioSettings(bitrate=kbps))
        assert (made.sample_rate, made.channels, made.bitrate_kbps) == (48_000, 2, kbps)
    for kbps in (low - 1, high + 1):
        assert refusal(audio_format, bitrate=kbps).param == "audio_settings.bitrate"
