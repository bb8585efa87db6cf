"""Bad OpenDSS circuits, and phases that do not fit them: one error that names every problem, and no other exception."""

import sys

import pytest
from broken_cases import BrokenCase
from broken_opendss import BROKEN_OPENDSS, add, write_good_opendss

from dlmp.casefolder import read_case
from dlmp.cli import main
from dlmp.cli.program import EXIT_CODES
from dlmp.errors import InputError


def test_the_folder_is_good_without_an_edit(tmp_path):
    case = read_case(write_good_opendss(tmp_path / "case"))
    assert case.network.node_count == 3 + 3 + 3 + 1 + 3 + 1


@pytest.mark.parametrize("broken", BROKEN_OPENDSS, ids=lambda broken: broken.name)
def test_one_mistake_is_reported_by_element_field_and_message(broken: BrokenCase, tmp_path):
    folder = write_good_opendss(tmp_path / "case")
    broken.edit(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    found = [(problem.element, problem.field) for problem in caught.value.problems if broken.message in problem.message]
    assert (broken.element, broken.field) in found, caught.value
    assert len(caught.value.problems) == broken.problems, caught.value


def test_all_elements_that_cannot_be_modelled_come_back_at_once(tmp_path):
    folder = write_good_opendss(tmp_path / "case")
    add("New Load.z phases=1 bus1=a.1.1 kV=7.2\nNew Load.w phases=1 bus1=a.0 kV=7.2")(folder)
    add("New Vsource.v bus1=b bus2=a basekV=1")(folder)
    with pytest.raises(InputError) as caught:
        read_case(folder)
    assert [problem.element for problem in caught.value.problems] == ["load.z", "load.w", "vsource.v"]


def test_the_command_line_says_it_without_a_traceback(tmp_path, capsys, monkeypatch):
    folder = write_good_opendss(tmp_path / "case")
    add("New Line.x bsu1=a")(folder)
    monkeypatch.setattr(sys, "argv", ["dlmp", "clear", str(folder), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == EXIT_CODES[InputError]
    assert "OpenDSS circuit, compile = 'Master.dss'" in said
    assert "Traceback" not in said
