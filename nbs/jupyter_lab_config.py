"""JupyterLab's settings for `make lab`: a stage notebook is saved without outputs, so that running one leaves no trace in Git."""


def strip_outputs(model, path, **_):
    if model["type"] != "notebook" or "pipeline" not in path:
        return
    for cell in model["content"]["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            cell["metadata"] = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}


c.FileContentsManager.pre_save_hook = strip_outputs  # noqa: F821
c.ServerApp.allow_root = True  # in a container; the page binds to 127.0.0.1
