"""The console on a large feeder: ``python -m benchmarks.console`` clears a day of it and looks at it in a browser.

What is told: from the address to the first picture, and each repaint as the slider goes over the day.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from dlmp.client import Client
from dlmp.simulation import own_service

REPAINTS = "performance.getEntriesByName('feeder repaint').map(one => one.duration)"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 60_000


def tables(nodes: int, seed: int = 0) -> dict[str, str]:
    """Files of a feeder of so many buses: a trunk with laterals, lightly loaded."""
    random = np.random.default_rng(seed)
    parent = [max(0, number - 1 - int(random.integers(0, 12) * (random.random() < 0.3))) for number in range(1, nodes)]
    rows = [f"b{number},12.47,{0.2 * (number > 0)},0.05,,,{int(number == 0)}" for number in range(nodes)]
    lines = [f"l{number},b{start},b{number},0.0005,0.0005,0,20000," for number, start in enumerate(parent, 1)]
    return {
        "case.toml": 'name = "large"\n[network]\nsource = "tables:."\nv_min_pu = 0.9\nv_max_pu = 1.1\n',
        "nodes.csv": "\n".join(["bus,base_kv,p_kw,q_kvar,v_min_pu,v_max_pu,is_source", *rows]) + "\n",
        "lines.csv": "\n".join(["line,from_bus,to_bus,r_ohm,x_ohm,b_us,rate_kva,rate_a", *lines]) + "\n",
    }


def published(operator: Client, nodes: int) -> str:
    """A published day of a feeder of so many buses; returns its market."""
    feeder = operator.add_feeder("large", files=tables(nodes))
    now = datetime.now(UTC)
    market = operator.add_market(
        "large",
        feeder.id,
        f"{now + timedelta(days=1):%F}",
        market_timezone="UTC",
        gate_opens_at=f"{now:%FT%TZ}",
        gate_closes_at=f"{now + timedelta(hours=1):%FT%TZ}",
        import_price_usd_per_mwh=[20.0 + hour for hour in range(24)],
    )
    operator.close_gate(market.id)
    run = operator.run(market.id)
    if run.state != "succeeded":
        raise SystemExit(run.reason)
    operator.publish(market.id)
    return market.id


def looked_at(url: str, market: str) -> dict[str, float]:
    """Seconds to the first picture, and milliseconds of repaints as the slider moves."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - with the tests' packages only

    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(TIMEOUT_MS)
        began = time.perf_counter()
        page.goto(f"{url}/#/market/{market}/feeder")
        page.locator("canvas").wait_for()
        while not page.evaluate(REPAINTS):
            page.wait_for_timeout(20)
        opened_s = time.perf_counter() - began
        before = len(page.evaluate(REPAINTS))
        slider = page.get_by_role("slider", name="Interval")
        for interval in range(1, 24):
            slider.fill(str(interval))
            page.wait_for_timeout(150)
        repaints = page.evaluate(REPAINTS)[before:]
        browser.close()
    return {
        "opened_s": round(opened_s, 3),
        "repaints": len(repaints),
        "repaint_median_ms": round(statistics.median(repaints), 2),
        "repaint_most_ms": round(max(repaints), 2),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    nodes = parser.parse_args().nodes
    with own_service() as (url, key):
        with Client(url, key) as operator:
            market = published(operator, nodes)
        json.dump({"nodes": nodes, **looked_at(url, market)}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
