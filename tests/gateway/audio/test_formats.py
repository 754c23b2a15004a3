import pytest

from gateway.audio import MASTER, AudioFormat, AudioSettings, UnsupportedEncoding, resolve_encoding
from gateway.audio.formats import MP3_BITRATES_KBPS, OGG_BITRATES_KBPS, legal_bitrates_kbps


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


@pytest.mark.parametrize(
    ("rate", "wish", "nearest"),
    [
        (48_000, 70, (64, 80)),
        (48_000, 300, (256, 320)),
        (48_000, 321, (320,)),
        (44_100, 8, (32,)),
        (24_000, 150, (144, 160)),
        (8_000, 0, (8,)),
        (11_025, -5, (8,)),
        (8_000, 192, (64,)),
    ],
)
def test_a_wrong_mp3_bitrate_names_its_neighbours(rate: int, wish: int, nearest: tuple[int, ...]) -> None:
    error = refusal(AudioFormat.MP3, bitrate=wish, sample_rate=rate)
    assert error.param == "audio_settings.bitrate"
    assert error.nearest == nearest
    assert all(str(kbps) in str(error) for kbps in nearest)


@pytest.mark.parametrize(
    ("rate", "channels", "wish", "nearest"),
    [
        (48_000, 2, 257, (256,)),
        (48_000, 2, 47, (48,)),
        (48_000, 1, 225, (224,)),
        (24_000, 1, 15, (16,)),
        (8_000, 1, 41, (40,)),
    ],
)
def test_a_wrong_ogg_bitrate_names_the_bound(
    rate: int, channels: int, wish: int, nearest: tuple[int, ...]
) -> None:
    error = refusal(AudioFormat.OGG, bitrate=wish, sample_rate=rate, channels=channels)
    assert (error.param, error.nearest) == ("audio_settings.bitrate", nearest)


def test_ogg_is_not_offered_at_44100_hz() -> None:
    error = refusal(AudioFormat.OGG, sample_rate=44_100)
    assert (error.param, error.nearest) == ("audio_settings.sample_rate", (24_000, 48_000))


def test_three_channels_are_refused() -> None:
    error = refusal(AudioFormat.MP3, channels=3)
    assert (error.param, error.nearest) == ("audio_settings.channels", (2,))
