"""The numbers in README, abstract and docs match the committed results."""

import re

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from benchmarks import precision
from labrnn.config import TrialConfig
from labrnn.parts import PARTS, Compound, Depth, read_params
from labrnn.published import published
from labrnn.results import baselines, beyond, combined, comparison, reproduction
from labrnn.results.statistics import CONFIDENCE, LEVEL, MARGIN
from labrnn.results.table import Results, Runs
from labrnn.results.verdicts import verdicts
from labrnn.trials.store import PROJECT
from tools import headline

KINDS = ("quick", "full")
RMSPROP = TrialConfig(optim="rmsprop", lr=0.001)


def test_headline_matches_the_results():
    text = headline.README.read_text("utf-8")
    marked = headline.BLOCK.search(text)
    assert marked, "the README has lost its headline marks"
    assert marked[0] == marked[1] + headline.block(headline.results()) + marked[2]


def test_headline_changes_with_the_results():
    found = headline.results()
    before = headline.block(found)
    kept = [t for t in found.runs.trials.values() if t.config.replace(seed=5) != RMSPROP]
    assert len(kept) < len(found.runs.trials)
    assert headline.block(Results(found.part, Runs(kept))) != before


@pytest.mark.parametrize("path", ["docs/how-to.md", "docs/structure.md", "docs/decisions.md"])
def test_linked_pages_exist(path):
    assert f"]({path})" in headline.README.read_text("utf-8")
    assert (PROJECT / path).exists()


def numbers(text):
    """Return the numbers in a text as strings, without thousands separators."""
    return {n.replace(",", "") for n in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text)}


def found_numbers():
    """Return the numbers in the committed tables, and counts and gaps computed from the runs."""
    pool = set()
    for path in sorted((PROJECT / "reports" / "full").glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", ()):
                if output.get("metadata", {}).get("report", {}).get("label", "").startswith("tbl-"):
                    pool |= numbers(output.data["text/plain"])
    found = headline.results()
    rows = reproduction.compare(found)
    shown = reproduction.distinct(rows)
    run, both = (sum(row.runs.n > 0 for row in rows), sum(row.both for row in rows))
    meaning = reproduction.agreement_means(shown, found.at("last"))
    gap = meaning["gap"]
    judged = verdicts(found)
    outcomes, at_last = ([getattr(v, name) for v in judged] for name in ("outcome", "at_last"))
    counts = [len(rows), run, both, run - both, len(shown), sum(row.agrees for row in shown)]
    counts += [len(outcomes), *map(outcomes.count, set(outcomes)), meaning["guessed"]]
    counts += map(at_last.count, set(at_last))
    single = [row for row in shown if row.runs.n == 1]
    others = [row for row in shown if row not in single]
    counts += [len(single), len(others), sum(row.agrees for row in others)]
    counts.append(f"{100 * min(row.gap.half_width for row in single):.0f}")
    pool |= {f"{100 * r.test_correct / r.test:.1f}" for r in beyond.standard_split().itertuples()}
    pool.add(f"{100 * meaning['constant']:.1f}")
    linear = headline.results("beyond_baselines")
    models = baselines.find(linear.part, headline.STORE)
    gaps = [gap, *(c.difference for c in beyond.baseline_comparisons(models, linear))]
    pool |= {f"{100 * abs(x):.1f}" for gap in gaps for x in (gap.mean, gap.low, gap.high)}
    return (
        pool
        | set(map(str, counts))
        | {f"{100 * x:.0f}" for x in (CONFIDENCE, MARGIN)}
        | {f"{LEVEL}"}
    )


def test_every_number_of_the_abstract_is_found_in_the_results():
    page = BeautifulSoup((PROJECT / "reports/full/write_up.html").read_text("utf-8"), "html.parser")
    texts = []
    for element in page.find(id="abstract").find_next_siblings():
        if element.name == "h1":
            break
        for citation in element.find_all("a"):
            citation.decompose()
        texts.append(element.get_text())
    abstract = " ".join(" ".join(texts).split())
    best = headline.results("beyond_best")
    rows = reproduction.compare(headline.results())
    models = baselines.find(best.part, headline.STORE)
    networks = best.part.networks()
    both = combined.find(best, networks[0], baselines.preferred(models), headline.STORE)
    compared = beyond.baseline_comparisons(models, best, networks, both)
    findings = [
        reproduction.summary(rows, headline.results()),
        beyond.on_components(best, comparison.compare(best), compared),
    ]
    for finding in findings:  # recomputed from the runs
        assert finding.partition("\n\n")[0].replace("*", "") in abstract
    said = numbers(abstract)
    assert len(said) > 10
    assert said <= found_numbers()


def test_every_number_of_the_readme_is_known():
    """The headline block is excluded; it is compared as a whole above."""
    text = headline.BLOCK.sub("", headline.README.read_text("utf-8"))
    text = re.sub(r"```.*?```|\]\([^)]*\)|`[^`]*`", "", text, flags=re.S)
    files = len(PARTS)
    assert files == 15
    assert "Fifteen Jupyter notebooks" in text
    known = {len(published()): "runs", len(Compound(train_reviews=0).settings()): "combinations"}
    parts = [Depth(), *(read_params(PROJECT / f"params/{k}/lab2c_depth.yaml") for k in KINDS)]
    sizes = {n for part in parts for n in (part.train_reviews, part.max_tokens, part.batch_size)}
    # Python versions; packaged reviews, reviews of the lab, its training reviews; years of
    # Maas et al. and the original study; confidence level and widest interval.
    settled = {"3.10", "3.11", "3.13", "25000", "50000", "35000", "2011", "2023", "95", "10"}
    assert numbers(text) <= settled | set(map(str, {*known, *sizes}))


def test_precision_table_matches_its_runs():
    table = precision.table(pd.read_csv(precision.RUNS))
    assert f"<!-- precision -->\n{table}<!-- /precision -->" in precision.PAGE.read_text("utf-8")
    assert table.count("\n") == 2 + len(precision.SETTINGS) + 1


def test_trials_page_names_every_column():
    page = (PROJECT / "docs/trials.md").read_text("utf-8")
    columns = pd.read_csv(PROJECT / "reports/full/trials.csv", nrows=0).columns
    families = re.compile(
        "version_.*|.*_batch_mean"
    )  # listed as `version_...` and `..._batch_mean`
    assert [c for c in columns if f"`{c}`" not in page and not families.fullmatch(c)] == []
