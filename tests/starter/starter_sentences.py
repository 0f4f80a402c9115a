"""A few sentences in the form of GoEmotions."""

from pathlib import Path


def write_sentences(folder: Path) -> None:
    rows = [
        f"the {part} food was {letter},{label},{part}"
        for part in ("train", "dev", "test")
        for letter, label in zip("abcdefgh", ("joy", "neutral", "anger", "neutral") * 2, strict=True)
    ]
    folder.mkdir(parents=True)
    (folder / "goemotions.csv").write_text("\n".join(["text,labels,split", *rows]))
