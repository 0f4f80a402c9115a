"""Tiny random parts: every test that needs a model builds it from these, without a download."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

from msfser import MsfSerConfig, MsfSerFeatureExtractor, MsfSerModel, MsfSerProcessor
from msfser.transcription_msfser import MsfSerRecognizer

CONV = {"conv_dim": (16, 16, 16), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8)}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# Nothing random in the encoders, so that two passes can be compared.
SURE = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}

AUDIO_CONFIGS = {
    "wavlm": {
        "model_type": "wavlm",
        **SMALL,
        **SURE,
        **CONV,
        **POSITIONS,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
    "wav2vec2_group_norm": {
        "model_type": "wav2vec2",
        **SMALL,
        **SURE,
        **CONV,
        **POSITIONS,
        "feat_extract_norm": "group",
    },
    "hubert": {
        "model_type": "hubert",
        **SMALL,
        **SURE,
        **CONV,
        **POSITIONS,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
    "data2vec-audio": {"model_type": "data2vec-audio", **SMALL, **SURE, **CONV, "conv_pos_kernel_size": 5},
    "whisper": {
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 48,
        "num_mel_bins": 20,
        "max_source_positions": 700,
        "vocab_size": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    },
}
TEXT_CONFIG = {
    "model_type": "roberta",
    **SMALL,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "vocab_size": 64,
    "max_position_embeddings": 80,
}
NO_DROPOUT = {"head_dropout": 0.0, "expert_dropout": 0.0, "text_dropout": 0.0, "audio_dropout": 0.0}


def tiny_config(encoder: str = "wavlm", **switches) -> MsfSerConfig:
    """A config on tiny encoders, with wide enough a fusion to learn something."""
    return MsfSerConfig(
        **{"audio_config": dict(AUDIO_CONFIGS[encoder]), "text_config": dict(TEXT_CONFIG), "fusion_size": 16}
        | switches
    )


def tiny_model(encoder: str = "wavlm", **switches) -> MsfSerModel:
    torch.manual_seed(0)
    return MsfSerModel(tiny_config(encoder, **switches)).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<s>", "<pad>", "</s>", "<unk>", *"abcdefghij", "the", "food", "was", "wonderful", "but", "dreadful"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def tiny_processor(encoder: str = "wavlm") -> MsfSerProcessor:
    kind = {"kind": "log_mel", "feature_size": 20} if encoder == "whisper" else {"kind": "waveform"}
    return MsfSerProcessor(MsfSerFeatureExtractor(**kind), tiny_tokenizer())


def tiny_recognizer(ends_like: int | None = None) -> MsfSerRecognizer:
    """A tiny random Whisper that knows two languages; its texts end where it would have written a token."""
    end = 40
    torch.manual_seed(0)
    config = WhisperConfig(
        **AUDIO_CONFIGS["whisper"] | {"max_source_positions": 1500, "eos_token_id": end, "pad_token_id": end}
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=41,
        eos_token_id=end,
        pad_token_id=end,
        no_timestamps_token_id=50,
        is_multilingual=True,
        lang_to_id={"<|en|>": 42, "<|de|>": 43},
        task_to_id={"transcribe": 44, "translate": 45},
        suppress_tokens=[*range(4), *range(20, 40)],
        begin_suppress_tokens=[end],
        alignment_heads=[[0, 0], [0, 1]],
    )
    with torch.no_grad():  # larger weights, so that texts are various
        model.model.decoder.embed_positions.weight.mul_(20)
        for weights in model.model.decoder.layers.parameters():
            weights.mul_(8 if weights.ndim > 1 else 1)
        if ends_like is not None:
            model.proj_out.weight[end] = 1.01 * model.proj_out.weight[ends_like]
    return MsfSerRecognizer(model, tiny_tokenizer())


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Quiet noise, `(samples,)` float32 at 16 kHz."""
    return (np.random.default_rng(seed).standard_normal(int(16_000 * seconds)) * 0.1).astype(np.float32)
