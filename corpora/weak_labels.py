"""Weak labels of acted emotions: each emotion category is mapped to its published norm of valence, arousal, dominance.

They are averages over ratings of emotion *words*, not of the clips. They serve to run and to compare training on real
speech; a result against them is called "weak" wherever it is reported.

Sources: the mean ratings of emotion words by J. A. Russell and A. Mehrabian, "Evidence for a three-factor theory of
emotions", Journal of Research in Personality 11 (1977), their "joyful" for happiness; "calm" from J. A. Russell, "A
circumplex model of affect", Journal of Personality and Social Psychology 39 (1980), which has no dominance. Neutral is
the center by definition.
"""

# Valence, arousal, dominance in -1..1.
NORMS: dict[str, tuple[float, float, float]] = {
    "anger": (-0.51, 0.59, 0.25),
    "boredom": (-0.65, -0.62, -0.33),
    "calm": (0.56, -0.31, 0.0),
    "disgust": (-0.60, 0.35, 0.11),
    "fear": (-0.64, 0.60, -0.43),
    "happiness": (0.76, 0.48, 0.35),
    "neutral": (0.0, 0.0, 0.0),
    "sadness": (-0.63, -0.27, -0.33),
    "surprise": (0.40, 0.67, -0.13),
}
LABEL_RANGE: tuple[float, float] = (-1.0, 1.0)

# Clips of normal intensity are scaled by this: a convention, not a measurement.
NORMAL_INTENSITY = 0.6


def weak_labels(emotion: str, intensity: str | None = None) -> tuple[float, float, float]:
    """Return the weak labels of one clip: valence, arousal, dominance in -1..1.

    Args:
        emotion: A key of `NORMS`.
        intensity: "normal" or "strong" where the corpus has two; `None` counts as strong.
    """
    scale = NORMAL_INTENSITY if intensity == "normal" else 1.0
    valence, arousal, dominance = NORMS[emotion]
    return scale * valence, scale * arousal, scale * dominance
