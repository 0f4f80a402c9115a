"""Whether a sound is speech, by how its pitch, level and spectrum move: six measures and a quadratic score.

Other sounds lie on all sides of speech, so the score also has the squares of the measures: it is high near those of
speech. The measures were chosen so that it rejects synthesized sounds of kinds on which it was not fitted, each left
out once. `benchmarks/no_speech.py` fits and tests it, and `docs/predicting.md` has the rates.
"""

import numpy as np

# A part with fewer loud frames (of 32 ms) has no score.
_FEWEST_FRAMES = 6
# Octaves by which the pitch moves from frame to frame in speech: more is another note, less a held note.
_LEAST_MOVE, _MOST_MOVE = 0.006, 0.2
# Levels below this, dB under the loud frames, are treated alike.
_DEPTH = 40.0

# By benchmarks/no_speech.py --fit: mean and deviation of the measures over speech, weights of the measures and of
# their squares, and a constant, so that 1 % of the speech on which it was fitted has a score below 0.
_MEAN = np.array([0.721, 8.137, 8.048, 4.079, 1.288, 10.427])
_DEVIATION = np.array([0.150, 3.262, 2.448, 4.683, 0.360, 4.544])
_LINEAR = np.array([0.379, 0.252, -0.020, 0.564, -0.069, 0.249])
_SQUARE = np.array([-0.354, -0.627, -0.190, -0.249, -0.342, -0.784])
_CONSTANT = 7.595
# Measures farther than so many deviations from those of speech are clipped.
_FARTHEST = 4.0


def speech_measures(
    level: np.ndarray,
    octaves: np.ndarray,
    tilt: np.ndarray,
    flatness: np.ndarray,
    loud: np.ndarray,
    voiced: np.ndarray,
) -> np.ndarray | None:
    """The measures of a sound from those of its frames, `(frames,)` each.

    Args:
        level: In dB.
        octaves: Logarithm to the base 2 of the pitch.
        tilt: Higher against lower band, in dB.
        flatness: Geometric against arithmetic mean of the spectrum, in natural logarithms.
        loud: Whether the frame is not silent.
        voiced: Whether it is loud and has a pitch.

    Returns:
        `(6,)`: the share of voiced steps from frame to frame in which the pitch moves as in speech; the 0.9 quantile
        of the steps in level; the deviation and the 0.95 quantile of the tilt; the deviations of flatness and level.
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
            tilt[loud].std(),
            np.quantile(tilt[loud], 0.95),
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
