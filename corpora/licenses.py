"""Licenses of corpora, and of the weights that are fitted to them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Its makers add "for research only", so that it is none of the Hub's.
RESEARCH_ONLY = "cc-by-nc-sa-4.0-research-only"
# What texts call a license, by its identifier: that of the Hub, where it has one.
LICENSES: Mapping[str, str] = {
    "cc0-1.0": "CC0 1.0",
    "cc-by-4.0": "CC BY 4.0",
    "odbl": "ODbL 1.0, its contents DbCL 1.0",
    "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0",
    RESEARCH_ONLY: "CC BY-NC-SA 4.0, for research only",
}
_RESEARCH, _NONCOMMERCIAL = "research", "-nc"
# Parts of identifiers, the strictest restriction first.
_RESTRICTIONS = (_RESEARCH, _NONCOMMERCIAL, "-nd", "-sa", "odbl", "by")


class License(NamedTuple):
    """The license of some weights.

    Attributes:
        id: A key of `LICENSES`, or what the card of a model states.
        sources: The corpora that have it; empty where they are not known.
    """

    id: str
    sources: tuple[str, ...] = ()

    @classmethod
    def of_config(cls, config: Any) -> "License | None":
        """Return the license that the config of a model has; `None` without one, as in older models."""
        license_id, sources = config.weights_license, config.weights_sources or ()
        return None if license_id is None else cls(license_id, tuple(sources))

    def add_to(self, config: Any) -> None:
        """Write the license into the config of a model."""
        config.weights_license, config.weights_sources = self.id, list(self.sources) or None

    @property
    def terms(self) -> str:
        """In words, such as "CC BY-NC-SA 4.0 (of RAVDESS speech and nEMO): not for commercial use"."""
        sources = f" (of {joined(self.sources)})" if self.sources else ""
        return f"{LICENSES.get(self.id, self.id)}{sources}{': not for commercial use' if self.noncommercial else ''}"

    @property
    def sentence(self) -> str:
        """A sentence for those who use the weights."""
        return f"The weights are licensed under {self.terms}."

    @property
    def noncommercial(self) -> bool:
        """Whether it excludes commercial use."""
        return any(part in self.id for part in (_RESEARCH, _NONCOMMERCIAL))

    @property
    def strictness(self) -> tuple[bool, ...]:
        """What sorts licenses from the freest to the strictest."""
        return tuple(part in self.id for part in _RESTRICTIONS)


def strictest(licenses: Mapping[str, str]) -> License:
    """Return the strictest of some licenses.

    Args:
        licenses: Identifiers by the name of the corpus; at least one.
    """
    found = max(map(License, licenses.values()), key=lambda license: license.strictness).id
    return License(found, tuple(name for name, license in licenses.items() if license == found))


def joined(names: tuple[str, ...]) -> str:
    """Return names as an enumeration, such as "A, B, and C"."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"
