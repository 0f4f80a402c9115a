"""Small copies of the corpora of the registry, each with labels at both ends of its scale."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from msfser.corpora.probe.corpus import make_probe

RATE = 16_000


def write_sound(path: Path, value: float = 0.0, samples: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, value, np.float32), RATE)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_table(folder: Path) -> Path:
    """Nine speakers with one clip each; the reader makes the parts."""
    rows = []
    for k in range(9):
        write_sound(folder / f"{k}.wav", k / 64)
        row = {"audio": f"{k}.wav", "transcript": f"line {k}", "speaker": f"{k:02d}", "room": k}
        rows.append(row | {"valence": k / 8, "arousal": 0.5, "dominance": 1.0})
    write_csv(folder / "metadata.csv", rows)
    return folder


def msp_podcast_labels() -> list[dict[str, str]]:
    """Two utterances of each set: the first has a known speaker, the second has not."""
    rows: list[dict[str, str]] = []
    for split in ("Train", "Train", "Development", "Test1", "Test2", "Test3"):
        for number in range(2):
            row = {"FileName": f"MSP-PODCAST_{len(rows):04d}_0008.wav", "EmoClass": "N"}
            act, val, dom = ("", "", "") if split == "Test3" else (f"{1 + number}.0", f"{4 - number}", "7")
            row |= {"EmoAct": act, "EmoVal": val, "EmoDom": dom}
            speaker = "Unknown" if number else f"{len(rows)}"
            rows.append(row | {"SpkrID": speaker, "Gender": "Male", "Split_Set": split})
    return rows


def write_msp_podcast_labels(folder: Path, rows: list[dict[str, str]]) -> None:
    write_csv(folder / "Labels" / "labels_consensus.csv", rows)


def write_msp_podcast(folder: Path) -> Path:
    rows = msp_podcast_labels()
    write_msp_podcast_labels(folder, rows)
    (folder / "Transcripts").mkdir()
    for k, row in enumerate(rows):
        write_sound(folder / "Audios" / row["FileName"], k / 64)
        (folder / "Transcripts" / row["FileName"].replace(".wav", ".txt")).write_text(f"line {k}\n")
    return folder


def write_whiser(folder: Path) -> Path:
    """Six clips with ratings at both ends of the scale, no speakers and no parts."""
    rows = []
    for k in range(6):
        write_sound(folder / "wavs" / f"whiser_{k}.wav", k / 64)
        row = {"FileName": f"whiser_{k}.wav", "EmoClass": "N", "EmoAct": str(1 + k), "EmoVal": "4.5", "EmoDom": "7"}
        rows.append(row | {"SpkrID": "Unknown", "Gender": "Unknown", "Split_Set": "NA"})
    write_csv(folder / "Labels" / "labels_consensus.csv", rows)
    return folder


def iemocap_utterances(session: int) -> list[tuple[str, str, str]]:
    """Dialogs, names and labels of a session: two dialogs, in which both speakers say something twice."""
    found = []
    for dialog in (f"Ses{session:02d}F_impro01", f"Ses{session:02d}M_script01_1b"):
        for number in range(2):
            for sex in "FM":
                labels = f"[{1 + number}.0000, 3.0000, {session}.0000]"
                found.append((dialog, f"{dialog}_{sex}{number:03d}", labels))
    return found


def write_iemocap(folder: Path) -> Path:
    ratings = "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n"
    for session in range(1, 6):
        root = folder / f"Session{session}"
        labels, texts = root / "dialog" / "EmoEvaluation", root / "dialog" / "transcriptions"
        (labels / "Categorical").mkdir(parents=True)
        texts.mkdir()
        (labels / "Categorical" / f"Ses{session:02d}F_impro01_e2_cat.txt").write_text("not read\n")
        (labels / f"._Ses{session:02d}F_impro01.txt").write_bytes(b"\0\5\26\7")
        for number, (dialog, name, values) in enumerate(iemocap_utterances(session)):
            with open(labels / f"{dialog}.txt", "a") as file:
                if file.tell() == 0:
                    file.write("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n")
                file.write(f"[6.2901 - 8.2357]\t{name}\tneu\t{values}\n{ratings}\n")
            with open(texts / f"{dialog}.txt", "a") as file:
                file.write(f"{name} [006.2901-008.2357]: Excuse me.\nM: No name.\n{dialog}_FXX0 [1.0-2.0]: Hm.\n")
            write_sound(root / "sentences" / "wav" / dialog / f"{name}.wav", session / 8 + number / 128)
            (root / "sentences" / "wav" / dialog / f"._{name}.wav").write_bytes(b"\0\5\26\7")
    return folder


def write_emobank(folder: Path) -> Path:
    rows = [
        {"id": f"{split}_{k}", "split": split, "V": 1.0 + 2 * k, "A": 3.0, "D": 5.0 - k, "text": f"{split} {k}"}
        for split in ("train", "dev", "test")
        for k in range(3)
    ]
    write_csv(folder / "corpus" / "emobank.csv", rows)
    return folder


# By the key of the registry.
TREES: dict[str, Callable[[Path], Path]] = {
    "table": write_table,
    "msp_podcast": write_msp_podcast,
    "whiser": write_whiser,
    "iemocap": write_iemocap,
    "emobank": write_emobank,
    "probe": make_probe,
}
