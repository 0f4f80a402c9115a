"""The benchmark of many rows, with few."""

import pytest

from msfser.benchmarks import reader
from msfser.corpora.table import read_table
from msfser.training.settings import parse_settings


def test_the_rows_are_a_corpus_and_the_settings_a_run(tmp_path):
    table = reader.write_rows(tmp_path / "corpus", 800)
    parts = read_table(table, label_range=(1, 7))
    assert sum(parts.num_rows.values()) == 800 and {*parts} == {"train", "validation", "test"}
    settings = parse_settings([str(reader.write_settings(tmp_path, table)), "--output_dir", str(tmp_path / "run")])
    assert settings.run.data == str(table) and settings.run.label_range == [1.0, 7.0]


def test_memory_at_the_end_is_compared_with_that_at_the_start(tmp_path, monkeypatch):
    memory = iter([0.0, 100.0, 100.0, *[150.0] * 10_000])
    monkeypatch.setattr(reader, "_resident_megabytes", lambda process: next(memory))
    monkeypatch.setattr(reader, "_SAMPLE_SECONDS", 0.01)
    seconds, growth = reader.memory_growth(["--version"], tmp_path)
    assert seconds > 0 and growth in (1.0, 1.5)
    with pytest.raises(ValueError, match="msfser nothing failed"):
        reader.memory_growth(["nothing"], tmp_path)
