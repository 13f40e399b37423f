"""How commands answer, in a pipe (capsys is one)."""

import json

from cluster.cli import output


def test_a_table_in_a_pipe_is_lines_of_cells_with_tabs(capsys):
    output.show_table(("name", "state"), [("one", "running"), ("two", None)])
    assert capsys.readouterr().out == "NAME\tSTATE\none\trunning\ntwo\t\n"


def test_an_empty_table_tells_the_person_and_leaves_the_pipe_empty(capsys):
    output.show_table(("name",), [], "There is nothing.")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "There is nothing.\n"


def test_fields_without_a_value_are_left_out(capsys):
    output.show_fields({"a": 0, "b": None, "c": "", "d": ["x"]})
    assert capsys.readouterr().out == 'a\t0\nd\t["x"]\n'


def test_json_is_the_whole_of_standard_output(capsys):
    output.show_json({"näme": [1, None]})
    output.say("progress")
    assert json.loads(capsys.readouterr().out) == {"näme": [1, None]}


def test_ages_are_said_in_the_largest_unit():
    assert output.age("2026-01-01T00:00:00.123456Z", now=1767225600 + 59) == "58s"
    assert output.age("2026-01-01T00:00:00Z", now=1767225600 + 3600) == "1h"
    assert output.age(1767225600, now=1767225600 + 90) == "1m"
    assert output.age(1767225600, now=1767225600 + 9 * 86400) == "9d"
    assert output.age(None) == "" and output.age("") == ""
    assert output.age(1767225600 + 5, now=1767225600) == "0s"


def test_sizes_have_a_unit():
    assert [output.size(count) for count in (999, 1500, 2_500_000, 1_500_000_000, 3e12)] == [
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "1.5 GB",
        "3.00 TB",
    ]
