"""A notebook that is run by hand and saved in JupyterLab."""

import json
import shutil
import socket
import subprocess
import urllib.request
from contextlib import contextmanager

import nbclient
import nbformat
import pytest
from conftest import ROOT, environment, run, wait_for

pytestmark = pytest.mark.slow
TOKEN = "of-this-test"


@contextmanager
def jupyter_lab(folder):
    "JupyterLab's server in `folder`, set as the repo sets it; gives a function that asks for a notebook, or saves one."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    command = ["jupyter", "lab", "--no-browser", *address, "--config=nbs/jupyter_lab_config.py"]
    server = subprocess.Popen(command, cwd=folder, env=environment(folder), stderr=subprocess.DEVNULL)

    def ask(name, content=None):
        body = None if content is None else json.dumps({"type": "notebook", "content": content}).encode()
        url, method = f"http://127.0.0.1:{port}/api/contents/{name}", "PUT" if body else "GET"
        request = urllib.request.Request(url, body, {"Authorization": f"token {TOKEN}"}, method=method)
        return json.load(urllib.request.urlopen(request))["content"]

    try:
        wait_for(f"http://127.0.0.1:{port}/api")
        yield ask
    finally:
        server.terminate()
        server.communicate()


@pytest.fixture
def clone(repo, tmp_path):
    "A copy of the repo, its cache and history."
    return shutil.copytree(repo, tmp_path / "clone", symlinks=True)


def test_a_notebook_saved_in_jupyterlab_leaves_no_trace(clone):
    with jupyter_lab(clone) as ask:
        for name in ("pipeline/01_clean", "pipeline/03_train", "pipeline/05_infer", "index"):
            content = ask(f"nbs/{name}.ipynb")
            place = {"metadata": {"path": (clone / f"nbs/{name}").parent}}
            executed = nbclient.NotebookClient(nbformat.from_dict(content), resources=place).execute()
            assert any(cell.get("outputs") for cell in executed.cells)
            ask(f"nbs/{name}.ipynb", executed)
        for path in sorted((ROOT / "nbs").glob("*.ipynb")):
            content = ask(f"nbs/{path.name}")
            kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
            content["metadata"] |= {"language_info": {"name": "python"}, "kernelspec": kernel}
            for cell in content["cells"]:
                cell["metadata"]["trusted"] = True
                if cell["cell_type"] == "code":
                    cell["execution_count"] = 1
            ask(f"nbs/{path.name}", content)
    assert run("git", "status", "--porcelain", cwd=clone).stdout == ""
    assert "up to date" in run("dvc", "status", cwd=clone).stdout
