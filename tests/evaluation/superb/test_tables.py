"""Published figures and our own stand in the right columns."""

from avtlm.evaluation.superb.tables import beside_published, published
from avtlm.evaluation.superb.tasks import TASKS


def row(table: str, name: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if (name in line and "Base" in name) or line.strip("│ ").startswith(name)]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_every_published_row_has_a_figure_for_every_column() -> None:
    known = published()
    assert len(known["rows"]) == 16
    for each in known["rows"]:
        assert len(each["values"]) == len(known["columns"])
    tasks = {column.split(" ")[0] for column in known["columns"]}
    assert tasks <= set(TASKS)


def test_columns_are_those_of_the_tasks_that_were_run() -> None:
    table = beside_published("mine", 94_700_000, {"SF CER": 30.125, "PR PER": 5.0, "SF F1": 80.0, "QbE MTWV": 0.0004})
    assert row(table, "HuBERT Base")[3:] == ["5.41", "0.0736", "88.53", "25.20"]
    assert row(table, "FBANK")[3:] == ["82.01", "0.0058", "69.64", "52.94"]
    assert row(table, "mine") == ["mine", "94.70M", "", "5.00", "0.0004", "80.00", "30.12"]


def test_small_published_values_are_not_rounded_away() -> None:
    table = beside_published("mine", 0, {"SID accuracy": 50.0})
    assert row(table, "FBANK")[3:] == ["8.5e-04"]
    assert row(table, "mine")[1] == "0"
