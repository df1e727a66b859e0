"""What a person sees in a browser: the site, profile report, DVC's plots and MLflow's page. Nothing asks the web."""

import functools
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from html.parser import HTMLParser
from time import monotonic
from urllib.parse import unquote, urljoin, urlsplit

import mlflow
import nbformat
import pytest
import yaml
from conftest import ROOT, commit, environment, fails, run, wait_for

from leadscore.params import STAGES, LeadscoreError
from leadscore.params import notebook_name

sys.path.insert(0, str(ROOT / "docs"))
from build_site import check_reports, read_notebook  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]  # one site, one browser
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
KINDS = ["index", "use/calls", "use/compare", "pipeline", "reports/04_evaluate", "nbs/11_features", "nbs/study"]
KINDS += ["api/13_model", "cards/model", "decisions"]


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        assert os.environ.get("CI") != "true", "chromium is missing"
        pytest.skip("chromium is missing; install Debian's")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


def describe(message):
    "What the browser's console says."
    return f"console: {message.text} {message.location['url']}"


@pytest.fixture
def page(browser):
    "A page whose every request must go to this machine and succeed, and whose console must stay free of errors."
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(urlsplit(request.url)))
    left = "net::ERR_ABORTED"  # by a person who went on
    page.on("requestfailed", lambda request: request.failure != left and wrong.append(f"failed: {request.url}"))
    page.on("response", lambda response: response.status >= 400 and wrong.append(f"{response.status}: {response.url}"))
    page.on("console", lambda message: message.type == "error" and wrong.append(describe(message)))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    yield page
    page.wait_for_timeout(300)  # what a page does after it has loaded
    context.close()
    assert {url.hostname for url in asked if url.scheme not in ("data", "blob")} == {"127.0.0.1"}
    # MLflow's page asks who is there, though there are no accounts.
    assert [fault for fault in wrong if not fault.endswith("/mlflow/users/current")] == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/favicon.ico":  # the browser asks for it of itself
            self.send_error(204)
        else:
            super().do_GET()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def serve():
    "Serves a folder on 127.0.0.1 and gives its URL."
    servers = []

    def start(folder):
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def tracking(repo):
    "Starts MLflow's server on the copy's runs and gives its URL; it answers later."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = ["--workers", "1", "--backend-store-uri", f"sqlite:///{repo}/mlflow.db"]
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", port, *options]
    quiet = {"start_new_session": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    variables = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, cwd=repo, env=environment(repo, **variables), **quiet)
    yield f"http://127.0.0.1:{port}/"
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()


@pytest.fixture(scope="module")
def built(repo, tracking):  # the server starts meanwhile
    start = monotonic()
    run("python", "docs/build_site.py", cwd=repo)
    assert monotonic() - start < 60
    return repo / "_docs"


@pytest.fixture(scope="module")
def site(built, serve):
    return serve(built)


