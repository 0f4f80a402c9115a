"""What the fusion is made of: parts that its equations leave out while they are zero, or without autocast."""

import pytest
import torch
from tiny import tiny_config
from torch.overrides import TorchFunctionMode

from msfser.fusion_msfser import MsfSerAttentiveStatisticsPooling, MsfSerCrossModalFusion, MsfSerLayerMix

SIZES = {"audio": 12, "semantics": 10, "description": 8}


def cross_modal_fusion(**switches) -> MsfSerCrossModalFusion:
    return MsfSerCrossModalFusion(tiny_config(**switches), SIZES)


def test_only_routing_by_input_has_weights_of_the_input():
    assert cross_modal_fusion(cross_fusion="fm_moe", routing="static").routing.by_input is None
    by_input = cross_modal_fusion(cross_fusion="fm_moe", routing="input").routing.by_input
    assert by_input.weight.shape == (9, 3 * tiny_config().fusion_size)


def test_film_alone_has_an_expert_for_the_sound_alone():
    names = {kind: [*cross_modal_fusion(cross_fusion=kind).experts] for kind in ("film", "fm_moe", "concat")}
    assert names == {"film": ["audio"], "fm_moe": [*SIZES], "concat": [*SIZES]}


@pytest.mark.parametrize(("width", "heads"), [(16, 8), (12, 4), (6, 2), (7, 1)])
def test_attention_has_as_many_heads_as_divide_the_width(width, heads):
    fusion = cross_modal_fusion(cross_fusion="attention", fusion_size=width)
    assert fusion.attention.num_heads == heads


def test_autocast_leaves_mix_and_statistics_in_full_precision():
    torch.manual_seed(0)
    states, mask = torch.randn(2, 3, 20, 12), torch.ones(2, 20, dtype=torch.bool)
    mix, pooling = MsfSerLayerMix(3), MsfSerAttentiveStatisticsPooling(12)
    frames = mix(states)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mix(states), frames)
        pooled = pooling(frames, mask)
    assert pooled.dtype == torch.float32
    # The attention is in half precision, the sums are not.
    assert not torch.equal(pooled, pooled.bfloat16().float())


class RoundedProducts(TorchFunctionMode):
    """Matrix products of bfloat16 operands, of which a GPU's TF32 keeps three binary digits more."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            args = [one.bfloat16().float() for one in args]
        return func(*args, **(kwargs or {}))


def test_the_statistics_do_not_depend_on_the_digits_of_products():
    torch.manual_seed(0)
    pooling = MsfSerAttentiveStatisticsPooling(12)
    frames, mask = 10 + 0.05 * torch.randn(2, 20, 12), torch.ones(2, 20, dtype=torch.bool)
    mean, std = pooling(frames, mask).chunk(2, dim=-1)
    with RoundedProducts():
        rounded_mean, rounded_std = pooling(frames, mask).chunk(2, dim=-1)
    assert not torch.equal(mean, rounded_mean)  # the products were rounded
    torch.testing.assert_close(rounded_mean, mean, rtol=0.01, atol=0)
    torch.testing.assert_close(rounded_std, std, rtol=0.2, atol=0)


def test_gradients_of_the_statistics():
    torch.manual_seed(0)
    pooling = MsfSerAttentiveStatisticsPooling(12)
    frames, mask = torch.randn(2, 20, 12, requires_grad=True), torch.ones(2, 20, dtype=torch.bool)
    shares, factors = pooling.score(torch.tanh(pooling.hidden(frames))).softmax(1), torch.randn(24)
    mean = (shares * frames).sum(1)
    std = ((shares * frames.square()).sum(1) - mean.square()).sqrt()
    inputs = [frames, *pooling.parameters()]
    expected = torch.autograd.grad((torch.cat([mean, std], dim=-1) * factors).sum(), inputs)
    found = torch.autograd.grad((pooling(frames, mask) * factors).sum(), inputs)
    torch.testing.assert_close(found, expected)
