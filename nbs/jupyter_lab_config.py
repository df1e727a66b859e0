"""JupyterLab's settings for `make lab`.

A notebook is saved as it is committed, so that opening or running one leaves no trace in Git.
"""

from pathlib import Path

from nbdev.clean import clean_nb


def clean(model, path, **_):
    """Before saving: drop counts and metadata.

    Outputs, too, where they show the leads at hand: they are for reports and README, not for Git.
    """
    if model["type"] != "notebook":
        return
    clean_nb(model["content"], allowed_cell_metadata_keys=["tags"])
    for cell in model["content"]["cells"]:
        if ("pipeline" in path or path.endswith("index.ipynb")) and cell["cell_type"] == "code":
            cell["outputs"] = []


c.FileContentsManager.pre_save_hook = clean  # noqa: F821
c.ServerApp.root_dir = str(Path(__file__).resolve().parents[1])
c.LabApp.default_url = "/lab/tree/nbs/index.ipynb"
c.ServerApp.allow_root = True  # in a container; the page binds to 127.0.0.1
