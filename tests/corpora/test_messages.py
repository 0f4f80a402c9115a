"""Tables as people save them, and messages that say where and how to correct them."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_table import fails, flat, make_rows, source_fails, with_splits, write_csv, write_jsonl

from msfser import LABELS
from msfser.corpora.columns import COLUMNS
from msfser.corpora.registry import read_corpus, read_source
from msfser.corpora.table import open_table, read_table


def as_text(rows, delimiter, change=str):
    """The rows as a spreadsheet saves them."""
    lines = [delimiter.join(rows[0])]
    lines += [
        delimiter.join(change(value) if name in LABELS else str(value) for name, value in row.items()) for row in rows
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.csv", "|")])
@pytest.mark.parametrize("has_mark", [False, True])
@pytest.mark.parametrize("has_commas", [False, True])
def test_a_table_of_a_spreadsheet(tmp_path, name, delimiter, has_mark, has_commas):
    rows = with_splits(make_rows(tmp_path))
    for i, row in enumerate(rows):
        row |= {"transcript": f"yes, {i}", "valence": round(0.3 + i / 64, 6), "arousal": 1}
    expected = flat(read_table(write_jsonl(tmp_path / "a.jsonl", rows)))
    text = as_text(rows, delimiter, lambda value: str(value).replace(".", ",") if has_commas else str(value))
    (tmp_path / name).write_text(text, encoding="utf-8-sig" if has_mark else "utf-8")
    assert flat(read_table(tmp_path / name)) == expected
    # What annotate passes on has points, which it can be read with.
    kept = open_table(tmp_path / name).table
    assert kept["valence"].to_pylist() == [str(row["valence"]) for row in rows]


@pytest.mark.parametrize("cell", ["0.5,1", "1,000.5", "0,5 ", "0,5,1", "a,5"])
def test_commas_are_decimal_only_where_all_numbers_have_them(tmp_path, cell):
    rows = with_splits(make_rows(tmp_path))
    path = tmp_path / "a.csv"
    path.write_text(as_text([row | {"valence": cell if i == 2 else "0,25"} for i, row in enumerate(rows)], ";"))
    if cell == "0,5 ":
        assert read_table(path)["train"]["valence"][:3] == [0.25, 0.25, 0.5]
    else:
        fails("line 4|line 2", path)
    # One number with a point: the comma may separate thousands.
    path.write_text(as_text([row | {"valence": "0,5" if i else "0.5"} for i, row in enumerate(rows)], ";"))
    fails("line 3: valence is '0,5', not a number", path)


def test_a_comma_in_a_name_of_a_column_separates_nothing(tmp_path):
    rows = [{"audio, mono": row.pop("audio")} | row for row in with_splits(make_rows(tmp_path))]
    (tmp_path / "a.csv").write_text(as_text(rows, ";"))
    assert read_table(tmp_path / "a.csv", columns={"audio": "audio, mono"})["test"].num_rows == 2


def test_lines_are_those_of_the_file(tmp_path):
    rows = [row | {"description": "x"} for row in with_splits(make_rows(tmp_path))]
    rows[1]["description"] = "two\nlines"
    rows[4]["valence"] = 7.0
    path = write_csv(tmp_path / "a.csv", rows)
    lines = path.read_text().split("\n")
    number = next(i for i, line in enumerate(lines, 1) if ",7.0," in line)
    assert number == 7
    fails(f"a.csv, line {number}: valence is '7.0', outside", path)
    # Blank lines are counted, but are no rows.
    lines[2:2] = ["", ""]
    path.write_text("\n".join(lines))
    fails(f"a.csv, line {number + 2}: valence is '7.0', outside", path)
    lines = [json.dumps(row) for row in rows]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*lines[:2], "", *lines[2:]]))
    fails("a.jsonl, line 6: valence is 7.0", path)
    path.write_text(json.dumps(rows, indent=1))
    fails("a.jsonl, row 5: valence is 7.0", path)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    fails("a.parquet, row 5: valence is 7.0", tmp_path / "a.parquet")


def test_a_line_with_too_few_cells_is_shown(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("audio,valence,arousal,dominance\na.wav,1,1,1\nb.wav,1\n")
    message = fails("Expected 4 columns, got 2: b.wav,1", path)
    assert "row" not in message.lower() or "#3" in message


def test_options_are_written_as_they_are_typed(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    path = write_csv(
        tmp_path / "a.csv", [{("val" if k == "valence" else k): v for k, v in row.items()} for row in rows]
    )
    fails("missing columns 'valence'; .* such as --columns valence=val\\.$", path)
    assert read_table(path, columns={"valence": "val"})["test"].num_rows == 2
    path = write_csv(tmp_path / "a.csv", [{k: v for k, v in row.items() if k != "valence"} for row in rows])
    fails("such as --columns valence=COLUMN\\.$", path)
    path = write_csv(tmp_path / "a.csv", [row | {"valence": 4} for row in rows])
    fails("outside the label_range 0 to 1; correct it, or give .* by --label_range .its values are .* to .*\\.$", path)
    fails("--label_range is 7 1; give two finite .* such as --label_range 1 7\\.$", path, label_range=(7, 1))
    fails("^--columns names \\['lang'\\], .* such as --columns valence=val\\.$", path, columns={"lang": "x"})
    path = write_csv(tmp_path / "a.csv", [row | {"speaker": "00"} for row in rows])
    fails("or accept it by --allow_speaker_overlap true\\.$", path)
    with pytest.raises(ValueError, match=r"^--columns, --label_range: the corpus emobank decides this"):
        read_corpus("emobank", str(tmp_path), label_range=(1, 7), columns={"valence": "val"})
    with pytest.raises(ValueError, match=r"^--fold belongs to the corpus iemocap"):
        read_corpus("table", str(path), fold=1)
    with pytest.raises(ValueError, match="leave out --columns and --audio_folder"):
        read_source("table", str(tmp_path / "audio"), columns={"speaker": "x"})


@pytest.mark.parametrize("name", ["val", "dev", "valid", "eval", "Development", " VAL "])
def test_names_of_the_validation_part(tmp_path, name):
    rows = [
        row | {"split": name if row["split"] == "dev" else row["split"]} for row in with_splits(make_rows(tmp_path))
    ]
    assert read_table(write_csv(tmp_path / "a.csv", rows)).num_rows == {"train": 4, "validation": 2, "test": 2}
    parts = {part: [row for row in rows if row["split"] == part] for part in ("train", name, "test")}
    saved = {part.strip(): datasets.Dataset.from_list(rows).remove_columns("split") for part, rows in parts.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    result = read_table(tmp_path / "saved", audio_folder=tmp_path)
    assert result.num_rows == {"train": 4, "validation": 2, "test": 2}


def test_two_names_of_one_part_are_not_merged(tmp_path):
    """Where there is a dev part, eval is the test part."""
    rows = with_splits(make_rows(tmp_path))
    rows = [row | {"split": "eval" if row["split"] == "test" else row["split"]} for row in rows]
    fails(
        "the splits 'dev' and 'eval' would both be validation; name them train, validation, test",
        write_csv(tmp_path / "a.csv", rows),
    )
    parts = {
        part: datasets.Dataset.from_list([row for row in rows if row["split"] == part])
        for part in ("train", "dev", "eval")
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    fails("'dev' and 'eval' would both", tmp_path / "saved", audio_folder=tmp_path)


def test_parts_may_name_their_columns_apart(tmp_path):
    rows = with_splits(make_rows(tmp_path))
    train = [
        {"val" if k == "valence" else "said" if k == "transcript" else k: v for k, v in row.items()}
        for row in rows[:4]
    ]
    test = [{"sentence" if k == "transcript" else k: v for k, v in row.items()} for row in rows[6:]]
    parts = {"train": train, "validation": rows[4:6], "test": test}
    saved = {part: datasets.Dataset.from_list(of).remove_columns("split") for part, of in parts.items()}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    options = {"audio_folder": tmp_path, "columns": {"valence": "val", "transcript": "said"}}
    result = read_table(tmp_path / "saved", **options)
    assert [part["valence"][0] for part in result.values()] == [0.25] * 3
    assert result["train"]["transcript"][0] == "line 0" and result["test"]["transcript"][0] is None
    table = open_table(tmp_path / "saved", **options).table
    assert table["valence"].to_pylist() == [0.25] * 8 and table["sentence"].null_count == 6
    source_fails(
        "missing columns 'nowhere'", tmp_path / "saved", audio_folder=tmp_path, columns={"valence": "nowhere"}
    )


def test_a_test_table_needs_no_columns_of_labels_that_training_named(tmp_path):
    rows = [{"audio": row["audio"], "transcript": "a", "split": "test"} for row in make_rows(tmp_path)]
    path = write_csv(tmp_path / "a.csv", rows)
    columns = {"valence": "val", "speaker": "actor"}
    assert read_table(path, columns=columns, require_labels=False)["test"]["valence"][:] == [None] * 8
    fails("missing columns 'val'", path, columns=columns)
    # What the model reads must be there.
    fails("missing columns 'said'", path, columns=columns | {"transcript": "said"}, require_labels=False)
    assert {*columns} <= {*COLUMNS}
