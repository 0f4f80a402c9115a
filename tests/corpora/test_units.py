"""The units of cross-validation: all rows of a corpus, with what is left out together."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from corpus_trees import write_emobank, write_iemocap, write_sound, write_table

from msfser.corpora.schema import FEATURES
from msfser.corpora.units import read_units


def fails(match, *args, **options):
    with pytest.raises(ValueError, match=match) as caught:
        read_units(*args, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.fixture
def folder(tmp_path):
    return write_table(tmp_path / "corpus")


def change(folder, **cells):
    with open(folder / "metadata.csv", newline="") as file:
        rows = [row | {name: value(i) for name, value in cells.items()} for i, row in enumerate(csv.DictReader(file))]
    with open(folder / "metadata.csv", "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def test_a_table_keeps_its_order_and_its_parts_do_not_matter(folder, caplog):
    plain = read_units("table", str(folder), "speaker")
    assert plain.column_names == [*FEATURES, "unit"] and plain["unit"][:] == [f"{k:02d}" for k in range(9)]
    assert not [record for record in caplog.records if "pooled" in record.getMessage()]
    # A speaker in two parts, an unknown part and two names of one part are errors where parts are used.
    change(folder, split=lambda i: ("test", "dev", "eval", "whatever")[i % 4], speaker=lambda i: str(i // 2))
    with caplog.at_level("INFO"):
        pooled = read_units("table", str(folder), "speaker", audio_folder=str(folder))
    assert "its parts are pooled for cross-validation" in caplog.text
    assert pooled["unit"][:] == [str(i // 2) for i in range(9)]
    assert [audio["path"] for audio in pooled["audio"]] == [audio["path"] for audio in plain["audio"]]


def test_labels_are_scaled_and_columns_renamed(folder):
    change(folder, valence=lambda i: str(i - 4), actor=lambda i: f"a{i}")
    rows = read_units("table", str(folder), "speaker", label_range=(-4, 4), columns={"speaker": "actor"})
    assert rows["unit"][:] == rows["speaker"][:] == [f"a{i}" for i in range(9)]
    assert rows["valence"][:] == pytest.approx([i / 8 for i in range(9)])


def test_speakers_may_be_in_the_names_of_the_recordings(folder):
    change(folder, speaker=lambda i: "nobody", room=lambda i: f"r{i % 2}")
    names = [Path(audio["path"]).stem for audio in read_units("table", str(folder), "room")["audio"]]
    rows = read_units("table", str(folder), "speaker", speaker_from=r"(\w+)\.wav")
    assert rows["unit"][:] == rows["speaker"][:] == names and len({*names}) == 9
    rows = read_units("table", str(folder), "room", speaker_from=r"(\w+)\.wav")
    assert rows["unit"][:] == [f"r{i % 2}" for i in range(9)] and rows["speaker"][:] == names


def test_any_column_that_the_schema_does_not_have_is_a_grouping(folder):
    assert read_units("table", str(folder), "room")["unit"][:] == [str(k) for k in range(9)]
    fails(
        r"no column 'transcript' to cross-validate over; there are speaker, room\.", "table", str(folder), "transcript"
    )
    fails("no column 'session'", "table", str(folder), "session")
    change(folder, room=lambda i: " " if i == 4 else "x")
    fails(r"line 6 has no room \(1 such\)", "table", str(folder), "room")


def test_numbers_and_yes_or_no_are_groupings_too(folder):
    table = pa.Table.from_pylist(
        [
            {"audio": f"{k}.wav", "session": k // 3, "loud": k > 4, "box": [k], "valence": 0.5, "arousal": 0.5}
            | {"dominance": 0.5}
            for k in range(9)
        ]
    )
    pyarrow.parquet.write_table(table, folder / "rows.parquet")
    source = str(folder / "rows.parquet")
    assert read_units("table", source, "session")["unit"][:] == [str(k // 3) for k in range(9)]
    assert read_units("table", source, "loud")["unit"][:] == ["false"] * 5 + ["true"] * 4
    fails("the column 'box' holds no text", "table", source, "box")


def test_a_group_may_have_the_name_of_a_unit(folder, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("unit;group\n01;00\n02;pair\n03;pair\n")
    found = read_units("table", str(folder), "speaker", group_file=groups)["unit"][:]
    assert found == ["00", "00", "pair", "pair", "04", "05", "06", "07", "08"]


def test_spaces_around_units_and_groups_are_no_part_of_them(folder, tmp_path):
    change(folder, room=lambda i: ("a", "a ", " b")[i % 3])
    groups = tmp_path / "groups.csv"
    groups.write_text("unit,group\n a,both\nb ,both \n")
    assert {*read_units("table", str(folder), "room")["unit"]} == {"a", "b"}
    assert {*read_units("table", str(folder), "room", group_file=groups)["unit"]} == {"both"}


def test_a_recording_in_two_units_is_refused_unless_they_are_grouped(folder, tmp_path):
    write_sound(folder / "7.wav", 2 / 64)
    change(folder)
    fails(
        r"1 recording is in more than one unit, such as .*2\.wav' \(02\), .*7\.wav' \(07\)",
        "table",
        str(folder),
        "speaker",
    )
    groups = tmp_path / "groups.csv"
    groups.write_text("unit,group\n02,one\n07,one\n")
    assert len(read_units("table", str(folder), "speaker", group_file=groups)) == 9


def test_iemocap_has_sessions(tmp_path):
    folder = str(write_iemocap(tmp_path / "corpus"))
    rows = read_units("iemocap", folder, "session")
    assert {*rows["unit"]} == {f"Ses0{n}" for n in range(1, 6)} and len(rows) == 5 * 8
    assert all(speaker.startswith(unit) for speaker, unit in zip(rows["speaker"], rows["unit"], strict=True))
    assert len({*read_units("iemocap", folder, "speaker")["unit"]}) == 10
    fails("the corpus iemocap can be cross-validated over speaker or session, not room", "iemocap", folder, "room")


def test_a_recording_of_two_speakers_of_a_named_corpus_is_refused_but_its_sessions_are_its_owners(tmp_path, caplog):
    folder = write_iemocap(tmp_path / "corpus")
    recordings = sorted(folder.glob("Session*/sentences/wav/*/Ses*.wav"))
    first, last = recordings[0], recordings[-1]
    last.write_bytes(first.read_bytes())
    words = rf"1 recording is in more than one unit, such as .*{last.name}' \(Ses05M\), .*{first.name}' \(Ses01F\)"
    fails(rf"{words}; keep each recording in one unit, or .* --group_file", "iemocap", str(folder), "speaker")
    assert "more than one unit" not in caplog.text
    assert len(read_units("iemocap", str(folder), "session")) == 5 * 8
    assert "1 recording is in more than one unit" in caplog.text and "stay as they are" in caplog.text
    names = {*read_units("iemocap", str(write_iemocap(tmp_path / "other")), "speaker")["unit"]}
    groups = tmp_path / "groups.csv"
    groups.write_text("unit,group\n" + "".join(f"{name},one\n" for name in names if name[:5] in ("Ses01", "Ses05")))
    assert len({*read_units("iemocap", str(folder), "speaker", group_file=groups)["unit"]}) == 7


def test_a_corpus_without_speakers_says_so(tmp_path):
    fails(r"row 1 has no speaker \(9 such\)", "emobank", str(write_emobank(tmp_path / "corpus")), "speaker")
