"""JupyterLab's settings for `make lab`: a notebook is saved as it is committed, so that opening or running one leaves no trace in Git."""

from nbdev.clean import clean_nb


def clean(model, path, **_):
    "Before saving: drop counts and metadata; a stage notebook's outputs, too, since its report keeps them."
    if model["type"] != "notebook":
        return
    clean_nb(model["content"], allowed_cell_metadata_keys=["tags"])
    for cell in model["content"]["cells"]:
        if "pipeline" in path and cell["cell_type"] == "code":
            cell["outputs"] = []


c.FileContentsManager.pre_save_hook = clean  # noqa: F821
c.ServerApp.allow_root = True  # in a container; the page binds to 127.0.0.1
