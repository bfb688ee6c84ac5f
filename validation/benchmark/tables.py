"""The benchmark's figures as tables for the terminal, and as the section of its page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models.markdown import markdown_table
from validation.benchmark.records import (
    Benchmark,
    ConversionBenchmark,
    InferenceBenchmark,
    Side,
    StartBenchmark,
    median,
    ratio,
)
from validation.benchmark.targets import Finding


@dataclass(frozen=True)
class Tables:
    """What a part shows: a title, a table, the figures compared with their targets, and what failed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    findings: tuple[Finding, ...]
    failures: tuple[str, ...]
    absent: tuple[str, ...] = ()
    """Engines that were not measured because they are not installed."""

    @classmethod
    def of(cls, found: Benchmark) -> "Tables":
        """Return the tables of a part."""
        if isinstance(found, ConversionBenchmark):
            return _conversion(found)
        if isinstance(found, InferenceBenchmark):
            return _inference(found)
        if isinstance(found, StartBenchmark):
            return _starts(found)
        raise TypeError(f"no tables for {type(found).__name__}")

    @property
    def finding_rows(self) -> list[tuple[str, ...]]:
        """One row per figure: its value and its target."""
        said = {True: "met", False: "missed", None: "not measured"}
        return [(one.what, _number(one.value), f"{one.limit:.2f}", said[one.met]) for one in self.findings]


def _conversion(found: ConversionBenchmark) -> Tables:
    columns = (
        "side",
        "#wall, s",
        "#min to max",
        "#user, s",
        "#system, s",
        "#peak memory, MB",
        "#notebook = 1",
        "#floor = 1",
    )
    return Tables(
        f"Converting {len(found.handles)} handles ({found.outputs / 1e9:.2f} GB)",
        columns,
        tuple(_conversion_row(found, side) for side in found.sides),
        tuple(Finding.all_of(found)),
        tuple(f"{side.name}: {side.failure}" for side in found.sides if side.failure),
    )


def _conversion_row(found: ConversionBenchmark, side: Side) -> tuple[str, ...]:
    if not side.runs:
        return (side.what, "failed", *[""] * 6)
    of_catalog = side.name in ("notebook", "floor", "parity") or side.name.startswith("convert")
    over = [found.over(side.name, name) if of_catalog else None for name in ("notebook", "floor")]
    return (
        side.what,
        f"{median(side.walls):.1f}",
        f"{min(side.walls):.1f} to {max(side.walls):.1f}",
        f"{median([run.user for run in side.runs]):.1f}",
        f"{median([run.system for run in side.runs]):.1f}",
        f"{max(run.peak for run in side.runs) / 1e6:,.0f}",
        *("" if value is None else f"{value:.2f}" for value in over),
    )


def _inference(found: InferenceBenchmark) -> Tables:
    engines = [one for model in found.models for one in model.engines]
    batches = sorted({batch for one in engines for batch in one.seconds})
    rows = []
    for model in found.models:
        for engine in model.engines:
            cells = []
            for batch in batches:
                seconds = engine.seconds.get(batch, ())
                rate = ratio(batch * model.flops, median(seconds))
                over, share = model.over_jax(engine.name, batch), ratio(rate, found.limit)
                cells += [f"{median(seconds):.3f}" if seconds else "", _number(over), _number(share, percent=True)]
            rows.append((model.architecture, f"{engine.title} {engine.version or ''}".strip(), *cells))
    heads = [head for batch in batches for head in (f"#batch {batch}, s", "#JAX = 1", "#of the limit")]
    return Tables(
        f"A loaded classifier, {found.threads} threads{_limit(found)}",
        ("model", "engine", *heads),
        tuple(rows),
        tuple(Finding.all_of(found)),
        tuple(
            f"{model.architecture}, {one.title}: {one.failure}"
            for model in found.models
            for one in model.engines
            if one.failure and one.installed
        ),
        tuple(dict.fromkeys(f"{one.title}: {one.failure}" for one in engines if not one.installed)),
    )


def _limit(found: InferenceBenchmark) -> str:
    """Return the limit that shares refer to, and the speed of matrix products alone, in words."""
    if found.limit is None:
        return ""
    alone = f"{found.product / 1e9:.0f}" if found.product else "not measured"
    return f" (the limit: the fastest seen, {found.limit / 1e9:.0f} GFLOP/s; of matrix products alone: {alone})"


def _number(value: float | None, *, percent: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:.0%}" if percent else f"{value:.2f}"


def _starts(found: StartBenchmark) -> Tables:
    steps = ("interpreter", "imports", "load", "first", "prepared", "second", "total")
    rows = []
    for side in found.sides:
        known = [[getattr(run, step) for run in side.runs] for step in steps]
        cells = [f"{median(each):.2f}" if each else "" for each in known]
        rows.append((side.handle, side.flavour, *(cells if side.runs else ["failed", *cells[1:]])))
    names = (
        "Python, s",
        "TensorFlow's import",
        "load",
        "first call",
        "of which preparing",
        "second call",
        "to first outputs",
    )
    return Tables(
        "From process start to first outputs, one image",
        ("model", "flavour", *(f"#{name}" for name in names)),
        tuple(rows),
        tuple(Finding.all_of(found)),
        tuple(f"{side.handle}, {side.flavour}: {side.failure}" for side in found.sides if side.failure),
    )


FINDING_COLUMNS = ("figure", "#found", "#at most", "")


def markdown_lines(parts: Sequence[Benchmark]) -> Iterator[str]:
    """Yield the section of BENCHMARK.md."""
    yield "<!-- made by: mixer-jax2tf bench --markdown -->"
    for found in parts:
        tables = Tables.of(found)
        yield ""
        yield f"**{tables.title}.** {_where(found)}"
        yield ""
        yield from markdown_table(tables.columns, tables.rows).splitlines()
        if tables.findings:
            yield ""
            yield from markdown_table(FINDING_COLUMNS, tables.finding_rows).splitlines()
        if tables.failures or tables.absent:
            yield ""
            yield from (f"- {' '.join(said.split())[:300]}" for said in (*tables.failures, *tables.absent))


def _where(found: Benchmark) -> str:
    machine = found.machine
    libraries = ", ".join(f"{name} {version}" for name, version in found.libraries.items())
    others = f"load before {machine.load:g}" if machine.busy is None else f"busy with something else: {machine.busy:g}"
    trial = "" if machine.quiet else " **A trial: the machine was busy with something else.**"
    return (
        f"Measured on {found.date}, medians of {found.repeats} interleaved runs, on {machine.processor}, "
        f"{machine.cores} cores, {machine.memory / 1e9:.0f} GB ({machine.platform}, {others}), {libraries}.{trial}"
    )
