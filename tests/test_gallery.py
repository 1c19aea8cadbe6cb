"""The gallery of reports: complete, correct, and as displayed in Chromium."""

import shutil
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labrnn.errors import LabError
from labrnn.reports.report import Gallery
from labrnn.trials.store import PROJECT

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="200" viewBox="0 0 400 200">'
    '<style>path{stroke:#15c;fill:none}</style><path d="M0 200 L400 0"/></svg>'
)
NASTY = '<script>document.title = "run"</script> & "quoted" \'too\''


def figure(label, caption, **more):
    report = {"label": label, "caption": caption, **more}
    return new_output("display_data", {"image/svg+xml": SVG}, metadata={"report": report})


def say(text, **report):
    data = {"text/markdown": text, "text/plain": text}
    return new_output("display_data", data, metadata={"report": report})


def write(folder, name, title, *outputs):
    """Write an executed notebook and its rendered files."""
    nb = new_notebook(cells=[new_markdown_cell(f"# {name}\n\nProse of the notebook.")])
    nb.cells.append(new_code_cell("1", outputs=list(outputs)))
    made = {"data": "reviews of mine", "runs read": 4, "versions": {}}
    nb.metadata.update(title=title, date="2026-11-24", labrnn=made)
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, folder / f"{name}.ipynb")
    for suffix in (".pdf", ".html"):
        (folder / (name + suffix)).write_text("rendered")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("gallery") / "reports"
    write(
        root / "full",
        "lab2a_lstm_optimizers",
        "Four optimisers",
        figure("fig-grid", "A grid.", group=0, sub="one", columns=2),
        figure("fig-grid", "A grid.", group=1, sub="two", columns=2),
        figure("fig-one", "The *one* curve of $x^2$."),
        say(
            "The rest is not shown.",
            finding="**Adam** [@kingma2015] is first, with 0.893 in the epoch "
            "that is tested, on all reviews of the whole test set. The gallery ends before this one.",
            verdicts=[
                {"published": f"claim {k}", "outcome": "refuted", "at_last": "refuted"}
                for k in range(2)
            ],
        ),
    )
    write(
        root / "full",
        "reproduction",
        "Reviews",
        say("No.", finding="Short. And a second. And a third."),
    )
    (root / "full/write_up.pdf").write_text("rendered")
    write(
        root / "q & <b>",
        "lab1_lstm",
        NASTY,
        figure("fig-x", NASTY),
        say("`</p>` <img src=x onerror=alert(1)> " + NASTY),
    )
    write(root / "empty", "lab1_gru", "Without anything")
    (root / ".hidden").mkdir()
    (root / "not rendered").mkdir()
    nbformat.write(new_notebook(), root / "not rendered/notes.ipynb")
    Gallery(root).run()
    return root


@pytest.fixture
def page(root, browser):
    """The gallery on a phone; the test fails if the browser reports an error."""
    errors = []
    with browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((root / "index.html").as_uri())
        yield page
    assert errors == []


def test_content(page):
    assert page.locator("h2").all_inner_texts() == ["empty", "full", "q & <b>"]
    cards = page.locator("article")
    assert page.locator("h3").all_inner_texts() == [
        "Without anything",
        "Four optimisers",
        "Reviews",
        NASTY,
    ]
    assert cards.nth(0).locator("p").first.inner_text() == "Prose of the notebook."
    assert cards.nth(2).locator("p").first.inner_text() == "Short. And a second."
    assert page.locator("strong").all_inner_texts() == [
        "Of two conclusions of the original study, our runs refute 2. Short. And a second. And a third."
    ]
    adam = cards.nth(1)
    assert adam.locator("p").first.inner_text() == (
        "Adam is first, with 0.893 in the epoch that is tested, on all reviews of the whole test set."
    )
    assert adam.locator("img").get_attribute("alt").startswith("The *one* curve of ")
    assert adam.locator(".facts").inner_text() == "2026-11-24 · four training runs"


def test_links_point_to_existing_files(page, root):
    links = page.locator("main a")
    targets = [unquote(link.get_attribute("href")) for link in links.all()]
    assert len(targets) == len(set(targets)) == 4 * 3 + 1
    assert all((root / target).is_file() for target in targets)
    names = [link.get_attribute("aria-label") for link in links.all()]
    assert len(set(names)) == len(names)
    assert "PDF: Four optimisers" in names
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_pictures_are_loaded(page):
    images = page.locator("img")
    assert images.count() == 2
    assert all(image.evaluate("i => i.complete && i.naturalWidth > 0") for image in images.all())
    assert all(image.get_attribute("alt") for image in images.all())


def test_page_runs_no_script_and_fetches_nothing(page):
    assert page.title() != "run"
    assert page.locator("script, iframe, object, [onerror], link").count() == 0
    assert (
        page.evaluate(
            "performance.getEntriesByType('resource').map(e => e.name)"
            ".filter(name => !name.startsWith('data:'))"
        )
        == []
    )
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_page_does_not_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_landmarks_and_headings(page):
    assert page.locator("html").get_attribute("lang") == "en"
    assert [page.locator(name).count() for name in ("header", "nav", "main", "h1")] == [1, 1, 1, 1]
    for section in page.locator("section").all():
        label = section.get_attribute("aria-labelledby")
        assert section.locator("h2").get_attribute("id") == label
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert (page.evaluate("document.activeElement.innerText"), outline) == ("empty", "solid")


# The lowest contrast of text with its background, after WCAG.
CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number)
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0)
  const behind = e => { const c = numbers(getComputedStyle(e).backgroundColor)
    return c.length < 4 || c[3] ? c : behind(e.parentElement) }
  return Math.min(...[...document.querySelectorAll('h1, h2, h3, p, a')].map(e => {
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort()
    return (b + .05) / (a + .05) }))
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    page.emulate_media(color_scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST) >= 4.5


def test_gallery_is_rebuilt_after_changes(root, tmp_path):
    root = shutil.copytree(root, tmp_path / "reports")
    gallery, page = Gallery(root), root / "index.html"
    assert gallery.is_done()
    (root / "full/write_up.html").write_text("rendered")
    assert not gallery.is_done()
    gallery.run()
    assert gallery.is_done()
    assert "full/write_up.html" in page.read_text()
    before = page.read_bytes()
    (root / "full/reproduction.ipynb").write_text("{")
    assert not gallery.is_done()
    with pytest.raises(LabError, match=r"reproduction\.ipynb: not a readable notebook"):
        gallery.run()
    assert page.read_bytes() == before
    assert {path.name for path in root.iterdir() if path.is_file()} == {"index.html"}


def test_foreign_page_is_not_replaced(tmp_path):
    page = tmp_path / "index.html"
    page.write_bytes(b"<title>Mine \xff</title>")
    with pytest.raises(LabError, match=r"index\.html: not a page of labrnn; move it"):
        Gallery(tmp_path).run()
    assert page.read_bytes() == b"<title>Mine \xff</title>"


def test_location_of_the_gallery(tmp_path):
    assert Gallery.of(PROJECT / "reports/quick").out == PROJECT / "reports"
    gallery = Gallery.of(tmp_path / "elsewhere")
    write(tmp_path / "elsewhere", "lab1_gru", "One")
    gallery.run()
    assert 'href="lab1_gru.pdf"' in (tmp_path / "elsewhere/index.html").read_text()
    assert gallery.is_done()