def test_home_leads_on(page, site):
    page.goto(site)
    assert page.title() == "leadscore" and page.locator("h1").inner_text().startswith("leadscore")
    assert page.get_by_text("An ed-tech company pays for leads").is_visible()
    cards = page.locator(".cards a")
    assert cards.all_inner_texts() == ["Use it", "Pipeline", "Library", "API", "Cards", "Decisions"]
    for name in cards.all_inner_texts():
        page.goto(site)
        page.locator(".cards a", has_text=name).first.click()
        assert page.locator("h1").inner_text().startswith(name)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_page_shows_its_figures(page, repo, site, stage):
    name = notebook_name(stage)
    cells = nbformat.read(repo / f"reports/{name}.ipynb", 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    figures = sum("image/png" in output.get("data", {}) for output in outputs)
    page.goto(f"{site}reports/{name}.html")
    widths = page.locator("article img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == figures and all(width > 100 for width in widths)
    texts = page.locator("article img").evaluate_all("images => images.map(image => image.alt)")
    assert all(text.startswith("Figure: ") for text in texts)
    assert page.locator("article table").count() == sum("text/html" in output.get("data", {}) for output in outputs)
    assert not page.locator("article pre").first.is_visible()  # code is folded
    page.locator("article summary").first.click()
    assert "import pandas as pd" in page.locator("article pre").first.inner_text()


def test_api_entry_leads_to_its_notebook(page, site):
    page.goto(f"{site}api/15_measure.html")
    entry = page.locator("dl.py", has=page.locator("[id='leadscore.measure.curve_decision']"))
    text = entry.inner_text()
    assert "probabilities: dict[str, ndarray]" in text and "threshold, one column per model" in text
    assert re.search(r"Parameters:\s.*label \(.*\) – .*Returns:\s.*Source\s+Vickers and Elkin", text, re.S)
    assert "----" not in text
    entry.get_by_text("[source]").click()
    page.locator("#curves h2").wait_for()
    assert page.url.endswith("/nbs/15_measure.html#curves")


def test_search_finds_a_function(page, site):
    page.goto(site)
    page.keyboard.press("Control+k")
    page.keyboard.type("backtest")
    page.keyboard.press("Enter")
    found = page.locator("#search-results a", has_text="leadscore.audit.backtest").first
    found.wait_for()
    found.click()
    page.locator("[id='leadscore.audit.backtest']").wait_for()
    assert page.url.split("#")[0] == f"{site}api/16_audit.html"


def test_dark_mode_stays(page, site):
    background = "getComputedStyle(document.body).backgroundColor"
    page.goto(site)
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.locator(".theme-switch-button").first.click()
    page.get_by_role("button", name="Dark").first.click()
    dark = page.evaluate(background)
    assert max(map(int, re.findall(r"\d+", dark)[:3])) < 60
    page.reload()
    assert page.evaluate(background) == dark


def test_a_phone_scrolls_down_only(page, site):
    page.set_viewport_size({"width": 400, "height": 800})
    for kind in KINDS:
        page.goto(f"{site}{kind}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, kind
        assert page.locator("h1").is_visible()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        self.links += [(tag, attributes[name]) for name in ("href", "src") if attributes.get(name)]


def read_links(path):
    links = Links()
    links.feed(path.read_text())
    return links


def test_no_link_is_broken(built):
    pages = {f"/{path.relative_to(built)}": read_links(path) for path in built.rglob("*.html")}
    assert len(pages) > 40
    broken, loaded = [], []
    for name, parsed in pages.items():
        for tag, link in parsed.links:
            target = urlsplit(urljoin(f"http://site{name}", link))
            if target.netloc != "site":
                loaded += [(name, link)] if tag != "a" and target.scheme != "data" else []
                continue
            is_there = (built / unquote(target.path).lstrip("/")).exists()
            if not is_there or (target.fragment and unquote(target.fragment) not in pages[target.path].ids):
                broken.append((name, link))
    assert broken == [] and loaded == []


def test_reader_drops_what_is_for_nbdev(built, tmp_path):
    shown = nbformat.v4.new_output("stream", text="shown")
    cells = [
        nbformat.v4.new_raw_cell("---\nskip_exec: true\n---"),
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("#| default_exp x"),
        nbformat.v4.new_code_cell("#|export\ndef f(): ..."),
        nbformat.v4.new_code_cell("#| eval: false\n#| echo: false\nf()", outputs=[shown]),
        nbformat.v4.new_code_cell("#| hide\nimport nbdev; nbdev.nbdev_export()"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    _, code, output = read_notebook(tmp_path / "x.ipynb").cells
    assert (code.source, code.metadata.tags) == ("def f(): ...", [])
    assert (output.source, output.metadata.tags, output.outputs[0].text) == ("f()", ["remove-input"], "shown")
    text = "".join(re.sub("<[^>]+>", "", path.read_text()) for path in built.glob("nbs/*.html"))
    assert "def curve_gain" in text and "#|" not in text and "nbdev_export()" not in text


@pytest.fixture
def copy(repo, tmp_path):
    "A copy whose reports may be spoilt."
    left = shutil.ignore_patterns("_docs", ".venv", "mlflow.db", "mlruns")
    return shutil.copytree(repo, tmp_path / "repo", symlinks=True, ignore=left)


def edit_lock(root, stages, path):
    "As if stages had last read another state of a path."
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    for dep in [dep for stage in stages for dep in lock["stages"][stage]["deps"] if dep["path"] == path]:
        dep["md5"] = "0" * len(dep["md5"])
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))


def refuse(root):
    with pytest.raises(LeadscoreError) as refused:
        check_reports(root)
    return str(refused.value)


def test_reports_that_are_not_as_the_pipeline_left_them_are_refused(copy):
    check_reports(copy)
    report = copy / "reports/04_evaluate.ipynb"
    report.write_text(report.read_text().replace("auc", "AUC"))
    assert refuse(copy) == "reports/04_evaluate.ipynb: not what the pipeline made of the sample; run make repro first"
    report.unlink()
    assert refuse(copy) == "reports/04_evaluate.ipynb: missing; run make repro first"
    assert fails("python", "docs/build_site.py", cwd=copy) == f"leadscore: {refuse(copy)}"
    assert not (copy / "_docs").exists()


def test_reports_of_other_leads_are_refused(copy):
    # The sample came back, and the run on it was stopped.
    edit_lock(copy, ["experiment", "train"], "outputs/clean/leads.parquet")
    assert refuse(copy) == "outputs/clean/leads.parquet: not what the pipeline made of the sample; run make repro first"
    edit_lock(copy, ["profile", "clean"], "data")
    assert refuse(copy) == "data: not what the pipeline made of the sample; run make repro first"
    run("git", "checkout", "--quiet", "dvc.lock", cwd=copy)
    check_reports(copy)
    (copy / "data/leadscoring.csv").write_text((copy / "data/leadscoring.csv").read_text().replace("2021-", "2020-"))
    assert refuse(copy) == "data: not the sample's leads; run make data FROM=sample, then make repro"
    run("dvc", "commit", "--force", "--quiet", cwd=copy)  # as if the pipeline had run on them
    commit(copy)
    assert refuse(copy) == "data: not the sample's leads; run make data FROM=sample, then make repro"
    assert fails("python", "docs/build_site.py", "--check", cwd=copy) == f"leadscore: {refuse(copy)}"


def test_profile_report(page, serve, work):
    cells = nbformat.read(work / "nbs/pipeline/00_profile.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    run("python", "-c", code.replace("html = False", "html = True"), cwd=work, MPLBACKEND="agg")
    page.goto(f"{serve(work / 'reports')}profile.html")
    assert page.title().startswith("700 labelled leads, 2021-07-01 to ")
    assert page.get_by_text("Number of observations").first.is_visible()
    for column in ("lead_id", "first_platform_c", "app_complete_flag"):
        assert page.get_by_role("link", name=column, exact=True).first.is_visible()


def test_dvc_plots_page_holds_each_plot(repo, tmp_path):
    run("dvc", "plots", "show", "--out", str(tmp_path / "plots"), cwd=repo)
    html = (tmp_path / "plots/index.html").read_text()
    specs = dict(re.findall(r'<div id ?= ?"([^"]+)">\s*<script[^>]*>\s*var spec = (\{.*?\});', html, re.S))
    plots = yaml.safe_load((repo / "dvc.yaml").read_text())["plots"]
    declared = {name: plot for entry in plots for name, plot in entry.items()}
    assert set(specs) == set(declared)
    for name, plot in declared.items():
        spec = json.loads(specs[name])
        rows = spec["data"]["values"]
        assert plot["x"] in rows[0] and len(rows) > 1 and plot["title"] in specs[name], name
        assert all(label in specs[name] for key, label in plot.items() if key.endswith("_label")), name
        for columns in plot["y"].values():
            drawn = {row.get("field") for row in rows} | set(rows[0])
            assert set([columns] if isinstance(columns, str) else columns) <= drawn, (name, drawn)


def test_mlflow_shows_a_finished_run(page, repo, tracking):
    client = mlflow.MlflowClient(f"sqlite:///{repo}/mlflow.db")
    experiment = client.get_experiment_by_name("leadscore").experiment_id
    [evaluate] = client.search_runs([experiment], "tags.stage = 'evaluate'")
    wait_for(f"{tracking}health")
    page.goto(f"{tracking}#/experiments/{experiment}/runs")
    page.get_by_role("link", name="evaluate").first.wait_for(timeout=30_000)
    page.goto(f"{tracking}#/experiments/{experiment}/runs/{evaluate.info.run_id}")
    page.get_by_text("Finished").first.wait_for(timeout=30_000)
    assert evaluate.data.metrics
    page.get_by_text(f"Metrics ({len(evaluate.data.metrics)})").wait_for(timeout=30_000)
