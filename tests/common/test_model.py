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
            inputs[f"{name}_input_ids"] = torch.randint(5, config.text_config.vocab_size, shape)
            inputs[f"{name}_attention_mask"] = torch.ones(shape, dtype=torch.long)
        return config, inputs


class MsfSerTests:
    """What the four variants have in common."""

    all_model_classes = (MsfSerModel,)
    _is_composite = True
    switches: ClassVar[dict[str, Any]] = {}

    def setUp(self):
        self.model_tester = ModelTester(**self.switches)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        if return_labels:
            inputs["labels"] = torch.linspace(0.1, 0.9, 9).view(3, 3)
        return inputs

    def test_config(self):
        tester = configuration.ConfigTester(self, config_class=MsfSerConfig, has_text_modality=False, **self.switches)
        tester.run_common_tests()


class WavLMRobertaTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio_config": AUDIO_CONFIGS["wavlm"], "text_config": TEXT_CONFIG}


class WhisperBertTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio_config": AUDIO_CONFIGS["whisper"], "text_config": BERT_CONFIG}


class TextOnlyTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio": False, "text_config": TEXT_CONFIG}


class AudioOnlyTest(MsfSerTests, common.ModelTesterMixin, unittest.TestCase):
    switches: ClassVar = {"audio_config": AUDIO_CONFIGS["wavlm"], "semantics": [], "cross_fusion": "concat"}
