"""The console in a browser, as its users go through it: from a table of bids to a corrected price."""

import csv
import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import chromium, watched

HEADER_LINE = "resource,interval,side,segment,quantity_kw,price_usd_per_mwh\n"
SERIOUS = {"serious", "critical"}
PATIENCE_S = 30


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def context(browser):
    with browser.new_context(viewport={"width": 1280, "height": 900}) as found:
        yield found


@pytest.fixture
def page_of(context, server):
    """Open the console for a key; at the end nothing went wrong on it but so many refusals that were asked for."""
    opened = []

    def opening(key=None, refusals=0):
        context.clear_cookies()
        seen = watched(context, f"{server.url}/", key)
        opened.append((seen, refusals))
        return seen.page

    yield opening
    for seen, refusals in opened:
        seen.assert_quiet(refusals=refusals)
        seen.page.close()


def amount(text):
    return float(text.replace(",", ""))


def upload(page, text):
    page.get_by_label("Table of bids").set_input_files(
        {"name": "bids.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )
    page.get_by_role("button", name="Upload").click()


def go(page, market, view):
    page.evaluate("place => { location.hash = place }", f"#/market/{market.id}/{view}")


def confirm(page, name, reason=None):
    page.get_by_role("button", name=name, exact=True).click()
    dialog = page.get_by_role("dialog")
    if reason is not None:
        dialog.get_by_role("textbox").fill(reason)
    dialog.get_by_role("button", name=name, exact=True).click()
    dialog.wait_for(state="detached")


def until(page, holds):
    """Wait until something holds; the page's policy lets no test do so inside of it."""
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends
        page.wait_for_timeout(50)


def painted(page):
    return page.evaluate("performance.getEntriesByName('feeder repaint').length")


def colours(page):
    """Colours that are on the canvas."""
    return page.evaluate(
        """() => {
            const canvas = document.querySelector('canvas');
            const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            const found = new Set();
            for (let i = 0; i < data.length; i += 4) found.add(`${data[i]},${data[i + 1]},${data[i + 2]}`);
            return [...found].sort();
        }"""
    )


def test_from_a_table_of_bids_to_a_corrected_price(server, desk, page_of):
    solar = desk.resources[0].name

    page = page_of(desk.key, refusals=2)
    go(page, desk.market, "bids")
    upload(page, HEADER_LINE + f"{solar},99,supply,1,300,12\n")
    page.get_by_text("must be 0 to 23").wait_for()
    upload(page, HEADER_LINE + f"{solar},0,supply,1,300,12\n{solar},1,supply,1,300,12000\n")
    page.get_by_role("alert").get_by_text(re.compile("line 3, price_usd_per_mwh")).wait_for()
    curve = "{solar},{t},supply,1,300,12\n{solar},{t},supply,2,200,45\n"
    upload(page, HEADER_LINE + "".join(curve.format(solar=solar, t=t) for t in range(24)))
    page.get_by_text("24 bids placed").wait_for()
    until(page, lambda: page.get_by_role("row", name=re.compile(f"{solar} energy")).count() == 24)
    for name in ("Close the gate", "Clear", "Publish", "Correct"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0

    page = page_of(server.key)
    go(page, desk.market, "feeder")
    page.get_by_text("Nothing is published yet").wait_for()
    confirm(page, "Close the gate")
    confirm(page, "Clear")
    page.get_by_role("button", name="Publish").wait_for(timeout=60_000)
    confirm(page, "Publish")
    canvas = page.get_by_role("img", name="One-line diagram")
    canvas.wait_for()
    until(page, lambda: painted(page) > 0)
    page.get_by_role("combobox", name="Node").fill("17")
    page.get_by_role("combobox", name="Node").press("Enter")
    node = page.get_by_role("region", name="Node 17")
    node.locator(".sum").wait_for()
    price = amount(node.locator("h2 .price").inner_text())
    shares = [amount(text) for text in node.locator(".share").all_inner_texts()]
    assert price > 0
    assert len(shares) >= 2
    assert sum(shares) == pytest.approx(price, abs=0.005 * (len(shares) + 1))
    assert amount(node.locator(".sum").inner_text()) == pytest.approx(price, abs=0.011)

    before, count = colours(page), painted(page)
    page.get_by_role("slider", name="Interval").fill("19")
    until(page, lambda: painted(page) > count)
    assert "19:00" in page.locator("output").first.inner_text()
    page.get_by_role("combobox", name="Colour by").select_option("loss")
    until(page, lambda: colours(page) != before)

    confirm(page, "Correct", "the meter of bus 17 was misread")
    page.get_by_role("button", name="Publish").wait_for(timeout=60_000)
    confirm(page, "Publish")
    page.get_by_text("version 2").first.wait_for()
    assert desk.operator.market(desk.market.id).price_version == 2


def test_awards_and_statement_are_the_participants_own(published, page_of):
    page = page_of(published.key)
    go(page, published.market, "bids")
    page.get_by_role("img", name=re.compile("300 of 300 kW accepted")).wait_for()
    statement = page.get_by_role("region", name="Statement")
    assert statement.get_by_text(published.resources[0].name).count() >= 1
    assert statement.get_by_text("load", exact=True).count() == 0
    assert page.get_by_text("Audit and health").count() == 0


def test_a_node_that_is_clicked_tells_its_price(published, page_of):
    page = page_of(published.key)
    go(page, published.market, "feeder")
    until(page, lambda: painted(page) > 0)
    box = page.locator("canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 28, box["y"] + box["height"] / 2 + 65)
    node = page.locator("section.node")
    if not node.count():  # the longest way is in another lane: find it along the right edge
        for y in range(30, int(box["height"]), 6):
            page.mouse.click(box["x"] + box["width"] - 28, box["y"] + y)
            if node.count():
                break
    node.locator(".sum").wait_for()
    assert "Node 17" in node.get_by_role("heading").inner_text()


def test_play_moves_the_day_on_and_back_to_its_begin(published, page_of):
    page = page_of()
    go(page, published.market, "feeder")
    slider = page.get_by_role("slider", name="Interval")
    slider.fill("22")
    page.get_by_role("button", name="Play").click()
    until(page, lambda: slider.input_value() == "1")
    page.get_by_role("button", name="Pause").click()


def test_whoever_has_no_key_sees_prices_only(published, page_of):
    page = page_of()
    go(page, published.market, "prices")
    page.get_by_role("region", name="Binding limits by rent").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV", exact=True).click()
    with download.value.path().open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file))[:4] == ["interval_start", "interval", "bus", "phase"]
    assert page.get_by_role("link", name="Bids and awards").count() == 0
    assert page.get_by_role("button", name="Sign out").count() == 0


def test_a_key_that_is_wrong_is_told(server, page_of):
    page = page_of(refusals=1)
    page.get_by_label("API key").fill("dlmp_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("not known").wait_for()


def test_an_operator_verifies_the_chain(server, published, page_of):
    page = page_of(server.key)
    page.get_by_role("link", name="Audit and health").click()
    page.get_by_role("button", name="Verify").click()
    page.get_by_text(re.compile(r"Whole: \d+ entries")).wait_for()
    assert page.get_by_role("row").count() > 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_views_are_accessible_and_fit_the_screen(browser, server, published, scheme, width):
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        seen = watched(context, f"{server.url}/", server.key)
        page = seen.page
        for view in ("", "feeder", "bids", "prices", "audit"):
            hash_ = {"": "#/", "audit": "#/audit"}.get(view, f"#/market/{published.market.id}/{view}")
            page.evaluate("place => { location.hash = place }", hash_)
            until(page, lambda: page.locator(".waiting").count() == 0)
            if view == "feeder":
                page.get_by_role("combobox", name="Node").fill("17")
                page.get_by_role("combobox", name="Node").press("Enter")
                page.locator(".node .sum").wait_for()
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in SERIOUS]
            assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious] == [], view
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        seen.assert_quiet()
