"""Journals survive runs that are killed, and files that are none."""

from pathlib import Path

from preprocess.journal import file_state, journal, read_journal


def test_the_last_record_of_an_id_counts_and_a_cut_line_costs_one_item(tmp_path: Path) -> None:
    path = tmp_path / "new" / "notes.jsonl"
    with journal(path) as notes:
        notes.note({"id": "a", "n": 1})
        notes.note({"id": "b", "n": 2})
    with open(path, "a") as handle:
        handle.write('{"id": "c", "n"')  # the process was killed here
    with journal(path) as notes:
        notes.note({"id": "a", "n": 3})
    assert {name: record["n"] for name, record in read_journal(path).items()} == {"a": 3, "b": 2}


def test_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == {}
    (tmp_path / "n.jsonl").write_bytes(b'[]\n7\n\xff\xfe\n{"id": []}\n{}\n' + b"[" * 100_000 + b'\n{"id": "a"}\n')
    assert read_journal(tmp_path / "n.jsonl") == {"a": {"id": "a"}}


def test_the_state_of_a_file_changes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert file_state(path) == file_state("null\0byte") == (0, 0)
    path.write_text("one")
    before = file_state(path)
    path.write_text("four")
    assert file_state(path) != before
