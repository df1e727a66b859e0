"""Files that no one should have made: each is scored with every lead in its place, or refused in one line.

More of them: pytest tests/test_bad_files.py --examples 100000.
"""

import csv
import gzip
import io
import os
import re
import socket
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

import pandas as pd
import pytest
from conftest import fails
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadscore.cli import main
from leadscore.params import Infer, LeadscoreError, one_line
from leadscore.bundle import Bundle
from leadscore.sample import make_leads
from leadscore.schema import CATEGORIES, CITY, DATE
from leadscore.lists import score_file

SIX = make_leads(6).iloc[:, :-1].astype(object)
LEADS = [[str(cell) for cell in row] for row in SIX.where(SIX.notna(), "").to_numpy()]
HEADER = list(make_leads(6).columns[:-1])
NASTY = [
    "", " ", "nan", "None", "inf", "-inf", "-1", "1.5", "1e3", "1e308", "0.9999999999999999999", "99999999", "٣",
    "0x10", "True", "1_000", "2", "=1+1", "@x", "\t1", "0\x1f", "\xa01",
    "2021-02-30 00:00:00", "2021-07-01T00:00:00+05:30", "2021-07-01 00:00:00Z", "9999-12-31 00:00:00",
    "1666-01-01 00:00:00", "1999-12-31 23:59:59", "now",
    "2021-07-01 00:00", "a\nb", 'a"b', "a,b", "'); drop table leads; --", "x" * 100_000, "é", "\ufeff", "\u202e",
    "🙂", "Level7", "\x1b[31m",
]  # fmt: skip


@pytest.fixture(scope="module")
def scoring(repo, tmp_path_factory):
    "Score bytes in this process: the table of scores, or the message."
    bundle, folder = Bundle.load(repo / "outputs/train/model"), tmp_path_factory.mktemp("bad")

    def score(content: bytes, name: str = "leads.csv"):
        (folder / name).write_bytes(content)
        try:
            score_file(folder / name, folder / "scored.parquet", bundle, rules=Infer(max_unseen=1.0), reasons=False)
        except LeadscoreError as error:
            assert str(folder / name) in str(error) and len(one_line(error, 2000)) < 1000
            return str(error)
        return pd.read_parquet(folder / "scored.parquet")

    return score


def is_bad(column: str, cell: str) -> bool:
    "The schema's rules once more, by Python's own types."
    if column == DATE:
        try:
            written_well = re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", cell, re.ASCII)
            return not written_well or not 2000 <= datetime.strptime(cell, "%Y-%m-%d %H:%M:%S").year < 2100
        except ValueError:
            return True
    if cell == "" or column in (CITY, *CATEGORIES):
        return False
    try:
        number = Decimal(cell.strip(" \t")) if re.fullmatch(r"[ \t]*[+-]?[0-9.]+[ \t]*", cell) else Decimal("nan")
    except InvalidOperation:
        return True
    return not number.is_finite() or number not in ((0, 1) if column == "referred_lead" else range(1_000_001))


def find_stray(dates: list[str]) -> list[bool]:
    "Which of a few dates stand alone, more than 24 months from all others, of which at least three stand together."
    written = [re.match(r"20\d\d-(0[1-9]|1[0-2])", date, re.ASCII) for date in dates]
    months = [12 * int(date[:4]) + int(date[5:7]) if well else None for date, well in zip(dates, written)]
    groups = []
    for month in sorted(month for month in months if month is not None):
        if groups and month - groups[-1][-1] <= 24:
            groups[-1].append(month)
        else:
            groups.append([month])
    alone = {group[0] for group in groups if len(group) == 1 and max(map(len, groups)) >= 3}
    return [month in alone for month in months]


def write(rows: list[list[str]], **options) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", **options).writerows(rows)
    return text.getvalue().encode()


def examples(request, share: float) -> dict:
    most = int(request.config.getoption("--examples") * share)
    fixed = {"deadline": None, "derandomize": True, "database": None}
    return {"max_examples": most, "suppress_health_check": list(HealthCheck), **fixed}


