"""The report's page in a real browser: Debian's Chromium without a window, opened from `file://`."""

import contextlib
import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import DEPTHS, outcome
from studies import planned, result_of, write_run, write_study

from cnnjepa.ablations.report.build import build_report
from cnnjepa.schemas import Floors
from cnnjepa.schemas.study import Study

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        BROWSER is None or DRIVER is None,
        reason="Chromium and its driver are not installed (Debian: chromium chromium-driver)",
    ),
]

WAIT = 10  # seconds until a plot must have been drawn


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study, and one with a name and an error that would break a page that does not escape."""
    root = tmp_path_factory.mktemp("page")
    write_study(root, DEPTHS, outcome, planned(DEPTHS, lambda config: "folder-imagenet100"))
    odd = Study(
        name="odd", question="Is 1 < 2 & </script> harmless?", preset="smoke",
        axes={"kind": {"<b>bold</b>": {"predictor.kernel_size": 5}, "plain": {}}}, seeds=(0, 1),
        set={"predictor.kernel_size": 7},
    )  # fmt: skip
    trials = write_study(root, odd, lambda arm, seed: (50.0 + seed, 40.0 - seed) if arm == "plain" else None)
    failed = result_of(trials[0], 0, 0, status="failed", error="</script><script>document.title='broken'</script>")
    write_run(root, trials[0], failed)
    floors = Floors(metrics={"untrained": {"purity": 0.125}, "pixels": {}})
    write_run(root, trials[-1], result_of(trials[-1], 51, 39, metrics={"purity": 0.75}, floors=floors))
    build_report(root, [])
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        "--window-size=1280,900", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(WAIT)
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, root: Path) -> Iterator[Any]:
    """The study's page, afresh; whatever the browser complained of meanwhile fails the test."""
    yield from visit(browser, root / "studies" / "depths" / "report" / "report.html")


def visit(browser: Any, path: Path) -> Iterator[Any]:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(path.as_uri())
    yield browser
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert complaints == []


def column(browser: Any, table: str, key: str, what: str = "span") -> list[str]:
    """The shown texts of a column, top to bottom."""
    script = """
        const table = document.querySelector(`table[data-name="${arguments[0]}"]`);
        const place = [...table.querySelectorAll("thead th")].findIndex((th) => th.dataset.key === arguments[1]);
        return [...table.tBodies[0].rows].filter((row) => row.offsetParent !== null)
            .map((row) => row.cells[place].querySelector(arguments[2])?.textContent ?? "");
    """
    return browser.execute_script(script, table, key, what)


def wait_for(browser: Any, script: str) -> None:
    """Until the expression is true in the page."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT).until(lambda b: b.execute_script(f"return {script}"))


def test_the_page_opens_without_complaints_and_begins_with_words(opened: Any) -> None:
    first = opened.execute_script("return document.querySelector('main li').textContent")
    assert "Worse than depth=2 by linear top-1" in first
    assert opened.execute_script("return document.querySelector('h1').textContent") == "Study depths"
    # All three plots are drawn, with the interval of every arm.
    for kind in ("accuracy", "cost", "curves"):
        opened.execute_script(f"document.getElementById('plot-depths-{kind}').scrollIntoView()")
        wait_for(opened, f"document.querySelector('#plot-depths-{kind} .plot .main-svg') !== null")
    wait_for(opened, "document.querySelectorAll('#plot-depths-accuracy .errorbar').length === 4")


def test_nothing_is_fetched(opened: Any) -> None:
    """No network: everything that the page loads is itself or inlined."""
    names = opened.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []


def test_no_button_of_a_plot_sends_it_anywhere(opened: Any) -> None:
    """The plotting library has one that uploads the plot's data, on by default."""
    opened.execute_script("document.getElementById('plot-depths-accuracy').scrollIntoView()")
    wait_for(opened, "document.querySelectorAll('#plot-depths-accuracy .modebar-btn').length > 0")
    buttons = "[...document.querySelectorAll('.modebar-btn')]"
    names = opened.execute_script(f"return {buttons}.map((button) => button.dataset.title ?? button.dataset.attr)")
    assert names and not [name for name in names if "cloud" in name.lower() or "send" in name.lower()]


