"""The write-up, built from small executed parts and read back."""

import re

import nbformat
import pypdfium2
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from labrnn.errors import LabError
from labrnn.reports.writeup import SECTIONS, build, tally

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="99pt" height="99pt"><path d="M0 0h9z"/></svg>'
TABLE = "<table><thead><tr><th>gate</th></tr></thead><tbody><tr><td>input</td></tr></tbody></table>"


def part(folder, name, number=None, text="", source="secret_code = 1"):
    """Write an executed notebook with a figure, a table, printed output and computed prose."""
    entry = {"label": "fig-x", "caption": f"The figure of {name}."}
    if number:
        entry["number"] = number
    outputs = [
        v4.new_output("stream", text=f"printed by {name}"),
        v4.new_output("display_data", {"image/svg+xml": SVG}, metadata={"report": entry}),
        v4.new_output(
            "display_data",
            {"text/html": TABLE},
            metadata={"report": {"label": "tbl-x", "caption": f"The table of {name}."}},
        ),
        v4.new_output("display_data", {"text/markdown": f"Said by {name}, see [](#fig-x)."}),
    ]
    cells = [
        v4.new_markdown_cell(
            f"# Part *{name[-4:]}*\n\n{text}\n\n## Result\n\n[](#result)Prose {name}."
        ),
        v4.new_markdown_cell("Prose without a heading."),
        v4.new_code_cell(source, outputs=outputs),
        v4.new_code_cell("twice = 1", metadata={"tags": ["repeated"]}),
        v4.new_markdown_cell("Twice.", metadata={"tags": ["repeated"]}),
        v4.new_markdown_cell("## Discussion\n\nAll is well."),
    ]
    made = {"labrnn": {"device": f"cpu of {name}"}, "date": "2026-11-24"}
    nb = v4.new_notebook(cells=cells, metadata=made)
    path = folder / f"{name}.ipynb"
    nbformat.write(nb, path)
    return path


def pages(data):
    with pypdfium2.PdfDocument(data) as found:
        texts = [found[k].get_textpage().get_text_range() for k in range(len(found))]
    return [re.sub(r"\s+", " ", text) for text in texts]


def write(*paths):
    """Return the PDF and the HTML page."""
    return build(paths, "The *whole* lab", ["A. B.", "C. D."])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writeup")
    paths = [
        part(folder, "lab2a_lstm_optimizers", 3, "As in [](#lab1_lstm.fig-x) and [](#fig-x)."),
        part(folder, "lab1_lstm", 1),
        part(folder, "lab1_data"),
        part(folder, "mine"),
        folder / "lab2c_depth.ipynb",  # does not exist
    ]
    return write(*paths)


def test_sections_parts_and_appendix_are_in_the_labs_order(written):
    found = pages(written[0])
    assert found[0].startswith("The whole lab A. B., C. D. · 24 November 2026 Abstract We ")
    _, _, contents = found[0].partition(" Contents ")
    front, text = contents + found[1], " ".join(found[1:]).partition(" Methods Seeds ")[2]
    order = [
        "Abstract", "Reproducibility summary", "Set-up", "Methods", "1 Questions", "2 Lab 1",
        "2.1 Part data", "2.2 Part lstm", "2.3 lab1_gru", "3 Lab 2",
    ]  # fmt: skip
    order += ["3.1 Part zers", "3.2 lab2b_gru_optimizers", "4 Beyond the lab", "4.1 Part mine"]
    order += ["5 Related work", "6 Limitations", "7 Conclusion", "References"]
    order += ["A Executed notebooks", "A.1 lab1_data.ipynb", "A.4 mine.ipynb"]
    numbered = [name for name in order if name[1] in " ."]
    for where, names in ((front, order), (text, numbered)):
        places = [where.index(name) for name in names]
        assert places == sorted(places)


def test_figures_are_numbered_consecutively(written):
    text = " ".join(pages(written[0]))
    assert "Figure 1. The figure of lab1_data." in text
    assert "Figure 2. Lab figure 1. The figure of lab1_lstm." in text
    assert "Figure 3. Lab figure 3. The figure of lab2a_lstm_optimizers." in text
    assert "Figure 4. The figure of mine." in text


def test_sections_omit_code_and_appendix_omits_repetition(written):
    text = " ".join(pages(written[0])[1:])
    sections, appendix = text.split("A Executed notebooks", 1)
    assert "secret_code" not in sections
    assert "printed by" not in sections
    assert "Said by mine, see Figure 4." in sections
    assert appendix.count("Result secret_code = 1") == 4
    assert "printed by mine" in appendix
    assert "wice" not in text  # the tag `repeated`
    assert "Prose" not in appendix
    assert "The figure of" not in appendix
    page = next(k for k, x in enumerate(pages(written[0]), 1) if "Figure 4. The figure" in x)
    assert f"Figure 4, page {page}" in appendix


def test_no_page_of_the_appendix_ends_with_a_heading(tmp_path):
    parts = [part(tmp_path, f"part{k}", source="x = 1\n" * (2 * k + 1)) for k in range(24)]
    head = re.compile(r"(Result|Discussion|ipynb|this run|report was made) \d+ / \d+$")
    assert not [text for text in pages(write(*parts)[0]) if head.search(text.strip())]


def test_references_resolve_within_and_across_parts(written):
    assert "As in Figure 2 and Figure 3." in " ".join(pages(written[0]))


