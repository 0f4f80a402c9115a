"""How corpora of acted emotions name their clips, and under which license their publishers give them away."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .licenses import RESEARCH_ONLY


class Clip(NamedTuple):
    """What the name of a clip says.

    Args:
        speaker: Unique within the corpus.
        emotion: A key of `weak_labels.NORMS`.
        sentence: The same for the same words.
        intensity: "normal" or "strong"; `None` where the name does not tell.
    """

    speaker: str
    emotion: str
    sentence: str
    intensity: str | None = None


@dataclass(frozen=True)
class Layout:
    """The names of one corpus.

    Args:
        title: The corpus in messages.
        license: Of the corpus, a key of `licenses.LICENSES`.
        example: A file of it.
        pattern: It matches the names of its clips, without suffix, and no name of another layout.
        read: It takes the named groups of the pattern.
        spelling: Gives a name the letter case of the corpus, which a copy may have lost.
    """

    title: str
    license: str
    example: str
    pattern: re.Pattern[str]
    read: Callable[..., Clip]
    spelling: Callable[[str], str] = str

    def clip(self, name: str) -> Clip | None:
        """Return what a name without suffix says, in any letter case; `None` if it is no name of this corpus."""
        match = self.pattern.fullmatch(self.spelling(name))
        return self.read(**match.groupdict()) if match else None


_RAVDESS_EMOTIONS = ("neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
_EMODB_EMOTIONS = dict(
    zip("WLEAFTN", ("anger", "boredom", "disgust", "fear", "happiness", "sadness", "neutral"), strict=True)
)
_CREMA_D_EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
_CREMA_D_INTENSITIES = {"LO": "normal", "MD": "normal", "HI": "strong"}
_EMOTIONTTS_KR_EMOTIONS = ("neutral", "happiness", "sadness", "anger")
_EMOTIONTTS_KR_SAME_SPEAKER = {"nea": "ema", "neb": "emb"}


def _ravdess(emotion: str, intensity: str, sentence: str, speaker: str) -> Clip:
    """Speech, emotion, intensity, sentence with repetition, actor."""
    return Clip(speaker, _RAVDESS_EMOTIONS[int(emotion) - 1], sentence, ("normal", "strong")[int(intensity) - 1])


def _emodb(speaker: str, sentence: str, emotion: str) -> Clip:
    """Speaker, sentence, emotion, version. The license is that of audEERING's publication."""
    return Clip(speaker, _EMODB_EMOTIONS[emotion], sentence)


def _crema_d(speaker: str, sentence: str, emotion: str, intensity: str) -> Clip:
    """Actor, sentence, emotion, level.

    Of the three levels, high (HI) is "strong"; low (LO) and medium (MD) are both "normal", as there is no third step.
    Most clips have an unspecified level (XX, once X), which is `None`. The distributed folders AudioWAV and AudioMP3
    hold the same clips.
    """
    return Clip(speaker, _CREMA_D_EMOTIONS[emotion], sentence, _CREMA_D_INTENSITIES.get(intensity))


def _nemo(speaker: str, emotion: str, sentence: str) -> Clip:
    """Speaker, emotion, sentence."""
    return Clip(speaker, "surprise" if emotion == "surprised" else emotion, sentence)


def _emotiontts_kr(speaker: str, number: str) -> Clip:
    """Script and speaker, number. "For research only" is what its makers add to the license.

    Each emotion has a hundred numbers. The makers' README calls 201-300 anger and 301-400 sadness, but the texts and
    the voices say that it is the other way round.

    In the plain script (em), a sentence has the same place in the hundred of each emotion; in the emotional one (ne),
    each emotion has sentences of its own. Equal letters in both (ema and nea, emb and neb) may be one person each, and
    count as one, so that nobody is both trained on and tested.
    """
    hundred, place = divmod(int(number) - 1, 100)
    sentence = f"plain-{place + 1:03d}" if speaker.startswith("em") else f"emotional-{number}"
    return Clip(_EMOTIONTTS_KR_SAME_SPEAKER.get(speaker, speaker), _EMOTIONTTS_KR_EMOTIONS[hundred], sentence)


# By the name of the corpus, in the order of the rows.
LAYOUTS: dict[str, Layout] = {
    "ravdess": Layout(
        "RAVDESS speech",
        "cc-by-nc-sa-4.0",
        "03-01-05-02-01-01-01.wav",
        re.compile(r"03-01-0(?P<emotion>[1-8])-0(?P<intensity>[12])-(?P<sentence>0[12]-0[12])-(?P<speaker>\d\d)"),
        _ravdess,
    ),
    "emodb": Layout(
        "EmoDB",
        "cc0-1.0",
        "03a01Wa.wav",
        re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[WLEAFTN])[a-z]"),
        _emodb,
        lambda name: name[:5].lower() + name[5:6].upper() + name[6:].lower(),
    ),
    "crema_d": Layout(
        "CREMA-D",
        "odbl",
        "1001_DFA_ANG_XX.wav",
        re.compile(
            r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(?P<intensity>LO|MD|HI|XX?)"
        ),
        _crema_d,
        str.upper,
    ),
    "nemo": Layout(
        "nEMO",
        "cc-by-nc-sa-4.0",
        "EB0_anger_1.wav",
        re.compile(
            r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>anger|fear|happiness|neutral|sadness|surprised)_(?P<sentence>\d+)"
        ),
        _nemo,
        lambda name: name[:3].upper() + name[3:].lower(),
    ),
    "emotiontts_kr": Layout(
        "emotiontts_kr",
        RESEARCH_ONLY,
        "ema00001.wav",
        re.compile(r"(?P<speaker>em[abfgh]|ne[a-ek-o])00(?!000)(?P<number>[0-3]\d\d|400)"),
        _emotiontts_kr,
        str.lower,
    ),
}
