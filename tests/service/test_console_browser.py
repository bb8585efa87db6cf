"""The console in a browser, as its users go through it: from a table of bids to a corrected price."""

import csv
import re
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import chromium, watched
from servers import open_desk

from dlmp.client import Bid, Client

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


def name_node(page, name):
    page.get_by_role("combobox", name="Node").fill(name)
    page.get_by_role("combobox", name="Node").press("Enter")


def price_of(page, name):
    """Price of a node that is named; its parts, as they are shown, add up to it."""
    name_node(page, name)
    node = page.get_by_role("region", name=f"Node {name}")
    node.locator(".sum").wait_for()
    price = amount(node.locator("h2 .price").inner_text())
    shares = [amount(text) for text in node.locator(".share").all_inner_texts()]
    assert shares
    assert sum(shares) == pytest.approx(price, abs=0.005 * (len(shares) + 1))
    assert amount(node.locator(".sum").inner_text()) == pytest.approx(price, abs=0.011)
    return price


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
    prices = {name: price_of(page, name) for name in ("17", "30", "17")}
    assert prices["17"] != prices["30"]
    assert all(price > 0 for price in prices.values())

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
    page.get_by_role("region", name="Node 17").locator(".sum").wait_for()
    assert "19:00" in page.locator("output").first.inner_text()
    assert page.get_by_role("button", name="Publish").count() == 0
    assert desk.operator.market(desk.market.id).price_version == 2


def test_a_table_whose_answer_is_lost_is_placed_once(desk, page_of):
    page = page_of(desk.key)
    go(page, desk.market, "bids")
    text = HEADER_LINE + f"{desk.resources[0].name},0,supply,1,300,12\n"
    lost = []

    def lose(route):
        lost.append(route.fetch().status)
        route.abort()

    page.route("**/v1/bids/batch", lose, times=1)
    upload(page, text)
    page.get_by_role("alert").get_by_text("It is not known whether").wait_for()
    assert lost == [201]
    upload(page, text)
    page.get_by_text("1 bids placed").wait_for()
    with desk.client() as client:
        assert len(client.bids(desk.market.id)) == 1
        page.route("**/v1/bids/batch", lose, times=1)
        confirm(page, "Withdraw all")
        upload(page, text)
        page.get_by_role("alert").get_by_text("It is not known whether").wait_for()
        confirm(page, "Withdraw all")
        page.get_by_text("No bid stands in this market.").wait_for()
        upload(page, text)
        page.get_by_text("1 bids placed").wait_for()
        assert len(client.bids(desk.market.id, "live")) == 1


def test_good_bids_are_placed_though_others_are_refused_and_a_corrected_table_after_they_are_withdrawn(desk, page_of):
    solar = desk.resources[0].name
    page = page_of(desk.key, refusals=1)
    go(page, desk.market, "bids")
    page.get_by_label("Place").select_option("each")
    upload(page, HEADER_LINE + f"{solar},0,supply,1,300,12\n{solar},1,supply,1,300,12000\n")
    page.get_by_role("alert").get_by_text(re.compile("line 3, price_usd_per_mwh")).wait_for()
    page.get_by_text("1 bids placed").wait_for()
    upload(page, HEADER_LINE + f"{solar},0,supply,1,300,14\n")
    page.get_by_role("alert").get_by_text(re.compile("line 2, interval_start: .* amend it")).wait_for()
    confirm(page, "Withdraw all")
    page.get_by_text("No bid stands in this market.").wait_for()
    upload(page, HEADER_LINE + f"{solar},0,supply,1,300,14\n")
    page.get_by_text("300 at 14").wait_for()
    confirm(page, "Withdraw")
    page.get_by_text("No bid stands in this market.").wait_for()


def test_a_node_that_is_not_there_is_told(published, page_of):
    page = page_of()
    go(page, published.market, "feeder")
    name_node(page, "nowhere")
    page.get_by_role("status").get_by_text("No node that is shown is called nowhere.").wait_for()


def test_the_diagram_is_moved_by_keys(published, page_of):
    page = page_of()
    go(page, published.market, "feeder")
    until(page, lambda: painted(page) > 0)
    page.get_by_role("img", name="One-line diagram").focus()
    drawn = "document.querySelector('canvas').toDataURL()"
    for key in ("+", "ArrowRight", "ArrowDown", "-"):
        before = page.evaluate(drawn)
        page.keyboard.press(key)
        until(page, lambda before=before: page.evaluate(drawn) != before)


