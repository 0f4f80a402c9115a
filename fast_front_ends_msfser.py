"""The convolutions of the waveform encoders made faster on a CPU: the front end, and the positional convolution."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers.models.data2vec.modeling_data2vec_audio import Data2VecAudioFeatureEncoder
from transformers.models.hubert.modeling_hubert import HubertFeatureEncoder, HubertPositionalConvEmbedding
from transformers.models.unispeech.modeling_unispeech import UniSpeechFeatureEncoder, UniSpeechPositionalConvEmbedding
from transformers.models.unispeech_sat.modeling_unispeech_sat import (
    UniSpeechSatFeatureEncoder,
    UniSpeechSatPositionalConvEmbedding,
)
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder, Wav2Vec2PositionalConvEmbedding
from transformers.models.wavlm.modeling_wavlm import WavLMFeatureEncoder, WavLMPositionalConvEmbedding

from .fast_convolutions_msfser import convolution
from .fast_products_msfser import is_fast, is_reduced, packed, wants_gradient

# Output frames of one piece of the front end: its widest layer then has about 4,000 rows.
_PIECE = 64


class _FastFrontEnd(nn.Module):
    """Mixed into a stock front end whose convolutions are each followed by a layer norm.

    As products of windows with the channels last: nothing is transposed around the layer norms, the weights are
    arranged once, and pieces of a clip stay in the cache.
    """

    conv_layers: Any

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """`(batch, samples)` -> `(batch, channels, frames)`; fast on a CPU, in float32 without gradients, else stock.

        A frame depends on a few samples only, so the sound can be processed in pieces.
        """
        normalized = all(
            type(layer.conv) is nn.Conv1d and isinstance(getattr(layer, "layer_norm", None), nn.LayerNorm)
            for layer in self.conv_layers
        )
        if not normalized or torch.compiler.is_compiling() or input_values.device.type != "cpu":
            return super().forward(input_values)
        field, hop = 1, 1
        for layer in self.conv_layers:
            field += (layer.conv.kernel_size[0] - 1) * hop
            hop *= layer.conv.stride[0]
        is_plain = input_values.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        is_in_bfloat16 = is_reduced(input_values, self.conv_layers[0].conv.weight)
        trained = wants_gradient(input_values, *self.parameters())
        is_too_short = input_values.shape[1] < field  # for which the stock class has an error
        if is_too_short or not (is_in_bfloat16 or (is_plain and not trained)):
            return super().forward(input_values)
        if is_in_bfloat16:
            input_values = input_values.to(torch.bfloat16)
        if trained:
            return self._frames(input_values).transpose(1, 2)
        frames = (input_values.shape[1] - field) // hop + 1
        starts = range(0, frames, _PIECE)
        clips = []
        for samples in input_values:
            ends = ((min(start + _PIECE, frames) - 1) * hop + field for start in starts)
            pieces = (samples[start * hop : end] for start, end in zip(starts, ends, strict=True))
            clips.append(torch.cat([self._frames(part[None])[0] for part in pieces]))
        return torch.stack(clips).transpose(1, 2)

    def _frames(self, samples: torch.Tensor) -> torch.Tensor:
        """`(batch, samples)` -> `(batch, frames, channels)`; in bfloat16 also with gradients."""
        x = samples[..., None]
        for layer in self.conv_layers:
            x = layer.activation(layer.layer_norm(convolution(x, layer.conv)))
        return x


class MsfSerWavLMFrontEnd(_FastFrontEnd, WavLMFeatureEncoder):
    """WavLM's front end."""


class MsfSerWav2Vec2FrontEnd(_FastFrontEnd, Wav2Vec2FeatureEncoder):
    """wav2vec 2.0's front end."""


class MsfSerHubertFrontEnd(_FastFrontEnd, HubertFeatureEncoder):
    """HuBERT's front end."""


class MsfSerData2VecFrontEnd(_FastFrontEnd, Data2VecAudioFeatureEncoder):
    """data2vec's front end."""


class MsfSerUniSpeechFrontEnd(_FastFrontEnd, UniSpeechFeatureEncoder):
    """UniSpeech's front end."""


class MsfSerUniSpeechSatFrontEnd(_FastFrontEnd, UniSpeechSatFeatureEncoder):
    """UniSpeech-SAT's front end."""


class _FastPositions(nn.Module):
    """Mixed into a stock positional convolution, which normalizes and arranges its large weight in each call."""

    conv: Any
    padding: Any
    activation: Any

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch, frames, size)` -> the same in the precision of the weights, as the sum to which all layers add."""
        conv = self.conv
        known = parametrize.is_parametrized(conv, "weight") and getattr(self, "batch_norm", None) is None
        if not known or not is_fast(hidden_states, conv.bias):
            return super().forward(hidden_states)
        parameters = tuple(conv.parametrizations.weight.parameters())
        if wants_gradient(hidden_states, conv.bias, *parameters):
            positions = super().forward(hidden_states)
        else:
            precision = torch.bfloat16 if is_reduced(hidden_states, conv.bias) else torch.float32
            x = hidden_states.to(precision).transpose(1, 2)[:, :, None]
            padding, ones, groups = [0, conv.padding[0]], [1, 1], conv.groups

            def arranged(*_: torch.Tensor) -> torch.Tensor:
                image = conv.weight.to(precision)[:, :, None].contiguous().to_mkldnn()
                reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
                return reorder(image, padding, ones, ones, groups, list(x.shape))

            weight = packed(arranged, *parameters, precision=precision)
            bias = conv.bias.to(precision)
            convolve = torch.ops.mkldnn._convolution_pointwise
            x = convolve(x, weight, bias, padding, ones, ones, groups, "none", [], "")[:, :, 0]
            positions = self.activation(self.padding(x)).transpose(1, 2)
        return positions.to(conv.bias.dtype)


class MsfSerWavLMPositions(_FastPositions, WavLMPositionalConvEmbedding):
    """WavLM's positional convolution."""


class MsfSerWav2Vec2Positions(_FastPositions, Wav2Vec2PositionalConvEmbedding):
    """wav2vec 2.0's positional convolution."""


class MsfSerHubertPositions(_FastPositions, HubertPositionalConvEmbedding):
    """HuBERT's positional convolution."""


class MsfSerUniSpeechPositions(_FastPositions, UniSpeechPositionalConvEmbedding):
    """UniSpeech's positional convolution."""


class MsfSerUniSpeechSatPositions(_FastPositions, UniSpeechSatPositionalConvEmbedding):
    """UniSpeech-SAT's positional convolution."""


CONVOLUTIONS: dict[type, type] = {
    WavLMFeatureEncoder: MsfSerWavLMFrontEnd,
    Wav2Vec2FeatureEncoder: MsfSerWav2Vec2FrontEnd,
    HubertFeatureEncoder: MsfSerHubertFrontEnd,
    Data2VecAudioFeatureEncoder: MsfSerData2VecFrontEnd,
    UniSpeechFeatureEncoder: MsfSerUniSpeechFrontEnd,
    UniSpeechSatFeatureEncoder: MsfSerUniSpeechSatFrontEnd,
    WavLMPositionalConvEmbedding: MsfSerWavLMPositions,
    Wav2Vec2PositionalConvEmbedding: MsfSerWav2Vec2Positions,
    HubertPositionalConvEmbedding: MsfSerHubertPositions,
    UniSpeechPositionalConvEmbedding: MsfSerUniSpeechPositions,
    UniSpeechSatPositionalConvEmbedding: MsfSerUniSpeechSatPositions,
}
