"""Sound to the input of a speech encoder: the waveform, or Whisper's log-mel frames of a clip of any length."""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.utils import logging

from .audio_msfser import SAMPLING_RATE, as_sounds, load_audio
from .levels_msfser import at_reference_level
from .sound_forms_msfser import states_rate

logger = logging.get_logger(__name__)

_N_FFT = 400
_HOP = 160
# What is read beyond the length at which a sound is cut.
_MORE_SECONDS = 0.1


class MsfSerFeatureExtractor(SequenceFeatureExtractor):
    """Prepares sound for [`MsfSerModel`]; also what the stock `audio-classification` pipeline uses.

    Args:
        kind: `"waveform"` (WavLM and its relatives) or `"log_mel"` (Whisper).
        feature_size: Number of mel bands; 1 for `"waveform"`.
        sampling_rate: Always 16000 Hz.
        do_normalize: Whether each waveform is brought to zero mean and unit variance.
        normalize_level: Whether the loud parts of each sound are brought to one level first, so that gain and distance
            to the microphone have no effect. Sound below -70 dB stays as it is.
        mean: What is subtracted from each waveform without `do_normalize`, where a model was trained with the mean of
            its corpus.
        std: What each is then divided by, likewise.
        min_seconds: Shorter sound is padded with silence to this length, above 0, as the encoders fail on a few
            milliseconds; for `"log_mel"` 0.025 or more.
        max_seconds: Longer sound is cut at this length, `min_seconds` or more.
        padding_value: What shorter sounds of a batch are padded with; models do not see it.
        **kwargs: As in [`SequenceFeatureExtractor`], such as `return_attention_mask`. `padding_side` is `"right"`.

    Raises:
        ValueError: The settings contradict each other.
    """

    def __init__(
        self,
        kind: Literal["waveform", "log_mel"] = "waveform",
        feature_size: int = 1,
        sampling_rate: int = SAMPLING_RATE,
        do_normalize: bool = True,
        normalize_level: bool = False,
        min_seconds: float = 0.5,
        max_seconds: float = 12.0,
        padding_value: float = 0.0,
        mean: float = 0.0,
        std: float = 1.0,
        **kwargs: Any,
    ):
        if kind not in ("waveform", "log_mel"):
            raise ValueError(f"kind={kind!r} is neither 'waveform' nor 'log_mel'.")
        if sampling_rate != SAMPLING_RATE:
            raise ValueError(f"sampling_rate={sampling_rate}: the encoders need {SAMPLING_RATE} Hz.")
        if not 0 < min_seconds <= max_seconds < math.inf:
            raise ValueError(
                f"min_seconds={min_seconds} and max_seconds={max_seconds} leave no length: give finite numbers, 0 < "
                "min_seconds <= max_seconds."
            )
        check_padding_side(kwargs.get("padding_side"))
        if kind == "log_mel" and int(min_seconds * SAMPLING_RATE) < _N_FFT:
            raise ValueError(
                f"min_seconds={min_seconds} is less than one log-mel window ({_N_FFT / SAMPLING_RATE} s)."
            )
        if (mean, std) != (0.0, 1.0) and (kind != "waveform" or do_normalize or not std > 0):
            raise ValueError(
                f"mean={mean} and std={std} are for waveforms with do_normalize=False, and std is more than 0."
            )
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.kind = kind
        self.do_normalize = do_normalize
        self.mean, self.std = mean, std
        self.normalize_level = normalize_level
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self.model_input_names = ["input_features" if kind == "log_mel" else "input_values", "attention_mask"]

    def __call__(
        self,
        audio: Any,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        warn_if_cut: bool = True,
        *,
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        channels_first: bool | None = None,
        channel: int | None = None,
    ) -> BatchFeature:
        """Prepares one sound or a batch of them.

        Args:
            audio: What [`load_audio`] reads, or a list of such; `None` inside a list is an item without sound. An
                array of two axes is a batch, `(clips, samples)`, unless `channels_first` is given.
            sampling_rate: Rate in Hz of the arrays among them that do not state their own.
            return_tensors: `"pt"` or `"np"`; NumPy without it.
            warn_if_cut: Whether one warning says that sounds are cut. Training cuts silently.
            padding: `True` or `"longest"`, `"max_length"`, or `False` or `"do_not_pad"`, as in transformers.
            truncation: Whether sounds are cut at `max_length`.
            max_length: In samples at 16 kHz, also for log-mel frames; by default `max_seconds`.
            pad_to_multiple_of: In samples, or in mel frames.
            return_attention_mask: By default the setting of this name, which is `True`. Without a mask the sounds must
                have one length, so that none is padded.
            channels_first: Whether arrays of two axes are one sound each, as `(channels, samples)` or as `(samples,
                channels)`. A batch of them has three axes.
            channel: The one channel that is used, from 0 on; by default the mean of all.

        Returns:
            `input_values` `(batch, samples)` or `input_features` `(batch, mel frames, mels)`, and `attention_mask`
            `(batch, samples or mel frames)`, 1 where the item has sound. An item without sound is a row of zeros.

        Raises:
            ValueError: A sound cannot be used (the sentence names the item), or there is none; or the mask is needed.
        """
        sounds = as_sounds(audio, sampling_rate, channels_first)
        if not sounds:
            raise ValueError("There is no sound: the list is empty.")
        if max_length is not None and max_length < int(self.min_seconds * SAMPLING_RATE):
            raise ValueError(
                f"max_length={max_length} samples is less than min_seconds={self.min_seconds}: give more, or leave it "
                "out."
            )
        # Half a sample more, so that the division loses none.
        most_seconds = self.max_seconds if max_length is None else (max_length + 0.5) / SAMPLING_RATE

        def read(sound: Any, max_seconds: float | None) -> np.ndarray:
            rate = None if states_rate(sound) else sampling_rate
            return load_audio(sound, rate, max_seconds, channels_first, channel)

        items, cut = [], []
        for i, sound in enumerate(sounds):
            features, is_cut = self._features(sound, read, most_seconds if truncation else None, i)
            items.append(features)
            cut += [i] if is_cut else []
        if warn_if_cut and cut:
            logger.warning(
                f"{len(cut)} of {len(sounds)} sounds (first item {cut[0]}) are longer than {most_seconds:.4g} s and "
                "were cut there: use the pipeline, which handles recordings of any length, or raise max_seconds."
            )
        if padding in (True, "longest") and not any(len(item) for item in items):  # only absent ones
            padding, most_seconds = "max_length", self.min_seconds
        mask = [np.ones(len(item), np.int64) for item in items]
        padded = self.pad(
            BatchFeature({self.model_input_names[0]: items, "attention_mask": mask}),
            padding=padding,
            max_length=self._length(most_seconds),
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors=return_tensors,
        )
        if not (self.return_attention_mask if return_attention_mask is None else return_attention_mask):
            check_unmasked(padded.pop("attention_mask"))
        return padded

    def _features(
        self, sound: Any, read: Callable[..., np.ndarray], most_seconds: float | None, index: int
    ) -> tuple[np.ndarray, bool]:
        """One sound as `(samples,)` or `(mel frames, mels)`, an absent one without any; and whether it is cut."""
        if sound is None:
            return np.zeros((0, self.feature_size) if self.kind == "log_mel" else 0, np.float32), False
        try:
            # A little more than is used, which tells whether there is more.
            samples = read(sound, max_seconds=None if most_seconds is None else most_seconds + _MORE_SECONDS)
        except ValueError as error:
            raise ValueError(f"Audio item {index}: {error}") from error
        is_cut = False
        if most_seconds is not None:
            is_cut = len(samples) > (most_seconds + 0.01) * SAMPLING_RATE  # resampling may round up
            samples = samples[: int(most_seconds * SAMPLING_RATE)]
        if self.normalize_level:
            samples = at_reference_level(samples)
        if self.kind == "waveform":
            mean, std = self.mean, self.std
            if self.do_normalize:
                mean, std = samples.mean(), np.sqrt(samples.var() + 1e-7)
            samples = (samples - np.float32(mean)) / np.float32(std)
        missing = int(self.min_seconds * SAMPLING_RATE) - len(samples)
        if missing > 0:
            samples = np.pad(samples, (0, missing))
        return samples if self.kind == "waveform" else self._log_mel(samples), is_cut

    def _log_mel(self, samples: np.ndarray) -> np.ndarray:
        """Whisper's features, `(mel frames, mels)`: 25 ms windows every 10 ms, as its authors compute them."""
        # On the CPU whatever torch.set_default_device says, as the samples are.
        window = torch.hann_window(_N_FFT, device="cpu")
        spectrum = torch.stft(torch.from_numpy(samples), _N_FFT, _HOP, window=window, return_complex=True)
        power = spectrum[:, :-1].abs().square()
        # In float32 whatever autocast says, as a model expects it.
        with torch.autocast("cpu", enabled=False):
            mel = _mel_filters(self.feature_size) @ power
        log = mel.clamp(min=1e-10).log10()
        log = torch.maximum(log, log.max() - 8.0)
        return ((log + 4.0) / 4.0).T.numpy()

    def _length(self, seconds: float) -> int:
        """Seconds in samples or mel frames."""
        return int(seconds * SAMPLING_RATE) // (_HOP if self.kind == "log_mel" else 1)


def check_padding_side(padding_side: str | None) -> None:
    """Checks where sounds or texts are to be padded.

    Raises:
        ValueError: Not at the end, where the encoders expect padding.
    """
    if padding_side not in (None, "right"):
        raise ValueError(f"padding_side={padding_side!r} gives wrong numbers: leave it out, or give 'right'.")


def check_unmasked(mask: Iterable[Any]) -> None:
    """Checks that sounds or texts are whole without their mask, `(batch, length)`.

    Raises:
        ValueError: One of them is padded or absent.
    """
    if not all(np.asarray(row).all() for row in mask):
        raise ValueError(
            "return_attention_mask=False leaves nothing that tells padding and absent items from the others: leave it "
            "out, or give items of one length, all of them present."
        )


@functools.lru_cache(maxsize=4)
def _mel_filters(n_mels: int) -> torch.Tensor:
    """`(mels, n_fft // 2 + 1)`, Slaney's scale and normalization."""
    filters = mel_filter_bank(
        num_frequency_bins=1 + _N_FFT // 2,
        num_mel_filters=n_mels,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=SAMPLING_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters.T.astype(np.float32))


MsfSerFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
