"""Languages by code or name, and whether a model reads them.

Also whether speech that an English recognizer transcribed was really English.
"""

import re
from collections.abc import Sequence

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

# Fitted by `benchmarks/english.py`.
ENTROPY_WEIGHT = 0.231
LEAST_CERTAINTY = -1.052


def is_surely_english(log_probability: float, entropy: float) -> bool:
    """Whether a text by an English recognizer is that of English speech: in other languages it is unsure.

    Args:
        log_probability: Mean natural log probability of the tokens and the end.
        entropy: Median over the tokens and the end of the entropy of what the decoder expected there, in nats.
    """
    return log_probability - ENTROPY_WEIGHT * entropy > LEAST_CERTAINTY


def language_code(language: str | None) -> str | None:
    """Whisper's code of a language, given a code ("de", "en-US") or an English name ("german"); `None` stays `None`.

    Raises:
        ValueError: Whisper knows no such language.
    """
    if language is None:
        return None
    name = language.lower()
    code = TO_LANGUAGE_CODE.get(name, re.split("[-_]", name)[0])
    if code not in LANGUAGES:
        raise ValueError(
            f"language={language!r} is not a language that Whisper knows: give a code such as 'en' or 'de'."
        )
    return code


def why_not_read(language: str | None, text_languages: Sequence[str] | None) -> str | None:
    """Why words in a language are left out, such as "in Korean, and the model reads only English".

    Args:
        language: That is stated, as in [`language_code`], or `None`.
        text_languages: The codes of those that the model reads; `None` for any.

    Returns:
        The reason; `None` where they are read, as they are if no language is stated.

    Raises:
        ValueError: Whisper knows no such language.
    """
    if text_languages is None or (code := language_code(language)) is None or code in text_languages:
        return None
    names = " and ".join(LANGUAGES[known].title() for known in text_languages)
    return f"in {LANGUAGES[code].title()}, and the model reads only {names}"