@pytest.mark.slow
def test_cells(request, scoring):
    written = [kind.map(str) for kind in (st.floats(), st.integers(), st.datetimes())]
    cells = st.one_of(st.sampled_from(NASTY), st.text(max_size=30), *written)
    changes = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(HEADER[1:]), cells), max_size=8)
    tried = {"scored": 0, "refused": 0, "bad": 0}

    @settings(**examples(request, 0.5))
    @given(changes, st.permutations(HEADER), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    def check(changes, order, quoting):
        leads = [dict(zip(HEADER, row)) for row in LEADS]
        for row, column, cell in changes:
            leads[row][column] = cell
        content = write([order, *([lead[name] for name in order] for lead in leads)], quoting=quoting)
        scores = scoring(content)
        if isinstance(scores, str):
            tried["refused"] += 1
            excuses = ["\n", "\r", "\0"]  # a swallowed line, a binary file
            assert any(mark in cell for _, _, cell in changes for mark in excuses), scores
            return
        tried["scored"] += 1
        assert scores["lead_id"].astype(str).tolist() == [lead[""] for lead in leads]
        stray = find_stray([lead[DATE] for lead in leads])
        spoilt = [any(is_bad(column, cell) for column, cell in lead.items() if column) for lead in leads]
        bad = [far or wrong for far, wrong in zip(stray, spoilt)]
        assert scores["probability"].isna().tolist() == bad
        assert scores["unsure"].str.startswith("no score: ").fillna(False).tolist() == bad
        assert scores["probability"].dropna().between(0, 1).all()
        tried["bad"] += sum(bad)

    check()
    print(tried)
    assert tried["scored"] and tried["bad"]


@pytest.mark.slow
def test_bytes(request, scoring):
    good = write([HEADER, *LEADS])
    places = st.one_of(st.integers(len(good.splitlines()[0]), len(good) - 1), st.integers(0, len(good) - 1))
    text = st.text(min_size=1, max_size=5).map(str.encode)
    special = st.sampled_from([b'"', b"\n", b"\r", b",", b"\0", b"\n\n", b'"\n', b",,", b"\xff", b"\xef\xbb\xbf"])
    inserted = st.one_of(text, st.binary(min_size=1, max_size=5), special)
    edits = st.one_of(
        st.tuples(st.just("cut"), places, st.just(b"")),
        st.tuples(st.just("insert"), places, inserted),
        st.tuples(st.just("replace"), places, st.binary(min_size=1, max_size=3)),
    )
    encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-8", "utf-16", "latin-1"])
    tried = {"scored": 0, "refused": 0}

    @settings(**examples(request, 0.5))
    @given(st.lists(edits, min_size=1, max_size=2), encodings, st.sampled_from(["\n", "\r\n", "\r"]))
    def check(edits, encoding, newline):
        content = good.decode().replace("\n", newline).encode(encoding)
        for kind, place, new in edits:
            after = place + 1 if kind == "replace" else place
            content = content[:place] if kind == "cut" else content[:place] + new + content[after:]
        scores = scoring(content)
        tried["refused" if isinstance(scores, str) else "scored"] += 1
        if isinstance(scores, str):
            return
        assert content[-1:] in b"\r\n"
        rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")) if any(row)]
        place = rows[0].index("")
        found = scores["lead_id"].astype(str).tolist()
        assert found == [row[place] for row in rows[1:]]
        untouched = set(good.decode().splitlines()) & set(content.decode("utf-8-sig").splitlines())
        kept = {",".join(row) for row in LEADS if row[0] in found}
        assert {",".join(row) for row in LEADS} & untouched <= kept

    check()
    print(tried)
    assert min(tried.values()) > 0


@pytest.mark.parametrize(
    "content, fault",
    [
        (gzip.compress(write([HEADER, *LEADS])), "gzip"),
        (gzip.compress(write([HEADER, *LEADS]))[:200], "gzip"),
        (gzip.compress(b"0" * 10**8), "gzip"),
        (b"PK\3\4" + b"0" * 100, "zip"),
        (b'{"leads": []}\n', "JSON"),
        (b"<!DOCTYPE html>\n<html></html>\n", "HTML"),
        (write([HEADER, *LEADS], delimiter=";"), "separated by something else than commas"),
        (write([HEADER, *LEADS], delimiter="\t"), "separated by something else than commas"),
        (write([HEADER, *LEADS])[:-40], "line 7, the last, has no line break, so the file may be cut off"),
        (write([HEADER * 2, *(row * 2 for row in LEADS)]), "column '', 'created_date'"),
        (b"", "an empty file"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_other_files(scoring, content, fault):
    assert fault in scoring(content)
    assert fault in scoring(content, "leads.csv.gz")  # whatever its name promises


def test_many_unseen_levels_are_refused(repo, tmp_path):
    leads = make_leads(10_000).iloc[:, :-1].assign(first_platform_c=[f"New{k}" for k in range(10_000)])
    leads.to_csv(tmp_path / "leads.csv", index=False)
    command = ["leadscore", "score", str(tmp_path / "leads.csv"), "-o", str(tmp_path / "scored.csv")]
    message = fails(*command, "--model", "outputs/train/model", cwd=repo)
    assert "first_platform_c has 100.0% unseen levels" in message and not (tmp_path / "scored.csv").exists()


def test_what_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)  # a socket's path may not be long
        listener.bind("socket")
        os.chdir(here)
        inside = [tmp_path / name for name in ("pipe", "socket", "gone", "n" * 300, "none.csv")]
        for path in (tmp_path, Path("/dev/null"), *inside):
            assert main(["check", str(path)]) == 1
            message = capsys.readouterr().err
            named = f"leadscore: {tmp_path}/" if path in inside else f"leadscore: {path}: "
            assert message.startswith(named) and message.count("\n") == 1
