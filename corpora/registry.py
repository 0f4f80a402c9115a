"""The corpora that can be read, by name."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import datasets

from .emobank import read_emobank
from .iemocap import read_iemocap
from .msp_podcast import read_msp_podcast
from .probe.corpus import make_probe
from .table import read_table


@dataclass(frozen=True)
class Corpus:
    """A corpus and its reader."""

    name: str
    title: str
    read: Callable[..., datasets.DatasetDict]
    accepts: tuple[str, ...] = ()
    folds: int = 0
    license: str = "not stated"
    label_range: tuple[float, float] | None = None
    language: str | None = None
    synthetic: bool = False

    def check_options(self, given: Collection[str]) -> None:
        """Refuses options that the corpus decides itself."""
        refused = sorted({"label_range", "audio_folder", "columns", "allow_speaker_overlap"} & {*given} - {*self.accepts})
        if "fold" in given and not self.folds:
            raise ValueError(f"fold belongs to the corpus iemocap, not to {self.name}; leave it out.")
        if refused:
            raise ValueError(
                f"{', '.join(refused)}: the corpus {self.name} decides this; leave it out, or give --corpus table."
            )
        if self.folds and "fold" not in given:
            raise ValueError(f"the corpus {self.name} needs a fold to test on: --fold 1 (to {self.folds}).")


_TABLE = ("label_range", "audio_folder", "columns", "allow_speaker_overlap", "require_labels")
CORPORA = {
    corpus.name: corpus
    for corpus in (
        Corpus("table", "a custom table", read_table, _TABLE),
        Corpus("msp_podcast", "MSP-Podcast", read_msp_podcast),
        Corpus("iemocap", "IEMOCAP", read_iemocap, ("fold",), 5),
        Corpus("emobank", "EmoBank", read_emobank),
        Corpus("probe", "probe corpus", read_table, synthetic=True),
    )
}


def read_corpus(
    corpus,
    data,
    *,
    fold=None,
    label_range=(0.0, 1.0),
    columns=None,
    audio_folder=None,
    allow_speaker_overlap=False,
    require_labels=True,
) -> datasets.DatasetDict:
    """The parts of a corpus in the schema."""
    entry, given = CORPORA[corpus], locals()
    data = make_probe("data/probe") if data == "probe" else data
    return entry.read(data, **{name: given[name] for name in entry.accepts})
