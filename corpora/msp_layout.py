"""Where the files of MSP-Podcast are: its releases, and unzipped copies of them, call and nest them differently.

| what           | names                                                                                        |
|----------------|----------------------------------------------------------------------------------------------|
| labels         | `labels_consensus.csv`; `labels_concensus.csv` in releases 1.6 to 1.8                        |
| recordings     | `Audios`; `Audio` in older releases; `Test3` where the challenge's test set is apart         |
| transcripts    | `Transcripts`                                                                                |
| word times     | `ForceAligned`                                                                               |
| parts          | the column `Split_Set`; `Partitions.txt`; a list `Test3*.txt` or `Test3*.csv` of names       |
| Development    | also "Validation", in releases 1.6 to 1.8                                                    |

Each may be some folders deeper, as in `Labels/Labels`; so may the recordings be, in folders of `Audios`.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from . import tree
from .sources import read_csv

logger = logging.getLogger(__name__)

_LABELS_FILES = ("labels_consensus.csv", "labels_concensus.csv")
_AUDIO = ("audios", "audio", "test3")
_TEXTS, _TIMES = "transcripts", "forcealigned"
_LEAVES = (*_AUDIO, _TEXTS, _TIMES)
_DEPTH = 3
_PARTS = {
    **{name.lower(): name for name in ("Train", "Development", "Test1", "Test2", "Test3")},
    "validation": "Development",
}
_LIST = re.compile(r"(test\d)(?!\d).*\.(txt|csv)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What of a corpus is there.

    Attributes:
        root: Its folder.
        labels: The table of labels; `None` without one.
        audio_name: What the folder of recordings is called.
        audio_folders: The folders with recordings, at least one if nothing is missing.
        recordings: The absolute path of each recording by its name, like all that follow.
        transcripts: Of each transcript.
        alignments: Of each TextGrid.
        lists: Files that name the recordings of parts.
        missing: The entries of a report of what every run needs.
    """

    root: Path
    labels: Path | None
    audio_name: str
    audio_folders: list[Path]
    recordings: dict[str, str]
    transcripts: dict[str, str]
    alignments: dict[str, str]
    lists: list[Path]
    missing: list[str]

    def shown(self, path: Path) -> str:
        """Return a path from the root."""
        return os.path.relpath(path, self.root)


def find_layout(root: Path, audio_name: str, anywhere: bool = False) -> Layout:
    """Find the files of a corpus.

    Args:
        root: Its folder.
        audio_name: What messages call the folder of recordings that is not there.
        anywhere: Recordings may also be in other folders.
    """
    lists: list[Path] = []
    leaves: dict[str, list[Path]] = {}
    for folder, folders, files in _walk(root, _DEPTH):
        lists += [folder / name for name in files if name.lower() == "partitions.txt" or _LIST.fullmatch(name)]
        for name in folders:
            if name.lower() in _LEAVES:
                leaves.setdefault(name.lower(), []).append(folder / name)
    audio = [folder for name in _AUDIO for folder in leaves.get(name, [])]
    labels = find_labels(root)
    missing = [] if labels else [f"the file Labels/{_LABELS_FILES[0]}"]
    if not audio and anywhere:
        audio = [root]
    if not audio:
        missing.append(f"the folder {audio_name}")
    return Layout(
        root,
        labels,
        audio[0].name if audio else audio_name,
        audio,
        _files_by_name(audio),
        _files_by_name(leaves.get(_TEXTS, [])),
        _files_by_name(leaves.get(_TIMES, [])),
        lists,
        missing,
    )


def find_labels(root: Path) -> Path | None:
    """Return the table of labels of a corpus."""
    for folder, _, files in _walk(root, _DEPTH):
        if found := [folder / name for name in files if name.lower() in _LABELS_FILES]:
            return found[0]
    return None


