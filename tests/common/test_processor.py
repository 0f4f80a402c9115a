"""The common tests of transformers for processors, with waveforms and with log-mel frames.

The processor has three named texts; the tests' `text` is the transcript. `SKIPPED` names what does not apply, with the
reason.
"""

import unittest
from typing import Any, ClassVar

import pytest
from library_tests import library_tests
from tiny import tiny_processor, tiny_tokenizer

from msfser import MsfSerFeatureExtractor, MsfSerProcessor

common = library_tests("test_processing_common")
pytestmark = pytest.mark.common

SKIPPED = {
    "test_call_arguments_default_none": "return_tensors is 'pt' by default, as the model needs; granite_speech fails, "
    "too (device)",
    "test_call_arguments_not_in_processor_kwargs": "sampling_rate and return_tensors are named arguments, for the "
    "signature to show them",
    "test_subprocessor_defaults_0_text": "the tensors of a text have its name: gs_attention_mask",
    "test_subprocessor_defaults_3_audio": "it calls the extractor with samples of no rate, which is an error here",
    "test_subprocessor_defaults_preserved_by_kwargs_2_audio": "max_tokens is the one limit of texts: tokenizers carry "
    "a max_length of another use, such as 128 in all-MiniLM-L6-v2",
    "test_model_input_names": "the names are of all three texts, and an absent text has no tensors",
}


class NamedTextProcessor(MsfSerProcessor):
    """The processor with the tests' argument `text` in place of `transcript`, and their rate."""

    def __call__(self, text: Any = None, audio: Any = None, **options: Any) -> Any:
        return super().__call__(audio, 16_000, transcript=text, **options)


class WaveformTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = NamedTextProcessor
    text_input_name = "gs_input_ids"
    audio_input_name = "input_values"
    encoder: ClassVar[str] = "wavlm"

    @classmethod
    def setUpClass(cls):
        # Only Hub code saves where its classes are, and no class of the library does.
        cls.auto_classes = {kind: kind._auto_class for kind in (MsfSerFeatureExtractor, NamedTextProcessor)}
        for kind in cls.auto_classes:
            kind._auto_class = None
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for kind, name in cls.auto_classes.items():
            kind._auto_class = name

    def setUp(self):
        if self._testMethodName in SKIPPED:
            self.skipTest(SKIPPED[self._testMethodName])

    @classmethod
    def _setup_feature_extractor(cls) -> MsfSerFeatureExtractor:
        return tiny_processor(cls.encoder).feature_extractor

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()

    @classmethod
    def prepare_processor_dict(cls) -> dict[str, Any]:
        return {"max_tokens": 32}


class LogMelTest(WaveformTest):
    audio_input_name = "input_features"
    encoder = "whisper"
