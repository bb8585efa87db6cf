"""The README's Python example runs and prints what the README shows."""

from documents import ROOT, run_examples


def test_the_example_prints_what_the_readme_shows():
    run_examples((ROOT / "README.md").read_text("utf-8").partition("## The market service")[0])