def _walk(root: Path, depth: int) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk the folders of a corpus from the top, but not those with a file for each utterance."""
    with os.scandir(root) as entries:
        found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    folders = [name for name, is_folder in found if is_folder]
    yield root, folders, [name for name, is_folder in found if not is_folder]
    for name in folders:
        if depth and name.lower() not in _LEAVES:
            yield from _walk(root / name, depth - 1)


def _files_by_name(folders: Sequence[Path]) -> dict[str, str]:
    """Return the absolute path of each file in folders at any depth by its name, without hidden files."""
    found: dict[str, str] = {}
    for folder in folders:
        for parent, inner, names in os.walk(folder):
            inner.sort()
            start = os.path.abspath(parent)
            found |= {n: os.path.join(start, n) for n in names if not n.startswith(".") and n not in found}
    return found


def find_rows(
    layout: Layout, attributes: Sequence[str], missing: list[str], split: str = "Split_Set"
) -> tuple[pa.Table | None, dict[str, tuple[int, int]]]:
    """Read the table of labels, and the lists of parts, whose recordings have no labels.

    Args:
        layout: Where they are.
        attributes: Its columns of labels.
        missing: The report, to which missing columns are added.
        split: The column of parts; "" where there are none.

    Returns:
        Rows of text with the columns FileName, SpkrID, Split_Set and the attributes, the parts called as in the newest
        release; `None` where the table or a column is missing. The number of rows of each part, and of those with
        labels.

    Raises:
        ValueError: A file is not readable, or a part is of another name.
    """
    if layout.labels is None:
        return None, {}
    table = read_csv(layout.labels)
    columns = ["FileName", *attributes, "SpkrID", *([split] if split else [])]
    if absent := [name for name in columns if name not in table.column_names]:
        missing.append(f"the columns {', '.join(absent)} of {layout.shown(layout.labels)}")
        return None, {}
    rows = table.select(columns)
    if not split:
        return rows.append_column("Split_Set", pa.repeat("", len(rows))), {}
    given = rows[split].to_pylist()
    parts = []
    for index, name in enumerate(given):
        if name.strip().lower() not in _PARTS:
            raise ValueError(
                f"{layout.labels}, {rows['FileName'][index].as_py()}: the {split} is {name!r}, which is none of "
                f"{', '.join(dict.fromkeys(_PARTS.values()))}; copy the file again."
            )
        parts.append(_PARTS[name.strip().lower()])
    rows = rows.set_column(rows.column_names.index(split), split, pa.array(parts, pa.string()))
    rows = _with_listed(layout, rows)
    blank = pc.equal(pc.utf8_trim_whitespace(rows[attributes[0]]), "").to_numpy()
    counts: dict[str, tuple[int, int]] = {}
    for part, is_blank in zip(rows[split].to_pylist(), blank, strict=True):
        count, labeled = counts.get(part, (0, 0))
        counts[part] = count + 1, labeled + (not is_blank)
    return rows, {part: counts[part] for part in dict.fromkeys(_PARTS.values()) if part in counts}


def _with_listed(layout: Layout, rows: pa.Table) -> pa.Table:
    """Add the recordings that only a list names: those of a test set whose labels are not public."""
    known = set(rows["FileName"].to_pylist())
    parts = set(rows["Split_Set"].to_pylist())
    found: dict[str, str] = {}
    for path in layout.lists:
        match = _LIST.fullmatch(path.name)
        for line in tree.read_text(path).splitlines():
            cells = [cell.strip().strip('"') for cell in re.split(r"[;,\t]", line)]
            part = match[1].capitalize() if match else _PARTS.get(cells[0].lower(), "")
            name = next((cell for cell in cells if cell.lower().endswith(".wav")), "")
            if name and part and part not in parts and name not in known:
                found.setdefault(os.path.basename(name), part)
    if not found and "Test3" not in parts:
        # Without a list, the folder or the names say it.
        inner = {
            name: path
            for name, path in layout.recordings.items()
            if "test3" in os.path.relpath(path, layout.root).lower()
        }
        found = dict.fromkeys((name for name in sorted(inner) if name not in known), "Test3")
    if not found:
        return rows
    blank = {name: pa.repeat("", len(found)) for name in rows.column_names}
    blank |= {"FileName": pa.array(list(found)), "Split_Set": pa.array(list(found.values()))}
    return pa.concat_tables([rows, pa.table(blank)])
