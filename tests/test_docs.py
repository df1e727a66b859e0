"""Every command in the docs and in `--help` runs as it stands there, and what succeeds says nothing on stderr."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT, environment, run

from leadscore.data import NAMES

pytestmark = pytest.mark.slow
LISTED = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md", cwd=ROOT).stdout.split("\n")
PAGES = [name for name in LISTED if name and (ROOT / name).is_file()]
FENCE = re.compile(r"^( *)(```+|~~~+)([^\n`]*)\n(.*?)^\1\2", re.M | re.S)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
CRON = re.compile(r"^([\d*][\d*,/-]* +){5}")
SHELL, PYTHON = {"", "bash", "sh", "shell"}, {"python"}
NO_CODE = {"yaml", "{toctree}", "{include}", "{literalinclude}", "{raw}", "ini"}  # ini: the units of systemd
SERVE = "mlflow models serve --model-uri models:/leadscore@champion --env-manager local --host 127.0.0.1 --port 5001"
NOT_RUN = {  # `make` is not in it: what it would run is printed instead
    "pip install .": "tests/test_installs.py",
    "pip install '.[scale]'": "tests/test_installs.py",
    "leadscore champion --revert": "takes a second champion: nbs/22_champion.ipynb",
    SERVE: "a server",
}
STAND_INS = {"dvc exp run -S": "dvc exp run --queue -S"}  # it takes minutes; tests/test_pipeline.py runs one


def read_blocks(text):
    "Language and code of each fenced block."
    return [(match[3].split(" ")[0].strip(), match[4].replace("\\\n", " ")) for match in FENCE.finditer(text)]


def read_commands(code):
    "The lines of a block of shell, without comments."
    lines = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in code.splitlines()]
    return [line for line in lines if line]


class Reader:
    "Somebody who types what the docs say, in a copy of the repo at /srv/leadscore."

    def __init__(self, srv):
        self.srv, self.exported = srv, {"HOME": str(srv / "home"), "COLUMNS": "300"}

    def call(self, *command):
        clone = self.srv / "leadscore"
        variables = environment(clone, **self.exported)
        done = subprocess.run(command, cwd=clone, env=variables, capture_output=True, text=True)
        said = f"exit code {done.returncode}: {command[-1]}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0 and not done.stderr, said
        return done.stdout

    def shell(self, code):
        code = re.sub("/(srv|tmp)/", f"{self.srv}/", code)
        if code.startswith("#!"):  # a script to be saved, for cron
            path = self.srv / "bin/score-leads"
            path.write_text(code)
            path.chmod(0o755)
            return self.call(str(path))
        script = ['make() { command make --dry-run "$@"; }']
        for command in read_commands(code):
            if command in NOT_RUN:
                self.check_options(command)
            else:
                for documented, instead in STAND_INS.items():
                    command = command.replace(documented, instead)
                script.append(f"{CRON.sub('', command)} || exit")
        self.exported |= dict(re.findall(r"^export (\w+)=(\S+)", "\n".join(script), re.M))
        return self.call("bash", "-c", "\n".join(script))

    def check_options(self, command):
        words = command.split()
        options = [word for word in words if word.startswith("--")]
        if options:
            said = self.call(*words[: words.index(options[0])], "--help")
            assert [option for option in options if option not in said.replace(",", " ").split()] == [], command

    def read(self, text):
        for language, code in read_blocks(text):
            assert language in SHELL | PYTHON | NO_CODE, f"```{language}: neither run nor listed"
            if language in SHELL:
                self.shell(code)
            elif language in PYTHON:
                self.call("python", "-c", code)


@pytest.fixture
def reader(repo, tmp_path):
    "With the files and folders that the docs speak of."
    srv = tmp_path / "srv"
    clone = shutil.copytree(repo, srv / "leadscore", symlinks=True)
    run("leadscore", "champion", cwd=clone)  # MLflow's store follows
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(Path(sys.prefix) / "bin")
    for folder in (srv / "leads", srv / "home/leads", clone / "path/to/folder"):
        shutil.copytree(clone / "data", folder)
    for folder in (srv / "bin", srv / "lists", clone / "leads", clone / "to_score"):
        folder.mkdir()
    shutil.copyfile(clone / f"data/{NAMES[0]}.csv", clone / "leads/part-1.csv")
    for path in (clone / "to_score/part-1.csv", clone / "leads.csv", srv / "leads/new.csv"):
        shutil.copyfile(clone / f"data/{NAMES[1]}.csv", path)
    leads = pd.read_csv(clone / "leads.csv", dtype=str, keep_default_na=False).rename(columns={"Unnamed: 0": ""})
    leads.assign(name="Ada", phone="+49 30").to_csv(clone / "contacts.csv", index=False)
    (clone / "path/to/model").symlink_to(clone / "outputs/train/model")
    return Reader(srv)


@pytest.mark.parametrize("page", [page for page in PAGES if FENCE.search((ROOT / page).read_text())])
def test_blocks_run(reader, page):
    reader.read((ROOT / page).read_text())


def read_help(reader, *command):
    return reader.call("leadscore", *command, "--help")


def list_commands(reader):
    return re.findall(r"^ {4}(\w+) ", read_help(reader), re.M)


def test_examples_of_help_run(reader):
    examples = []
    for command in [[], *([name] for name in list_commands(reader))]:
        [example] = re.findall(r"^example:(.*\n(?:  .*\n)*)", read_help(reader, *command), re.M)
        if example not in examples:
            examples.append(example)
            reader.shell(example)
    assert len(examples) > 1


def test_commands_options_and_parameters_in_the_text_exist(reader):
    helps = {name: read_help(reader, name) for name in list_commands(reader)} | {"": read_help(reader)}
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    missing = []
    for page in PAGES:
        for code in INLINE.findall(FENCE.sub("", (ROOT / page).read_text())):
            first, *words = code.split()
            section, _, key = first.partition(".")
            if first == "make" and words:
                reader.shell(code)
            elif first == "leadscore" and words:
                command = "" if words[0].startswith("--") else words[0]
                found = command in helps and all(word in helps[command] for word in words if word.startswith("--"))
            elif first.startswith("--"):
                found = any(first in text for text in helps.values())
            elif section in params and re.fullmatch(r"\w+", key):
                found = key in params[section]
            else:
                continue
            missing += [] if found else [f"{page}: `{code}`"]
    assert missing == []


def test_the_list_of_what_is_not_run_is_not_longer_than_it_must_be():
    blocks = [block for page in PAGES for block in read_blocks((ROOT / page).read_text())]
    commands = [command for _, code in blocks for command in read_commands(code)]
    assert [command for command in NOT_RUN if command not in commands] == []


@pytest.mark.parametrize(
    "block", ["```bash\nmake nonsense\n```", "```\nleadscore scor leads.csv\n```",
              "```sh\nleadscore check --nope leads.csv\n```", "```bash\nfalse && true\ntrue\n```",
              "```bash\necho a >&2\n```", "```python\nimport nonsense\n```", "```ruby\n```"],
)  # fmt: skip
def test_what_does_not_run_is_found(reader, block):
    with pytest.raises(AssertionError):
        reader.read(block)
