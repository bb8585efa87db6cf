"""The pages of ``docs``: links lead somewhere, examples print what is shown, commands are there with their options."""

from pathlib import Path

import pytest
from documents import PAGES, ROOT, TEXTS, anchors, command_lines, command_of, links, named_commands, run_examples

WITH_EXAMPLES = ("getting-started", "concepts", "research-guide")
GUIDES = ("index", *WITH_EXAMPLES, "market-rules", "api-guide", "operator-guide")
by_name = pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)


@by_name
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    wrong = [
        f"{target}#{anchor}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_link_to_nothing_beside_the_folder_that_is_built(page: Path):
    assert [target for target, _ in links(page) if not target.is_relative_to(ROOT / "docs")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_stands_in_the_navigation(page: Path):
    assert f": {page.name}\n" in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_every_guide_is_linked_from_the_first_page():
    first = ROOT / "docs" / "index.md"
    assert {target.stem for target, _ in links(first)} >= set(GUIDES) - {"index"}


@by_name
def test_every_command_line_parses(page: Path):
    for words in command_lines(page.read_text("utf-8")):
        command, arguments = command_of(words)
        command.make_context(words[0], arguments)


@by_name
def test_every_command_that_is_named_is_there_with_its_options(page: Path):
    for words in named_commands(page.read_text("utf-8")):
        command, arguments = command_of(words)
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known, words


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_page_print_what_it_shows(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_examples((ROOT / "docs" / f"{name}.md").read_text("utf-8"))
