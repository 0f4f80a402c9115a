"""Writes LICENCES.md, the licence of each package in constraints.txt, from the metadata of what is installed.

python licences.py
"""

import importlib.metadata
import re
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).parent
PAGE = ROOT / "LICENCES.md"
HEAD = """# Licences of the dependencies

Of each package in `constraints.txt`, as its own metadata say; made by `python licences.py`. Which of them are needed
depends on the extras (`pyproject.toml`): the model itself needs torch, transformers, huggingface_hub, numpy,
safetensors, soundfile and soxr.

| package | licence |
|---|---|
"""
# Where a classifier contradicts the licence's text.
CORRECTED = {"opensmile": "audEERING Research License Agreement (no commercial use)"}
# Where the metadata say nothing.
UNSTATED = {"espeakng-loader": "GPL-3.0-or-later (of espeak-ng, which it carries)"}


def packages() -> list[str]:
    """The names in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0] for line in lines if "==" in line and not line.startswith("#")]


def licence(package: str) -> str:
    """What the metadata of an installed package say: an expression, else a short text, else a classifier.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed.
        ValueError: They say nothing.
    """
    metadata: Message = importlib.metadata.metadata(package)  # type: ignore[assignment]
    stated = (metadata["License-Expression"] or metadata["License"] or "").strip()
    if not stated or len(stated) > 100 or stated == "UNKNOWN":
        classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier", []) if c.startswith("License")]
        stated = ", ".join(classifiers)
    stated = CORRECTED.get(package) or stated or UNSTATED.get(package, "")
    if not stated:
        raise ValueError(f"{package} does not state its licence: look it up and add it to UNSTATED.")
    return re.sub(r"\s+", " ", stated)


def rows(page: str) -> dict[str, str]:
    """Package to licence, of a written page."""
    return dict(re.findall(r"^\| (\S+) \| (.+) \|$", page, re.MULTILINE)[1:])


def main() -> None:
    """Writes the page; packages of other systems keep their row."""
    known = rows(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else {}
    lines = []
    for package in packages():
        try:
            known[package] = licence(package)
        except importlib.metadata.PackageNotFoundError:
            if package not in known:
                raise SystemExit(
                    f"{package} is not installed, so that its licence is not known: install it."
                ) from None
        lines.append(f"| {package} | {known[package]} |")
    PAGE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
