"""Whether a sound is speech, by how its pitch, level and spectrum move: six measures and a quadratic score.

Speech differs from each other kind of sound in some measure, and no kind lies on one side of speech in all of them, so
the score also has the squares of the measures: it is high near the measures of speech. The measures were chosen so that
the score rejects kinds of sounds on which it was not fitted, each left out once; `benchmarks/no_speech.py` fits and
tests it, and `docs/predicting.md` has the rates.
"""

import numpy as np

# A part with fewer loud frames (of 32 ms) has no score.
_FEWEST_FRAMES = 6
# Octaves by which the pitch moves from frame to frame in speech: more is another note, less a held one.
_LEAST_MOVE, _MOST_MOVE = 0.006, 0.2
# Levels below this, dB under the loud frames, are all one.
_DEPTH = 40.0

# By benchmarks/no_speech.py --fit: mean and deviation of the measures over speech, weights of the measures and of their
# squares, and a constant, so that 1 % of the speech on which it was fitted has a score below 0.
_MEAN = np.array([0.735, 6.836, 10.774, 0.482, 1.370, 8.991])
_DEVIATION = np.array([0.160, 2.769, 4.064, 6.875, 0.457, 4.664])
_LINEAR = np.array([0.363, 0.349, 0.164, 0.478, 0.264, 0.373])
_SQUARE = np.array([-0.331, -0.599, -0.145, -0.295, -0.426, -0.550])
_CONSTANT = 5.659
# Measures so many deviations from those of speech are not told apart.
_FARTHEST = 4.0


def speech_measures(
    level: np.ndarray,
    octaves: np.ndarray,
    ratio: np.ndarray,
    flatness: np.ndarray,
    loud: np.ndarray,
    voiced: np.ndarray,
) -> np.ndarray | None:
    """The measures of a sound from those of its frames, `(frames,)` each.

    Args:
        level: In dB.
        octaves: Logarithm to the base 2 of the pitch.
        ratio: Upper against lower band, in dB.
        flatness: Geometric against arithmetic mean of the spectrum, in natural logarithms.
        loud: Whether the frame is not silent.
        voiced: Whether it is loud and has a pitch.

    Returns:
        `(6,)`: the share of voiced steps from frame to frame in which the pitch moves as in speech; the 0.9 quantile
        of the steps in level; the deviation and the 0.95 quantile of the ratio; the deviations of flatness and level.
        `None` if too few frames are loud.
    """
    if loud.sum() < _FEWEST_FRAMES:
        return None
    moves = np.abs(np.diff(octaves))[voiced[1:] & voiced[:-1]]
    steps = np.abs(np.diff(level))[loud[1:] & loud[:-1]]
    return np.array(
        [
            ((moves >= _LEAST_MOVE) & (moves < _MOST_MOVE)).mean() if len(moves) else 0.0,
            np.quantile(steps, 0.9) if len(steps) else 0.0,
            ratio[loud].std(),
            np.quantile(ratio[loud], 0.95),
            flatness[loud].std(),
            np.maximum(level, np.quantile(level, 0.95) - _DEPTH).std(),
        ]
    )


def speech_score(*of_frames: np.ndarray) -> float:
    """Above 0 if a sound is speech; the arguments are those of [`speech_measures`], without which it is `-inf`."""
    measures = speech_measures(*of_frames)
    return -np.inf if measures is None else score_of(measures)


def score_of(measures: np.ndarray) -> float:
    """The score of some measures, `(6,)`."""
    z = np.clip((measures - _MEAN) / _DEVIATION, -_FARTHEST, _FARTHEST)
    return float(_LINEAR @ z + _SQUARE @ z**2 + _CONSTANT)