@pytest.mark.parametrize("protocol", ["held_out", "published"])
def test_the_numbers_in_the_page_are_those_of_the_csv(opened: Any, root: Path, protocol: str) -> None:
    name = f"depths_accuracy_{protocol}"
    with open(root / "studies/depths/report/tables" / f"{name}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert column(opened, name, "arm") == [row["arm"] for row in rows]
    for metric in ("linear_top1", "knn_top1", "linear_top5", "knn_top5"):
        shown = [text.split(" ± ") for text in column(opened, name, metric)]
        told = [(row[f"{metric}_mean"], row[f"{metric}_sd"]) for row in rows]
        assert shown == [[f"{float(mean):.2f}", f"{float(sd):.2f}"] for mean, sd in told]
        intervals = column(opened, name, metric, "small")
        assert intervals == [f"[{float(row[f'{metric}_low']):.2f}, {float(row[f'{metric}_high']):.2f}]" for row in rows]
    for metric in ("linear_top1", "knn_top1"):
        differences = column(opened, name, f"{metric}_difference")
        told = [row[f"{metric}_difference_mean"] for row in rows]
        assert differences == [f"{float(d):+.2f}".replace("-", "−") if d else "–" for d in told]
        assert column(opened, name, f"{metric}_verdict") == [row[f"{metric}_verdict"] for row in rows]
        if protocol == "published":
            published = column(opened, name, f"{metric}_published")
            assert published == [f"{float(row[f'{metric}_published']):.2f}" for row in rows]


def test_sorting_works_by_keyboard_and_is_announced(opened: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    name = "depths_accuracy_held_out"
    head = opened.find_element(By.CSS_SELECTOR, f"table[data-name='{name}'] th[data-key='linear_top1']")
    button = head.find_element(By.TAG_NAME, "button")
    assert head.get_attribute("aria-sort") == "none"
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "ascending"
    means = [float(text.split()[0]) for text in column(opened, name, "linear_top1")]
    assert means == sorted(means) and column(opened, name, "arm")[-1] == "depth=4"
    button.send_keys(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "descending"
    assert column(opened, name, "arm")[0] == "depth=4"
    # Another column takes over; the baseline, which has no difference, stays last either way.
    other = opened.find_element(By.CSS_SELECTOR, f"table[data-name='{name}'] th[data-key='linear_top1_difference']")
    for _ in range(2):
        other.find_element(By.TAG_NAME, "button").click()
        assert column(opened, name, "arm")[-1] == "depth=2"
    assert head.get_attribute("aria-sort") == "none"


def test_filtering_leaves_the_rows_that_hold_every_word(opened: Any) -> None:
    from selenium.webdriver.common.by import By

    field = opened.find_element(By.CSS_SELECTOR, "[data-filters='depths_runs']")
    field.send_keys("depth=3")
    assert set(column(opened, "depths_runs", "arm")) == {"depth=3"}
    count = opened.find_element(By.CSS_SELECTOR, "#table-depths_runs .count")
    assert count.text == "3 of 12 rows"
    field.send_keys(" 72.1")
    assert column(opened, "depths_runs", "seed") == ["2"]
    field.clear()
    field.send_keys("nothing has this")
    assert column(opened, "depths_runs", "arm") == []


def test_a_number_leads_to_its_trials_and_back(opened: Any, root: Path) -> None:
    from selenium.webdriver.common.by import By

    name = "depths_accuracy_held_out"
    cell = opened.find_elements(By.CSS_SELECTOR, f"table[data-name='{name}'] tbody tr")[2]
    cell.find_elements(By.CSS_SELECTOR, "td a")[0].click()
    wait_for(opened, "!document.getElementById('trial').hidden")
    listed = opened.find_elements(By.CSS_SELECTOR, "#trial tbody tr")
    assert len(listed) == 3 and all("depths: depth=3" in row.text for row in listed)
    listed[1].find_element(By.TAG_NAME, "a").click()
    wait_for(opened, "document.querySelector('#trial h1').textContent.startsWith('Trial ')")
    text = opened.find_element(By.ID, "trial").text
    assert "method.predictor.depth" in text and "0123456789abcdef" in text and "70.90" in text
    difference = opened.find_element(By.CSS_SELECTOR, "#trial section table tbody").text
    assert difference == "method.predictor.depth 3 2"
    wait_for(opened, "document.querySelectorAll('#trial .main-svg').length > 0")
    run, probe = opened.execute_script("return location.hash").split("/")[1].split("-")
    (folder,) = (root / "runs" / "by_hash").glob(f"{run}*")
    result = json.loads((folder / "result.json").read_text())
    assert result["pretrain_hash"] in text and result["seed"] == 1
    assert result["probe_hash"] in text and result["probe_hash"].startswith(probe)
    opened.find_element(By.CSS_SELECTOR, "#trial a").click()
    wait_for(opened, "!document.getElementById('overview').hidden && document.getElementById('trial').hidden")


def test_dark_and_light_follow_the_system_and_the_button(opened: Any) -> None:
    from selenium.webdriver.common.by import By

    def paper() -> str:
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    def system(theme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    system("light")
    light = paper()
    system("dark")
    wait_for(opened, "document.documentElement.dataset.theme === 'dark'")
    assert paper() != light
    opened.find_element(By.ID, "theme").click()
    assert paper() == light
    opened.execute_script("localStorage.clear()")
    system("light")


def test_a_phone_s_width_scrolls_tables_and_not_the_page(opened: Any) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    with contextlib.ExitStack() as after:
        after.callback(opened.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
        opened.refresh()
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 390
        run = opened.execute_script("return Object.keys(data.trials)[0]")
        opened.execute_script(f"location.hash = '#trial/{run}'")
        wait_for(opened, "!document.getElementById('trial').hidden")
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 390


def test_it_prints(opened: Any) -> None:
    """Every plot is in the print, the ones that were never scrolled to included, and the controls are not."""
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 50_000
    assert opened.execute_script("return document.querySelectorAll('.plot .main-svg').length > 2")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    with contextlib.ExitStack() as after:
        after.callback(opened.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"media": ""})
        shown = "[...document.querySelectorAll('header, .filter')].some((node) => node.offsetParent !== null)"
        assert not opened.execute_script(f"return {shown}")


def test_odd_names_are_text_and_nothing_else(browser: Any, root: Path) -> None:
    for page in visit(browser, root / "report" / "report.html"):
        assert page.title == "CNN-JEPA Bench: all studies"
        text = page.execute_script("return document.getElementById('overview').innerText")
        assert "Is 1 < 2 & </script> harmless?" in text and "<b>bold</b>" in text
        run = page.execute_script("return Object.values(data.trials).find((trial) => trial.state === 'failed').page")
        page.execute_script(f"location.hash = '#trial/{run}'")
        wait_for(page, "document.querySelector('#trial .problem') !== null")
        assert "</script><script>" in page.execute_script("return document.querySelector('#trial').innerText")
        assert page.title == "CNN-JEPA Bench: all studies"


def test_a_trial_s_page_shows_its_metrics_next_to_those_of_the_floors(browser: Any, root: Path) -> None:
    for page in visit(browser, root / "studies" / "odd" / "report" / "report.html"):
        script = (
            "Object.entries(data.trials).find(([, trial]) => (trial.sets || []).some((set) => set.metrics.purity))[0]"
        )
        page.execute_script(f"location.hash = '#trial/' + {script}")
        wait_for(page, "!document.getElementById('trial').hidden")
        (rows,) = (
            table
            for table in page.execute_script(
                "return [...document.querySelectorAll('#trial table')].map((one) => [...one.rows].map((row) => "
                "[...row.cells].map((cell) => cell.innerText)))"
            )
            if table[0][0] == "figure"
        )
        assert rows == [
            ["figure", "pretrained", "floor: untrained encoder", "floor: raw pixels"], ["purity", "0.75", "0.125", "–"]
        ]  # fmt: skip
