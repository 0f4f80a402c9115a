"""The control of the ablation, which draws words from a random position."""

import numpy as np

from msfser.training.random_emphasis import random_segment


def test_a_random_segment_lies_anywhere_and_is_as_long_as_asked():
    words = ["I", "never", "--", "said", "that,", "you", "know."]
    spoken = "I never said that you know"
    drawn = [random_segment(words, 3, np.random.default_rng(seed)) for seed in range(100)]
    assert set(drawn) == {"I never said", "never said that", "said that you", "that you know"}
    assert drawn == [random_segment(words, 3, np.random.default_rng(seed)) for seed in range(100)]
    assert min(map(drawn.count, set(drawn))) >= 12
    assert random_segment(words, 9, np.random.default_rng(0)) == spoken
    assert random_segment(["--"], 3, np.random.default_rng(0)) is None
