"""The common tests of transformers for feature extractors, with waveforms and with log-mel frames."""

import unittest
from typing import Any, ClassVar

import numpy as np
import pytest
from library_tests import library_tests

from msfser import MsfSerFeatureExtractor

common = library_tests("test_sequence_feature_extraction_common")
pytestmark = pytest.mark.common


class ExtractorTester:
    """Settings and inputs, under the names that the common tests use."""

    batch_size = 7
    min_seq_length = 400
    max_seq_length = 2000
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)

    def __init__(self, settings: dict[str, Any]):
        self.settings = settings
        self.feature_size = settings["feature_size"]

    def prepare_feat_extract_dict(self) -> dict[str, Any]:
        return dict(self.settings)

    def prepare_inputs_for_common(self, equal_length: bool = False, numpify: bool = False) -> list[Any]:
        lengths = range(self.min_seq_length, self.max_seq_length, self.seq_length_diff)
        generator = np.random.default_rng(0)
        size = (self.feature_size,) if self.feature_size > 1 else ()
        inputs = [
            generator.random((self.max_seq_length if equal_length else length, *size)).astype(np.float32)
            for length in lengths
        ]
        return inputs if numpify else [item.tolist() for item in inputs]


class WaveformTest(common.SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = MsfSerFeatureExtractor
    settings: ClassVar = {"kind": "waveform", "feature_size": 1, "sampling_rate": 16_000, "padding_value": 0.0}

    def setUp(self):
        self.feat_extract_tester = ExtractorTester(self.settings)


class LogMelTest(WaveformTest):
    settings: ClassVar = {"kind": "log_mel", "feature_size": 10, "sampling_rate": 16_000, "padding_value": 0.0}
