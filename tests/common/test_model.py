"""The common tests of transformers for models and configurations, with four models.

`SKIPPED` names what does not apply, with the reason.
"""

import unittest
from typing import Any, ClassVar

import pytest
import torch
from library_tests import library_tests
from tiny import AUDIO_CONFIGS, NO_DROPOUT, SMALL, TEXT_CONFIG

from msfser import MsfSerConfig, MsfSerModel

common = library_tests("test_modeling_common")
configuration = library_tests("test_configuration_common")
pytestmark = pytest.mark.common

_STATES = (
    "the output has the states of two encoders under names of their own, as ClapOutput; "
    "tests/test_conventions.py checks them"
)
# What does not apply to any of the four, by test.
SKIPPED = {
    "test_attention_outputs": _STATES,
    "test_hidden_states_output": _STATES,
    "test_retain_grad_hidden_states_attentions": _STATES,
}
WAVLM = {
    "test_training_gradient_checkpointing_use_reentrant_true": "backward of the library's WavLM does not end",
}
BERT_CONFIG = TEXT_CONFIG | {"model_type": "bert"}


class ModelTester:
    """Config and inputs of a tiny model, under the names that the common tests use."""

    batch_size = 3
    seq_length = 7
    hidden_size = SMALL["hidden_size"]
    num_hidden_layers = SMALL["num_hidden_layers"]
    num_attention_heads = SMALL["num_attention_heads"]
    is_training = True

    def __init__(self, **switches):
        self.switches = switches
        self.renamed: dict[str, str] = {}

    def get_config(self) -> MsfSerConfig:
        return MsfSerConfig(fusion_size=16, freeze_audio="none", freeze_text=False, **NO_DROPOUT | self.switches)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        torch.manual_seed(0)
        inputs = {}
        if config.audio:
            length = 120 if config.is_mel else 16_000
            shape = (self.batch_size, length, 20) if config.is_mel else (self.batch_size, length)
            inputs["input_features" if config.is_mel else "input_values"] = 0.1 * torch.randn(shape)
            inputs["attention_mask"] = torch.ones(shape[:2], dtype=torch.long)
        for name in config.semantics:
            shape = (self.batch_size, self.seq_length)
            inputs[f"{name}_input_ids"] = torch.randint(5, 40, shape)  # a smaller vocabulary has them, too
            inputs[f"{name}_attention_mask"] = torch.ones(shape, dtype=torch.long)
        return config, inputs | {name: inputs.pop(own_name) for name, own_name in self.renamed.items()}


class MsfSerClassification(MsfSerModel):
    """By this name, the tests that compare two attention implementations compare the logits."""


class MsfSerConfigTester(configuration.ConfigTester):
    """The common tests of the config, with three labels that do not change."""

    def create_and_test_config_with_num_labels(self):
        with self.parent.assertRaisesRegex(ValueError, "num_labels=5"):
            self.config_class(**self.inputs_dict, num_labels=5)


class MsfSerTests:
    """What the four variants have in common."""

    all_model_classes = (MsfSerModel,)
    additional_model_inputs = tuple(f"{name}_attention_mask" for name in ("les", "gs", "es"))
    _is_composite = True
    switches: ClassVar[dict[str, Any]] = {}
    skipped: ClassVar[dict[str, str]] = {}

    def setUp(self):
        for name, reason in (SKIPPED | self.skipped).items():
            if self._testMethodName == name:
                self.skipTest(reason)
        self.model_tester = ModelTester(**self.switches)
        if self._testMethodName.startswith("test_eager_matches_sdpa"):
            self.all_model_classes = (MsfSerClassification,)
        if self._testMethodName == "test_resize_tokens_embeddings":
            # The test changes ids under this name.
            self.model_tester.renamed = {"input_ids": "gs_input_ids"}

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        for name, own_name in self.model_tester.renamed.items():
            if name in inputs:
                inputs[own_name] = inputs.pop(name)
        if return_labels:
            inputs["labels"] = torch.linspace(0.1, 0.9, 9).view(3, 3)
        return inputs

    def test_config(self):
        switches = {name: value for name, value in self.switches.items() if not name.endswith("_config")}
        MsfSerConfigTester(
            self, config_class=MsfSerConfig, has_text_modality=False, fusion_size=16, **switches
        ).run_common_tests()


class WavLMRobertaTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio_config": AUDIO_CONFIGS["wavlm"], "text_config": TEXT_CONFIG}
    skipped: ClassVar = WAVLM


class WhisperBertTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio_config": AUDIO_CONFIGS["whisper"], "text_config": BERT_CONFIG}


class TextOnlyTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio": False, "text_config": TEXT_CONFIG}


class AudioOnlyTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio_config": AUDIO_CONFIGS["wavlm"], "semantics": [], "cross_fusion": "concat"}
    skipped: ClassVar = WAVLM | dict.fromkeys(
        ("test_model_get_set_embeddings", "test_resize_tokens_embeddings"),
        "a speech encoder has no token embeddings, as WavLMModel",
    )
