"""A damaged WAV header that says one sample a second made resampling fill 2.5 GB and half a minute."""

from pathlib import Path

import pytest

from avtlm.data.media import MediaError, read_audio, write_wav
from tests.made_media import tone


@pytest.mark.parametrize("rate", [1, 999, 0x7FFFFFFF])
def test_a_sample_rate_that_no_sound_has_is_damage(tmp_path: Path, rate: int) -> None:
    write_wav(tmp_path / "a.wav", tone(1.0))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.wav: is damaged: its sound has \d+ samples a second"):
        read_audio(tmp_path / "a.wav")
