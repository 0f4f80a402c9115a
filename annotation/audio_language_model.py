"""Descriptions by an audio language model through transformers: [`AudioLanguageModelDescriber`]."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoProcessor,
    PreTrainedConfig,
)
from transformers.utils import CONFIG_NAME, cached_file, extract_commit_hash

from ..audio_msfser import SAMPLING_RATE
from ..encoders_msfser import hub_options
from .chat_endpoint import wav_base64
from .prompt import ask_for_descriptions

# From shorter sounds, some families make no frame at all.
_LEAST_SAMPLES = SAMPLING_RATE // 10


_AUTO_CLASSES = (
    (MODEL_FOR_MULTIMODAL_LM_MAPPING, AutoModelForMultimodalLM),
    (MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, AutoModelForSeq2SeqLM),  # Audio Flamingo 3
)
# Families whose conversations do not accept samples, but a file in base64.
_WITH_FILES = ("voxtral",)
_NOT_FOUND = (
    "{!r} is not a folder with a model, and neither the Hub nor its cache has it: download it where the Hub is "
    "reachable and give its folder."
)
_KIMI = (
    "Kimi-Audio has no class in transformers and runs through its publisher's own package (kimia_infer, with remote "
    "code): serve it behind an OpenAI-compatible endpoint with audio input and name that server "
    "(annotate --url, or ChatEndpointDescriber)."
)


class AudioLanguageModelDescriber:
    """Describes recordings with an audio language model, from [`PROMPT`], by greedy decoding.

    Any family of transformers works whose processor accepts audio in a chat template: Qwen2-Audio, Qwen2.5-Omni and
    Qwen3-Omni (the part that generates speech is not loaded), Audio Flamingo 3, Voxtral (needs `mistral-common`) and
    so on. The processor decides how much of a sound is the model's input; that of Qwen2-Audio keeps the first 30 s.

    Args:
        name: Hub name or folder, such as "Qwen/Qwen2-Audio-7B-Instruct". A Hub name is downloaded unless the cache
            has it.
        revision: Commit, branch or tag on the Hub; the commit is recorded in the describer's name.
        device: Such as "cuda:1"; by default the first GPU where there is one.
        max_new_tokens: Longer responses are cut, and then rejected.
        batch_size: Recordings in one pass.

    Raises:
        OSError: The model is not available or cannot be built here; the sentence says why.
        ValueError: It is not an audio language model of transformers.
    """

    def __init__(
        self,
        name: str,
        revision: str | None = None,
        device: str | torch.device | None = None,
        max_new_tokens: int = 400,
        batch_size: int = 8,
    ):
        revision = _commit(name, revision)
        config, part = _configs(name, revision)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        published = Path(name).resolve().name if Path(name).is_dir() else name
        self.name = f"{config.model_type}:{published}" + (f"@{revision}" if revision else "")
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self._with_files = config.model_type in _WITH_FILES
        # The library's types do not cover what the families add.
        self.processor: Any = _processor(name, revision)
        self.model: Any = _model(name, revision, part, dtype).to(device)

    def __call__(self, sounds: Sequence[np.ndarray], transcripts: Sequence[str | None]) -> list[str | None]:
        """Describes recordings as in [`Describer`]; a response that cannot be parsed is requested again, twice."""

        def ask(sounds: list[np.ndarray], prompts: list[str]) -> list[str]:
            responses: list[str] = []
            for start in range(0, len(sounds), self.batch_size):
                part = slice(start, start + self.batch_size)
                responses += self._generate(sounds[part], prompts[part])
            return responses

        padded = [np.pad(sound, (0, max(0, _LEAST_SAMPLES - len(sound)))) for sound in sounds]
        return ask_for_descriptions(ask, padded, transcripts)

    @torch.inference_mode()
    def _generate(self, sounds: list[np.ndarray], prompts: list[str]) -> list[str]:
        conversations = []
        for sound, prompt in zip(sounds, prompts, strict=True):
            audio = {"base64": wav_base64(sound)} if self._with_files else {"audio": sound}
            content = [{"type": "audio", **audio}, {"type": "text", "text": prompt}]
            conversations.append([{"role": "user", "content": content}])
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"text_kwargs": {"padding": True}},
        ).to(self.model.device, dtype=self.model.dtype)
        # Published defaults sample, and penalize the quotation marks that JSON repeats.
        sequences = self.model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0
        )
        return self.processor.batch_decode(sequences[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _commit(name: str, revision: str | None) -> str | None:
    """The commit that a revision names now, so that all files are from the same one; `None` for a folder."""
    if "kimi-audio" in name.lower():
        raise ValueError(_KIMI)
    if Path(name).is_dir():
        return None
    try:
        return extract_commit_hash(cached_file(name, CONFIG_NAME, revision=revision, **hub_options(name)), None)
    except OSError as error:
        raise OSError(_NOT_FOUND.format(name)) from error


def _configs(name: str, revision: str | None) -> tuple[PreTrainedConfig, PreTrainedConfig]:
    """The published config, and that of the part which reads audio and writes text."""
    try:
        # A folder without a config gives an empty dictionary.
        model_type = PreTrainedConfig.get_config_dict(name, revision=revision)[0]["model_type"]
    except (OSError, KeyError) as error:
        raise OSError(_NOT_FOUND.format(name)) from error
    if model_type == "kimi_audio":
        raise ValueError(_KIMI)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except ValueError as error:
        raise ValueError(
            f"{name!r} ({model_type}) is not supported by this version of transformers: install a newer one, or serve "
            "the model and describe with ChatEndpointDescriber."
        ) from error
    # The omni families have another part, which speaks.
    part = getattr(config, "thinker_config", config)
    if not any(type(part) in mapping for mapping, _ in _AUTO_CLASSES):
        raise ValueError(f"{name!r} ({config.model_type}) is not an audio language model.")
    return config, part


def _processor(name: str, revision: str | None) -> Any:
    try:
        processor = AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:
        raise OSError(f"the processor of {name!r} cannot be built here ({_first_line(error)}).") from error
    # The families use two names for the same thing.
    extractor = getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)
    if extractor is None:
        raise ValueError(f"{name!r} is not an audio language model: its processor does not accept audio.")
    if (rate := getattr(extractor, "sampling_rate", SAMPLING_RATE)) != SAMPLING_RATE:
        raise ValueError(f"{name!r} expects audio at {rate} Hz, and the audio here is at {SAMPLING_RATE} Hz.")
    # All prompts of a batch have to end in the same column, where responses start.
    processor.tokenizer.padding_side = "left"
    return processor


def _model(name: str, revision: str | None, part: PreTrainedConfig, dtype: torch.dtype) -> Any:
    loader = next(loader for mapping, loader in _AUTO_CLASSES if type(part) in mapping)
    try:
        model, report = loader.from_pretrained(
            name, revision=revision, config=part, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    except (ImportError, OSError) as error:
        raise OSError(f"the model of {name!r} cannot be built here ({_first_line(error)}).") from error
    if missing := sorted(report["missing_keys"]):
        raise OSError(
            f"{name!r} lacks {len(missing)} of the model's weights, such as {missing[0]}: give a checkpoint of the "
            "whole model."
        )
    # These options belong to sampling, and greedy decoding would warn about each.
    model.generation_config.update(temperature=None, top_p=None, top_k=None)
    return model.eval()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
