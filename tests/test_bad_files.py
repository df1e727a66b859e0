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
import yaml
from conftest import ROOT, fails
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadscore.cli import main
from leadscore.params import Infer, LeadscoreError, one_line
from leadscore.bundle import Bundle
from leadscore.sample import make_leads
from leadscore.table import Dialect, load_table
from leadscore.lists import score_file
from leadscore.text import TextFile

TABLE = load_table(ROOT / "leads.yaml")
SIX = make_leads(6).iloc[:, :-1].astype(object)
LEADS = [[str(cell) for cell in row] for row in SIX.where(SIX.notna(), "").to_numpy()]
HEADER = list(make_leads(6).columns[:-1])
BLANKS = " \t\xa0\u202f"
NASTY = [
    "", " ", "nan", "None", "inf", "-inf", "-1", "1.5", "1e3", "1e308", "0.9999999999999999999", "99999999", "٣",
    "0x10", "True", "1_000", "2", "=1+1", "@x", "\t1", "0\x1f", "\xa01", "1\u202f", "\t \xa0",
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
    cell = cell.strip(BLANKS)
    if column == "created_date":
        try:
            iso = r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:?\d\d)?"
            written_well = re.fullmatch(iso, cell, re.ASCII)
            return not written_well or not 2000 <= datetime.strptime(cell[:10], "%Y-%m-%d").year < 2100
        except ValueError:
            return True
    if cell == "" or column in TABLE.categories:
        return False
    try:
        number = Decimal(cell) if re.fullmatch(r"[+-]?[0-9.]+", cell) else Decimal("nan")
    except InvalidOperation:
        return True
    return not number.is_finite() or number not in ((0, 1) if column == "referred_lead" else range(1_000_001))


def find_stray(dates: list[str]) -> list[bool]:
    "Which of a few dates stand alone, more than 24 months from all others, of which at least three stand together."
    dates = [date.strip(BLANKS) for date in dates]
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
        stray = find_stray([lead["created_date"] for lead in leads])
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
        read = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = [row for row in read if any(cell.strip(BLANKS) for cell in row)]
        place = rows[0].index("")
        found = scores["lead_id"].astype(str).tolist()
        assert found == [row[place].strip(BLANKS) for row in rows[1:]]
        untouched = set(good.decode().splitlines()) & set(content.decode("utf-8-sig").splitlines())
        kept = {",".join(row) for row in LEADS if row[0] in found}
        assert {",".join(row) for row in LEADS} & untouched <= kept

    check()
    print(tried)
    assert min(tried.values()) > 0


@pytest.mark.parametrize(
    "content, fault",
    [
        (gzip.compress(write([HEADER, *LEADS]))[:200], "a damaged gzip archive"),
        (gzip.compress(write([HEADER, *LEADS]))[:-4] + b"0000", "a damaged gzip archive"),
        (gzip.compress(gzip.compress(write([HEADER, *LEADS]))), "an archive in an archive"),
        (gzip.compress(b"0" * 10**8), "not a comma-separated UTF-8 file of leads"),
        (b"PK\3\4" + b"0" * 100, "a damaged workbook"),
        (b"PAR1" + b"0" * 100, "a damaged Parquet file"),
        (b'{"leads": []}\n', "JSON"),
        (b"<!DOCTYPE html>\n<html></html>\n", "HTML"),
        (write([HEADER, *LEADS], delimiter=";"), 'declare dialect: {delimiter: ";"} in leads.yaml'),
        (write([HEADER, *LEADS], delimiter="\t"), r'declare dialect: {delimiter: "\t"} in leads.yaml'),
        (write([HEADER, *LEADS]).decode().encode("utf-16"), "declare dialect: {encoding: utf-16} in leads.yaml"),
        (write([HEADER, *LEADS])[:-40], "Row #7: Expected 45 columns, got"),
        (write([HEADER, *LEADS])[:-1] + b'"', "whatsapp_chat_click in row 7 has swallowed"),
        (write([HEADER * 2, *(row * 2 for row in LEADS)]), "column '', 'created_date'"),
        (b"", "an empty file"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_other_files(scoring, content, fault):
    assert fault in scoring(content)
    assert fault in scoring(content, "leads.csv.gz")  # whatever its name promises


def pack(kind: str, path: Path) -> bytes:
    "Six leads in a file of a kind."
    if kind == "parquet":
        pd.DataFrame(LEADS, columns=HEADER).to_parquet(path)
    elif kind == "xlsx":
        pytest.importorskip("python_calamine")
        pd.DataFrame(LEADS, columns=HEADER).to_excel(path, index=False, engine="xlsxwriter")
    else:
        path.write_bytes(gzip.compress(write([HEADER, *LEADS])))
    return path.read_bytes()


def read_rows(path: Path, dialect: Dialect = Dialect()) -> list[list[str]]:
    pieces = TextFile(path, TABLE.model_copy(update={"dialect": dialect}), False).read_text()
    return [list(map(str, row.values())) for piece in pieces for row in piece.to_pylist()]


def test_a_cut_costs_at_most_the_end_of_the_last_cell(tmp_path):
    "Or whole lines: nobody can see that in a CSV."
    content, refused = write([HEADER, *LEADS], quoting=csv.QUOTE_ALL), 0
    (tmp_path / "leads.csv").write_bytes(content)
    whole = read_rows(tmp_path / "leads.csv")
    start = content.index(b"\n") + 1
    for end in range(start, len(content)):
        (tmp_path / "leads.csv").write_bytes(content[:end])
        try:
            rows = read_rows(tmp_path / "leads.csv")
        except LeadscoreError:
            refused += 1
            continue
        assert rows == whole[: content[start:end].count(b"\n") + (content[end - 1 : end] != b"\n")]
    assert refused > 0.9 * (len(content) - start)
    assert len(whole) == 6


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "xlsx"])
def test_each_cut_of_a_packed_file_is_seen(tmp_path, kind):
    path = tmp_path / f"leads.{kind}"
    content = pack(kind, path)
    assert [row[0] for row in read_rows(path)] == [row[0] for row in LEADS]
    for end in [*range(1, len(content), max(1, len(content) // 300)), len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(LeadscoreError):
            read_rows(path)


def test_packed_leads_are_scored_as_others(scoring):
    content = write([HEADER, *LEADS])
    pd.testing.assert_frame_equal(scoring(gzip.compress(content)), scoring(content))
    pd.testing.assert_frame_equal(scoring(content[:-1]), scoring(content))  # as Google Sheets ends a file


@pytest.mark.parametrize(
    "declared",
    [*({"delimiter": delimiter} for delimiter in ";\t|"), {"encoding": "windows-1252"}, {"encoding": "utf-16"}],
    ids=str,
)
def test_a_dialect_is_declared_as_advised(tmp_path, declared):
    dialect, path = Dialect(**declared), tmp_path / "leads.csv"
    rows = [[*row[: HEADER.index("city_mapped")], "münchen", *row[HEADER.index("city_mapped") + 1 :]] for row in LEADS]
    path.write_bytes(write([HEADER, *rows], delimiter=dialect.delimiter).decode().encode(dialect.encoding))
    with pytest.raises(LeadscoreError) as refused:
        read_rows(path)
    advised = re.search(r"declare dialect: (\{.*\}) in leads.yaml", str(refused.value))[1]
    assert yaml.safe_load(advised) == declared
    assert {row[2] for row in read_rows(path, dialect=dialect)} == {"münchen"}


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
