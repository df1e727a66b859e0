"""The linear part, the calibration and the metrics, held against plain scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from leadscore.measure import bootstrap, measure
from leadscore.model import LinearPart, calibrate, fit_calibration
from leadscore.params import find_root
from leadscore.read import validate_leads
from leadscore.recipe import Cleaner
from leadscore.sample import make_leads
from leadscore.table import load_table

TABLE = load_table(find_root() / "leads.yaml")
PLATFORM, MEDIUM, SOURCE, COURSES = "platform", "medium", "source", "courses"
SINGLE = {PLATFORM: 1.0, MEDIUM: 1.0, SOURCE: 1.0, COURSES: 1.0, "referred": 1.0, "city": 0.4}
PAIRS = [(PLATFORM, MEDIUM), (PLATFORM, SOURCE), (MEDIUM, SOURCE), (COURSES, PLATFORM), (COURSES, MEDIUM)]
DRIFTING = [(), (PLATFORM,), (MEDIUM,), (SOURCE,), (COURSES,)]
STRETCH = 20  # days
ROUNDED = 0.5e-6  # weights, knots and calibration are kept with six digits


@pytest.fixture(scope="module")
def leads():
    "Cleaned sample leads, in the order of their dates."
    typed, _ = validate_leads(make_leads(4000).rename(columns={"": "lead_id"}), TABLE)
    return Cleaner(TABLE, coverage=0.9).transform(typed)


def find_ends(numbers):
    "Values that stand for themselves, one lead in 300 or more, and deciles: ends of the ranges of a number."
    shares = numbers.value_counts(normalize=True)
    return np.union1d(shares.index[shares >= 1 / 300], numbers.quantile(np.arange(1, 10) / 10))


def write_cells(leads, ends):
    "One text per lead and column, and the days since the first of January 2021."
    table = pd.DataFrame({"city": leads["city_mapped"]})
    for name in (PLATFORM, MEDIUM, SOURCE):
        column = "first_platform_c" if name == PLATFORM else f"first_utm_{name}_c"
        table[name] = leads[column]
    table[COURSES] = np.searchsorted(ends, leads["total_leads_droppped"])
    table["referred"] = leads["referred_lead"]
    days = (leads["created"] - pd.Timestamp("2021-01-01")) / pd.Timedelta(days=1)
    return table.astype(object).fillna("none").astype(str), days.to_numpy()


def join_cells(table, columns):
    "The texts of several columns together; of no column: the same text for all leads."
    return table[list(columns)].agg(" | ".join, axis=1) if columns else pd.Series("all", table.index)


def encode_plainly(train, test):
    "Sparse matrices of both by OneHotEncoder: levels of two leads or more, scaled by how freely they move."
    effects = [((name,), False, freedom) for name, freedom in SINGLE.items()]
    effects += [(pair, False, 0.5) for pair in PAIRS]
    effects += [(columns, True, 0.4) for columns in DRIFTING]
    ends = find_ends(train["total_leads_droppped"])
    tables, days = zip(write_cells(train, ends), write_cells(test, ends))
    knots = np.linspace(days[0].min(), days[0].max(), int(np.ptp(days[0]) / STRETCH) + 1)
    ramps = [np.clip((day[:, None] - knots[:-1]) / np.diff(knots), 0, 1) for day in days]
    blocks = [], []
    for columns, drifts, freedom in effects:
        cells = [join_cells(table, columns).to_frame() for table in tables]
        sizes = cells[0][0].value_counts()
        encoder = OneHotEncoder(categories=[sorted(sizes.index[sizes >= 2])], handle_unknown="ignore").fit(cells[0])
        for block, texts, ramp in zip(blocks, cells, ramps):
            hot = encoder.transform(texts) * freedom
            block += [hot.multiply(column[:, None]) for column in ramp.T] if drifts else [hot]
    return *(sparse.hstack(block, format="csr") for block in blocks), len(knots) - 1


def test_linear_part_is_a_plain_logistic_regression(leads):
    """The same columns, solver and stopping rule give the same log-odds, up to rounding.

    A lead adds up the intercept, 11 weights and, of 5 drifts, up to one weight a stretch: each is off by `ROUNDED` at
    most. A knot is off by as much, of 20 days or more; that moves a ramp by 2.5e-8 a day's digit, twice (both ends).
    The order of the columns differs, so that sums differ in their last bits: 1e-8 is for what the solver makes of it.
    """
    train, test = leads.head(3000), leads.tail(1000)
    rows, later_rows, n_stretches = encode_plainly(train, test)
    plain = LogisticRegression(C=1.0, tol=1e-3, max_iter=100).fit(rows, train["label"])
    linear = LinearPart().fit(train, TABLE)
    drifts = [effect["weights"] for effect in linear.effects if effect["drift"]]
    steepest = sum(np.abs(list(weights.values())).max() for weights in drifts)
    tolerance = ROUNDED * (1 + 11 + 5 * n_stretches) + 2 * ROUNDED / STRETCH * steepest + 1e-8
    assert tolerance < 5e-5
    assert sum(np.size(list(effect["weights"].values())) for effect in linear.effects) == rows.shape[1]
    for matrix, given in ((rows, train), (later_rows, test)):
        np.testing.assert_allclose(linear.predict(given), plain.decision_function(matrix), rtol=0, atol=tolerance)


def test_calibration_is_a_plain_logistic_regression():
    """Scaling the log-odds before an unpenalised fit changes nothing, but where the solver stops.

    It stops where no slope of the mean loss is above 1e-4. By Newton's step a lead x = (log-odds, 1) is then off by at
    most 1e-4 |x H^-1|, H being the loss's curvature; twice that is allowed, since H is not the same everywhere.
    """
    rng = np.random.default_rng(3)
    logit = rng.normal(0.5, 2, 5000)
    label = (rng.random(5000) < 1 / (1 + np.exp(0.3 - 0.7 * logit))).astype(int)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(penalty=None, tol=1e-10, max_iter=1000))
    exact = pipeline.fit(logit[:, None], label).predict_proba(logit[:, None])[:, 1]
    x = np.column_stack([logit, np.ones(5000)])
    curvature = (x * (exact * (1 - exact))[:, None]).T @ x / 5000
    moved = 1e-4 * np.abs(x @ np.linalg.inv(curvature)).sum(axis=1) + ROUNDED * np.abs(x).sum(axis=1)
    off = np.abs(calibrate(logit, fit_calibration(logit, label)) - exact)
    assert (off <= 2 * moved / 4).all()  # a probability moves by a quarter of its log-odds at most
    assert off.max() < 1e-3


def measure_plainly(label, probability, weight):
    "scikit-learn's metrics, by our names."
    predicted = probability >= 0.5
    by_class = {
        "accuracy": metrics.accuracy_score, "recall": metrics.recall_score, "precision": metrics.precision_score,
        "f1": metrics.f1_score, "kappa": metrics.cohen_kappa_score, "mcc": metrics.matthews_corrcoef,
    }  # fmt: skip
    by_score = {"auc": metrics.roc_auc_score, "log_loss": metrics.log_loss, "brier": metrics.brier_score_loss}
    values = {name: function(label, predicted, sample_weight=weight) for name, function in by_class.items()}
    return values | {name: function(label, probability, sample_weight=weight) for name, function in by_score.items()}


def draw_predictions(seed, digits):
    "Labels, and probabilities with the more ties the fewer digits; 0 and 1 are among them."
    rng = np.random.default_rng(seed)
    probability = rng.random(1500).round(digits)
    label = (rng.random(1500) < probability).astype(int)
    label[:4], probability[:4] = [0, 1, 0, 1], [1, 0, 0, 1]
    return rng, label, probability


WEIGHTS = {
    "none": lambda rng, n: None,
    "any": lambda rng, n: rng.random(n),
    "with zeros": lambda rng, n: rng.random(n) * rng.integers(0, 2, n),
    "counts": lambda rng, n: np.bincount(rng.integers(0, n, n), minlength=n),
    "large and small": lambda rng, n: 10.0 ** rng.integers(-3, 4, n),
}


@pytest.mark.parametrize("digits", [1, 2, 12])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weighted_metrics_are_those_of_scikit_learn(kind, digits):
    "Sums of 1,500 numbers differ by their order: 1,500 units in the last place, 3.3e-13, and 1e-12 with what follows."
    for seed in range(3):
        rng, label, probability = draw_predictions(seed, digits)
        weight = WEIGHTS[kind](rng, len(label))
        ours = measure(label, probability, 0.5, weight)
        theirs = measure_plainly(label, probability, weight)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-12, abs=1e-12)


def test_counts_are_leads_that_many_times():
    "Whatever the ties; only the bins of the ece hold equally many leads, whatever they weigh."
    rng, label, probability = draw_predictions(7, 1)
    counts = WEIGHTS["counts"](rng, len(label))
    once = pd.Series(measure(label, probability, 0.5, counts)).drop("ece")
    repeated = pd.Series(measure(label.repeat(counts), probability.repeat(counts), 0.5)).drop("ece")
    pd.testing.assert_series_equal(once, repeated, rtol=1e-12)


def test_each_draw_of_the_bootstrap_is_leads_drawn_with_replacement():
    _, label, probability = draw_predictions(5, 2)
    rng, n = np.random.default_rng(11), len(label)
    for draw in bootstrap(label, probability, 0.5, draws=5, seed=11).to_dict("records"):
        rows = rng.integers(0, n, n)
        theirs = measure_plainly(label[rows], probability[rows], None)
        for name in ("auc", "accuracy", "log_loss", "brier"):
            assert draw[name] == pytest.approx(theirs[name], rel=1e-12)
        tops = measure(label, probability, 0.5, np.bincount(rows, minlength=n))
        assert [draw["lift_10"], draw["capture_20"]] == pytest.approx([tops["lift_10"], tops["capture_20"]], rel=1e-12)