def run(folder, name, verdicts=(), finding="", runs=None, parameters=""):
    """Write a part whose discussion has verdicts and a finding, as in a report of the package."""
    path = part(folder, name)
    nb = nbformat.read(path, as_version=4)
    found = [
        {
            "published": claim,
            "outcome": outcome,
            "at_last": "inconclusive",
            "evidence": "by 2 points",
        }
        for claim, outcome in verdicts
    ]
    nb.cells[2].outputs[3].metadata = {"report": {"verdicts": found, "finding": finding}}
    nb.cells.insert(1, v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    nb.metadata["runs"] = runs or {}
    nbformat.write(nb, path)
    return path


def run_metadata(seconds, commit="abc"):
    """Return the metadata of a run in a notebook."""
    return {"seconds": seconds, "commit": commit}


def test_front_matter_summarises_the_parts(tmp_path):
    parameters = (
        "seeds: list[int] = [5, 6]\ntrain_reviews = 0\nmax_tokens = 99\nbatch_size = 17\nepochs = 3"
    )
    said = [("more is better", "inconclusive"), ("less is more", "refuted")]
    paths = [
        run(
            tmp_path,
            "lab1_lstm",
            said,
            runs={"a": run_metadata(1800.0), "b": run_metadata(5400.0, "abc+")},
        ),
        run(
            tmp_path,
            "reproduction",
            (),
            "We repeated 3 runs.",
            {"a": run_metadata(1800.0)},
            parameters,
        ),
    ]
    pdf, page = write(*paths)
    abstract, _, text = " ".join(pages(pdf)).partition("Reproducibility summary Scope")
    assert "The conclusion that less is more is refuted (by 2 points)." in abstract
    assert "our runs refute 1 and are inconclusive on 1; at the last epoch, which" in abstract
    assert "(Maas et al. 2011)" in abstract
    front, _, text = text.partition("1 Questions")
    assert "more is better inconclusive" in front
    assert "less is more refuted" in front
    assert "rest on two training runs, each on one core" in front
    assert "They took 2 hours in all" in front
    assert "One run was made by code with uncommitted changes" in front
    assert "3 epochs, shuffled batches of 17 reviews, 2 seeds per setting" in front
    assert "at most 99 known words" in front
    assert "7 Conclusion Of two conclusions of the original study, our runs refute 1" in text
    assert "with uncommitted changes. commit runs abc 1 abc+ 1" in text
    assert "Maas, Andrew L." in text.split("References", 1)[1]
    assert "less is more" in page.decode()


def test_front_matter_without_results(written, tmp_path):
    abstract, _, text = " ".join(pages(written[0])).partition(" Contents ")
    front = (
        abstract + text.partition("Reproducibility summary Scope")[2].partition("1 Questions")[0]
    )
    assert "No training run is stored yet" in front
    assert "No conclusion of the original study has been tested yet." in front
    assert "No run was trained." in front
    assert not re.search(r"nan|None|\{|\}|\[\]| \.| ,", front.replace("No training", ""))
    reduced = "train_reviews = 800\nmax_tokens = 99\nbatch_size = 17\nepochs = 3\nseeds = [5]"
    pdf, _ = write(run(tmp_path, "lab1_gru", parameters=reduced))
    assert "a reduced setting with 800 training reviews" in " ".join(pages(pdf))


def test_conclusions_are_counted():
    one = ["confirmed"]
    assert (
        tally(zip(one, one, strict=True))
        == "Of one conclusion of the original study, our runs confirm 1"
    )
    four = ["confirmed", "inconclusive", "refuted", "confirmed"]
    text = (
        "Of four conclusions of the original study, our runs confirm 2, refute 1 and are inconclusive "
        "on 1"
    )
    assert tally(zip(four, reversed(four), strict=True)) == text
    assert tally(zip(four, [*four[:2], "inconclusive", "confirmed"], strict=True)) == (
        f"{text}; at the last epoch, which the original study tested, they confirm 2 and are "
        "inconclusive on 2"
    )


def test_missing_parts_are_named(written):
    text = " ".join(pages(written[0])[2:])
    missing = {name for names in SECTIONS.values() for name in names}
    missing -= {"lab2a_lstm_optimizers", "lab1_lstm", "lab1_data"}
    for name in missing:
        assert f"{name} This part was not run." in text


def test_html_has_the_same_content_with_unique_ids(written):
    page = BeautifulSoup(written[1], "html.parser")
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.find_all("a")} <= {f"#{name}" for name in ids}
    text = " ".join(page.get_text().split())
    for said in ("As in Figure 2 and Figure 3.", "3.1 Part zers", "A.4 mine.ipynb"):
        assert said in text
    assert text.count("This part was not run.") == 8
    assert len(page.find_all("img")) == 4


def test_same_parts_give_the_same_bytes(tmp_path):
    path = part(tmp_path, "lab1_data")
    assert write(path) == write(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"cells": 3}', '{"nbformat": 4}'])
def test_an_unreadable_notebook_is_named(tmp_path, content):
    (tmp_path / "lab1_gru.ipynb").write_text(content)
    with pytest.raises(LabError, match=r"lab1_gru\.ipynb"):
        write(tmp_path / "lab1_gru.ipynb")


def test_error_in_a_part_names_it(tmp_path):
    broken = part(tmp_path, "lab1_lstm")
    nb = nbformat.read(broken, as_version=4)
    nb.cells.append(nbformat.from_dict({**nb.cells[2], "id": "again"}))  # duplicates its labels
    nbformat.write(nb, broken)
    with pytest.raises(LabError, match=r"lab1_lstm, cell 7: label 'lab1_lstm.fig-x' was used"):
        write(broken)
