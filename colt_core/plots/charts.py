"""Charts that a reader may hover, filter and zoom without Python: Vega-Altair's, with Vega itself in the page."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..report import metric_of
from .frame import SPARSITIES, arm_name, check_rows, looks_of

if TYPE_CHECKING:
    import altair

# Vega's name for each of matplotlib's markers that it has; the others share a circle, told apart by colour and words.
SHAPES = {"o": "circle", "s": "square", "D": "diamond", "d": "diamond", "^": "triangle-up", "v": "triangle-down"}
SHAPES |= {"<": "triangle-left", ">": "triangle-right", "X": "cross", "P": "cross"}
ALL = "all"
SPARSITY = "sparsity, %"
WIDE = {"labelLimit": 0, "titleLimit": 0}  # nothing is cut


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError("charts for pages need Vega-Altair: pip install 'colt-workbook[charts]'") from None


def vega() -> str:
    """Return Vega, Vega-Lite and vega-embed as one script, so that a page with a chart needs no network.

    Raises
    ------
    ImportError
        In one line, where the extra `charts` is not installed.
    """
    charts, convert = _library("altair"), _library("vl_convert")
    version = ".".join(charts.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return str(convert.javascript_bundle(vl_version=version))


def _choice(alt: Any, name: str, label: str, options: list[str]) -> Any:
    return alt.param(name=name, value=options[0], bind=alt.binding_select(options=options, name=f"{label} "))


def _sparsity(alt: Any, **more: Any) -> Any:
    """Return the axis of a logarithmic scale of densities, written as sparsities in percent, as figures have it."""
    said = "format(100 * (1 - datum.value), '.4~g')"
    return alt.Axis(labelExpr=said, labelOverlap="greedy", labelSeparation=4, **more)


def tickets_chart(table: pd.DataFrame) -> "altair.LayerChart":
    """Chart test accuracy against sparsity, a data set and a network at a time: the mean over seeds, or single runs.

    Parameters
    ----------
    table
        Scores with the columns of `plots.tickets` and scored_on, net, seed, round.
    """
    check_rows(table)
    alt: Any = _library("altair")
    metric, _ = metric_of(table)
    looks = looks_of(table["arm"])
    names = {arm: arm_name(arm) for arm in looks}
    rows = pd.DataFrame(
        {
            "method": [names[arm] for arm in table["arm"]],
            "run": table["experiment"],
            "seed": table["seed"].astype(str),
            "where": table["scored_on"].astype(str) + ", " + table["net"],
            "round": table["round"],
            "density": table["density"],
            "value": table[metric],
        }
    )
    where = _choice(alt, "where", "Data set and network", rows["where"].value_counts().index.tolist())
    one = _choice(alt, "one", "Method", [ALL, *names.values()])
    single = alt.param(name="single", value=False, bind=alt.binding_checkbox(name="Single runs "))
    form = "%" if metric == "accuracy" else ".3f"
    finer = ".1%" if metric == "accuracy" else ".4f"
    told = list(names.values())
    columns = 1 if max(map(len, told)) > 40 else 2
    colours = alt.Scale(domain=told, range=[look["color"] for look in looks.values()])
    shapes = alt.Scale(domain=told, range=[SHAPES.get(look["marker"], "circle") for look in looks.values()])
    legend = alt.Legend(orient="bottom", columns=columns, symbolOpacity=1, **WIDE)
    colour = alt.Color("method:N", title="method", scale=colours, legend=legend)
    shape = alt.Shape("method:N", title="method", scale=shapes)
    across = alt.Scale(type="log", reverse=True, nice=False, padding=12)
    x = alt.X("density:Q", scale=across, axis=_sparsity(alt)).title(SPARSITY)
    y = alt.Y("value:Q", scale=alt.Scale(zero=False), axis=alt.Axis(format=form)).title(f"test {metric}")
    base = alt.Chart(rows).transform_filter("datum.where == where")
    base = base.transform_filter(f"one == '{ALL}' || datum.method == one")
    base = base.transform_calculate(sparsity="1 - datum.density")
    hint = ["method", alt.Tooltip("sparsity:Q", format=".2%"), alt.Tooltip("value:Q", format=finer, title=metric)]
    runs = base.transform_filter("single").encode(x, y, colour, detail="run:N", tooltip=[*hint, "seed", "round"])
    mean = base.transform_filter("!single").transform_aggregate(
        value="mean(value)", low="min(value)", high="max(value)", density="mean(density)", seeds="count()",
        groupby=["method", "round"],
    ).transform_calculate(sparsity="1 - datum.density")  # fmt: skip
    several = [*hint, "seeds:Q", *(alt.Tooltip(f"{end}:Q", format=finer) for end in ("low", "high"))]
    lines = mean.encode(x, y, colour, tooltip=[*several, "round:Q"])
    layers = [
        mean.mark_area(opacity=0.15).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour),
        lines.mark_line(strokeWidth=1.5),
        lines.mark_point(size=55, filled=True, opacity=1).encode(shape),
        runs.mark_line(strokeWidth=1, opacity=0.8),
        runs.mark_point(size=40, filled=True, opacity=1).encode(shape),
    ]
    chart = alt.layer(*layers).add_params(where, one, single)
    zoom = alt.selection_interval(bind="scales", name="zoom")
    described = f"test {metric} against sparsity of {len(rows)} scored tickets of {rows['run'].nunique()} runs"
    title = alt.Title(
        f"Test {metric} of tickets", subtitle="lines: means over seeds; bands: from the lowest seed to the highest",
        anchor="start", fontSize=13, limit=0,
    )  # fmt: skip
    return chart.add_params(zoom).properties(width="container", height=420, title=title, description=described)  # type: ignore[no-any-return]


def what_if_chart(rate: float, parts: int, overlap: float, imp_rate: float, target: float) -> "altair.LayerChart":
    """Chart what arithmetic says about rounds, with the sliders of `widgets.what_if` in the chart itself.

    Its formulas are `arithmetic.keep_factor`'s and `rounds_to`'s, in Vega's own language.
    """
    alt: Any = _library("altair")

    def slider(name: str, label: str, value: float, low: float, high: float, step: float) -> Any:
        bound = alt.binding_range(min=low, max=high, step=step, name=f"{label} ")
        return alt.param(name=name, value=value, bind=bound)

    sliders = [
        slider("rate", "COLT's rate", rate, 0.05, 0.6, 0.01),
        slider("parts", "Partitions", parts, 2, 10, 1),
        slider("overlap", "Overlap", overlap, 0, 1, 0.005),
        slider("imp_rate", "IMP's rate", imp_rate, 0.05, 0.6, 0.01),
        slider("target", "Target", target, 0.5, 0.999, 0.001),
    ]
    least = alt.param(name="least", expr="max(0, 1 - parts * rate)")
    keep = alt.param(name="keep", expr="max(least, (1 - rate) * pow(overlap, parts - 1))")
    colt = alt.param(name="colt_rounds", expr="keep > 0 ? ceil(log(1 - target) / log(keep) - 1e-9) : 0")
    imp = alt.param(name="imp_rounds", expr="ceil(log(1 - target) / log(1 - imp_rate) - 1e-9)")
    said = (
        "split(keep > 0 ? 'COLT keeps ' + format(keep, '.4f') + ' of its weights a round: ' + "
        "colt_rounds + ' rounds to ' + "
        "format(target, '.1%') + '; IMP at ' + format(imp_rate, '.0%') + ' a round: ' + imp_rounds + ' rounds' : "
        "'Copies that lose so much may leave nothing: raise the overlap', '; ')"  # a line each, so that none is cut
    )
    looks = looks_of(["imp", "colt"])
    names = ["IMP", "COLT"]
    base = alt.Chart(alt.sequence(0, 301, as_="round")).transform_calculate(
        **{names[0]: "pow(1 - imp_rate, datum.round)", names[1]: "pow(keep, datum.round)"}
    )
    base = base.transform_fold(names, as_=["method", "density"]).transform_calculate(sparsity="1 - datum.density")
    base = base.transform_filter(f"datum.round <= (datum.method == {names[0]!r} ? imp_rounds : colt_rounds)")
    colour = alt.Color(
        "method:N", title=None,
        scale=alt.Scale(domain=names, range=[look["color"] for look in looks.values()]),
        legend=alt.Legend(
            labelExpr="datum.label + (datum.label == 'COLT' ? ', and IMP at its rate' : ' at its own rate')",
            orient="top", **WIDE,
        ),
    )  # fmt: skip
    ticks = [1 - one for one in SPARSITIES]
    lines = base.encode(
        alt.X("round:Q", title="rounds", axis=alt.Axis(tickMinStep=1)),
        alt.Y("density:Q", title=SPARSITY, scale=alt.Scale(type="log"), axis=_sparsity(alt, values=ticks)),
        colour,
        tooltip=["method:N", "round:Q", alt.Tooltip("sparsity:Q", format=".2%")],
    )
    level = alt.datum(alt.expr("1 - target"), type="quantitative")
    goal = alt.Chart(alt.InlineData([{}])).encode(y=level)
    label = goal.mark_text(align="left", baseline="bottom", dx=4, dy=-2).encode(
        x=alt.value(0), text=alt.value(alt.expr("'target: ' + format(100 * target, '.4~g') + ' % sparse'"))
    )
    rule = goal.mark_rule(strokeDash=[2, 3])
    chart = alt.layer(lines.mark_line(), lines.mark_point(filled=True, size=45, opacity=1), rule, label)
    chart = chart.add_params(*sliders, least, keep, colt, imp)
    title = alt.Title(alt.expr(said), anchor="start", fontSize=13, limit=0)
    about = "sparsity over rounds that arithmetic gives COLT and IMP, to a target sparsity"
    return chart.properties(width="container", height=380, title=title, description=about)  # type: ignore[no-any-return]