def test_whoever_loses_the_key_is_asked_for_another(server, published, context):
    issued = published.operator.issue_key("short", "aggregator", published.participant.id)
    page = watched(context, f"{server.url}/", issued.key).page
    go(page, published.market, "bids")
    page.get_by_role("region", name="Statement").wait_for()
    published.operator._transport._send("DELETE", f"/v1/keys/{issued.id}", may_repeat=False)
    page.get_by_label("API key").wait_for(timeout=20_000)
    page.get_by_text("The session has ended").wait_for()
    page.get_by_label("API key").fill(published.key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.get_by_text("The session has ended").count() == 0
    page.close()


def test_a_feeder_of_three_phases_on_a_day_of_23_hours(server, page_of):
    with Client(server.url, server.key) as operator:
        name, now = f"ieee13-{uuid4().hex[:8]}", datetime.now(UTC)
        feeder = operator.add_feeder(name, shipped="ieee13")
        market = operator.add_market(
            name,
            feeder.id,
            "2027-03-14",
            market_timezone="America/Los_Angeles",
            gate_opens_at=f"{now:%FT%TZ}",
            gate_closes_at=f"{now + timedelta(hours=1):%FT%TZ}",
            import_price_usd_per_mwh=[30.0],
        )
        operator.close_gate(market.id)
        assert operator.run(market.id).state == "succeeded"
        operator.publish(market.id)
    page = page_of()
    go(page, market, "feeder")
    slider = page.get_by_role("slider", name="Interval")
    assert slider.get_attribute("max") == "22"
    slider.fill("2")
    assert page.locator("output").first.inner_text() == "03:00"
    page.get_by_label("Phase").select_option("2")
    second = price_of(page, "671.2")
    name_node(page, "671.1")
    page.get_by_role("status").get_by_text("No node that is shown is called 671.1.").wait_for()
    page.get_by_label("Phase").select_option("any")
    assert price_of(page, "671.1") != pytest.approx(second)


CURVES = """async ([bid, of]) => {
    const { curveOf } = await import('/console/assets/bids.js');
    const award = { lmp_usd_per_mwh: 31, lmp_q_usd_per_mvarh: 4 };
    return curveOf(bid, { interval: 7, currency: 'USD', name: 'plant', award, of });
}"""
OFFERS = {
    "energy": (
        {"side": "supply", "segments": [{"quantity_kw": 5, "price_usd_per_mwh": 20, "price_end_usd_per_mwh": 25}]},
        {"segments": [{"segment": 0, "award_kw": 9}, {"segment": 1, "award_kw": 2}, {"segment": 2, "award_kw": 1}]},
        (5, 3, 31, "kW", "USD/MWh"),
    ),
    "reactive": (
        {"side": "inject", "segments": [{"quantity_kvar": 40, "price_usd_per_mvarh": 2.5}]},
        {"reactive_segments": [{"segment": 0, "side": "inject", "award_kvar": 30}]},
        (40, 30, 4, "kvar", "USD/MVArh"),
    ),
    "block": (
        {"side": "supply", "quantity_kw": 80, "price_usd_per_mwh": 24},
        {"blocks": [{"block": "bid_other", "accepted_share": 1}, {"block": "bid_1", "accepted_share": 0.5}]},
        (80, 40, 31, "kW", "USD/MWh"),
    ),
    "var_up": (
        {"quantity": 50, "price_usd_per_mw_h": 4.5},
        {"services": [{"service": "var_up", "reserved": 12, "price_usd_per_mw_h": 6}]},
        (50, 12, 6, "kvar", "USD/MW-h"),
    ),
}


@pytest.mark.parametrize("product", OFFERS)
def test_an_offer_is_drawn_with_what_was_accepted_of_it(product, published, page_of):
    terms, tables, expected = OFFERS[product]
    kept = {"segments": [], "reactive_segments": [], "blocks": [], "services": []}
    for name, rows in tables.items():
        kept[name] = [{"interval": 7, "side": "supply"} | row for row in rows]
        kept[name] += [row | {"interval": 8} for row in kept[name] if name != "blocks"]
    found = page_of().evaluate(CURVES, [{"id": "bid_1", "product": product, "terms": terms}, kept])
    seen = sum(part["quantity"] for part in found["parts"]), found["accepted"], found["price"]
    assert (*seen, found["unit"], found["priceUnit"]) == expected


def test_a_reactive_bid_is_drawn_as_it_was_awarded(server, page_of):
    found = open_desk(server)
    plant = found.operator.add_resource(
        found.participant.id, found.market.feeder, "plant", "17", "generator", p_max_kw=1.0, q_max_kvar=90.0
    )
    curve = ((60.0, -5.0), (30.0, 900.0))
    with found.client() as client:
        client.submit(Bid(found.market.id, plant.id, "inject", curve, product="reactive"))
    found.operator.close_gate(found.market.id)
    assert found.operator.run(found.market.id).state == "succeeded"
    found.operator.publish(found.market.id)
    page = page_of(found.key)
    go(page, found.market, "bids")
    page.get_by_label("Resource").select_option("plant")
    page.get_by_role("img", name=re.compile("plant to inject: 90 of 90 kvar accepted at")).wait_for()
    found.operator.close()


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
                name_node(page, "17")
                page.locator(".node .sum").wait_for()
            found = Axe().run(page).response["violations"]
            serious = [one for one in found if one["impact"] in SERIOUS]
            assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious] == [], view
            assert page.evaluate("document.documentElement.scrollWidth") <= width, view
        seen.assert_quiet()
