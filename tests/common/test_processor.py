"""The common tests of transformers for processors, with waveforms and with log-mel frames."""

import unittest

import pytest
from library_tests import library_tests
from tiny import tiny_processor, tiny_tokenizer

from msfser import MsfSerFeatureExtractor, MsfSerProcessor

common = library_tests("test_processing_common")
pytestmark = pytest.mark.common


class WaveformTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = MsfSerProcessor
    text_input_name = "gs_input_ids"
    audio_input_name = "input_values"
    encoder = "wavlm"

    @classmethod
    def _setup_feature_extractor(cls) -> MsfSerFeatureExtractor:
        return tiny_processor(cls.encoder).feature_extractor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()

    @classmethod
    def prepare_processor_dict(cls):
        return {"max_tokens": 32}


class LogMelTest(WaveformTest):
    audio_input_name = "input_features"
    encoder = "whisper"
