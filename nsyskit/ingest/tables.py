"""Raw nsys tables -> canonical tables, read when first asked for and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from nsyskit import nsys_schema as nsys
from nsyskit.errors import TraceFormatError
from nsyskit.frames import is_by_time, summed, with_literals
from nsyskit.ingest.columns import ColumnStore, Table
from nsyskit.ingest.source import RawSource
from nsyskit.schema import BAD_ROWS, LATEST_NS, TABLES, U32, WIDE, empty, polars_schema

_LARGEST: Final = 2.0**62
_PID_SHIFT = 1 << 24
_PID_MASK = _PID_SHIFT - 1
_U32_MAX = (1 << 32) - 1


def lazy_tables(source: RawSource, *, kept: ColumnStore | None = None) -> dict[str, pl.LazyFrame]:
    """Every canonical table as a lazy frame over ``source``; absent tables are empty frames of the right schema.

    ``kept`` answers from the cache what it can.
    """
    strings = _Table("strings", lambda columns: _one_string_an_id(_read(source, "strings", columns)))
    readers: dict[str, _Reader] = {name: _reader(source, name, strings) for name in TABLES}
    own = {name: _Table(name, reader) for name, reader in readers.items()} | {"strings": strings}
    tables: dict[str, Table] = {name: kept.table(name, table) if kept else table for name, table in own.items()}
    return {name: table.lazy() for name, table in tables.items()} | {"bad_rows": _bad_rows(tables)}


_SUMMED: Final = ("kernels", "memcpys", "memsets", "graphs", "api_calls", "os_calls")
"""Tables that every analysis builds upon; their bad rows are counted."""


def _bad_rows(tables: Mapping[str, Table]) -> pl.LazyFrame:
    """Which rows were left out: ``schema.BAD_ROWS``, read with the tables themselves."""

    def scan(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        rows = [(name, reason, count) for name in _SUMMED for reason, count in tables[name].bad().items()]
        frame = pl.DataFrame(rows, schema=BAD_ROWS, orient="row").select(with_columns or list(BAD_ROWS))
        frame = frame if predicate is None else frame.filter(predicate)
        yield frame if n_rows is None else frame.head(n_rows)

    return register_io_source(scan, schema=pl.Schema(BAD_ROWS), is_pure=True)


_Reader = Callable[[Sequence[str]], pl.DataFrame]


class _Table:
    """One canonical table: core columns are read together, wide ones when named, each once."""

    def __init__(self, name: str, read: _Reader) -> None:
        self._name = name
        self._read = read
        self._lock = Lock()
        self._frame: pl.DataFrame | None = None
        self._order: pl.Series | None = None
        self._bad: dict[str, int] = {}

    def lazy(self) -> pl.LazyFrame:
        return register_io_source(self._scan, schema=polars_schema(self._name), is_pure=True)

    def bad(self) -> Mapping[str, int]:
        """Rows left out, by reason."""
        self.frame([])
        return self._bad

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        with self._lock:
            if self._frame is None:
                core = [name for name in TABLES[self._name] if name not in WIDE.get(self._name, ())]
                # the reader's batches would slow down every query that follows
                frame = self._sorted(self._possible(_timed(self._name, self._read(core)))).rechunk()
                _check_sums(self._name, frame)
                self._frame = with_literals(frame)
            missing = [name for name in columns if name not in self._frame.columns]
            if missing:
                wide = self._read(missing)
                wide = wide if self._order is None else wide[self._order]
                self._frame = pl.concat([self._frame, with_literals(wide)], how="horizontal")
            return self._frame.select(columns)

    def _possible(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows whose times can be: none ends before it begins, none lies beyond any clock."""
        times = [name for name in ("start_ns", "end_ns") if name in frame.columns]
        if not times:
            return frame
        far = pl.any_horizontal(~pl.col(name).is_between(-LATEST_NS, LATEST_NS) for name in times)
        backwards = ~far & (pl.col("end_ns") < pl.col("start_ns")) if len(times) > 1 else pl.lit(value=False)
        counts = zip(("beyond", "backwards"), summed(frame, far.sum(), backwards.sum()), strict=True)
        self._bad = {reason: int(count) for reason, count in counts if count}
        if not self._bad:
            return frame
        self._order = frame.select(pl.arg_where(~far & ~backwards)).to_series()
        return frame[self._order]

    def _sorted(self, frame: pl.DataFrame) -> pl.DataFrame:
        keys: list[str] = [name for name in ("start_ns", "end_ns") if name in frame.columns]
        if not keys or is_by_time(frame, end=keys[-1]):
            return frame
        order = frame.select(pl.arg_sort_by(*keys, maintain_order=True)).to_series()
        self._order = order if self._order is None else self._order[order]
        return frame[order]

    def _scan(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_rows: int | None
    ) -> Iterator[pl.DataFrame]:
        frame = self.frame(with_columns if with_columns is not None else list(TABLES[self._name]))
        if predicate is not None:
            frame = frame.filter(predicate)
        yield frame if n_rows is None else frame.head(n_rows)


def _timed(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The table, if every row of it says when it was."""
    if any(frame[column].null_count() for column in ("start_ns", "end_ns") if column in frame.columns):
        raise TraceFormatError(f"table {nsys.TABLE_OF[name]} holds rows without a time", hint="export the report again")
    return frame


def _check_sums(name: str, frame: pl.DataFrame) -> None:
    """Refuse what no sum could hold: whole numbers wrap around silently."""
    spans = [pl.col("end_ns").cast(pl.Float64) - pl.col("start_ns")] if "end_ns" in frame.columns else []
    amounts = [*spans, *(pl.col(column).cast(pl.Float64).abs() for column in ("bytes",) if column in frame.columns)]
    if amounts and max(summed(frame, *(amount.sum() for amount in amounts))) > _LARGEST:
        raise TraceFormatError(
            f"table {nsys.TABLE_OF[name]} holds times or sizes that add up to more than 2^62",
            hint="the file is damaged: export the report again",
        )


def _one_string_an_id(strings: pl.DataFrame) -> pl.DataFrame:
    """A damaged file may give one id to two strings: the first counts, and no join multiplies rows."""
    if "string_id" not in strings.columns or not strings["string_id"].is_duplicated().any():
        return strings
    return strings.unique("string_id", keep="first", maintain_order=True)


def _reader(source: RawSource, table: str, strings: _Table) -> _Reader:
    special: dict[str, Callable[[], pl.DataFrame]] = {
        "nvtx": lambda: _read_nvtx(source, strings),
        "diagnostics": lambda: _read_diagnostics(source),
        "gpu_metrics": lambda: _read_gpu_metrics(source),
        "os_calls": lambda: _read_os_calls(source),
        "os_marks": lambda: _read_os_marks(source),
    }
    if table in special:
        return lambda columns: special[table]().select(columns)
    if table == "kernels":
        return lambda columns: _one_id_a_name(_read(source, table, columns), strings)
    return lambda columns: _read(source, table, columns)


def _read(source: RawSource, table: str, columns: Sequence[str], *, extra: Sequence[str] = ()) -> pl.DataFrame:
    """Canonical ``columns`` of a table in file order, with nsys columns ``extra`` under their own names beside them."""
    name = nsys.TABLE_OF[table]
    present = source.columns(name)
    if not present:
        return empty(table).select(columns)
    mapping = nsys.COLUMN_OF[table]
    wanted = dict.fromkeys([*(mapping[column] for column in columns), *extra])
    _require(name, present, wanted)
    there = [column for column in wanted if column in present]
    enums = _enums(source) if _ENUM_COLUMNS.intersection(columns) else {}
    schema = TABLES[table]
    expressions = [
        _narrowed(_converted(column, pl.col(mapping[column]), enums), schema[column]).alias(column)
        for column in columns
    ]

    def canonical(raw: pl.DataFrame) -> pl.DataFrame:
        raw = raw.with_columns(pl.lit(None, pl.Int64).alias(column) for column in wanted if column not in present)
        try:
            return raw.select(*expressions, *extra)
        except pl.exceptions.PolarsError as error:
            raise TraceFormatError(
                f"table {name} holds numbers that fit no {'/'.join(columns)}", hint="export the report again"
            ) from error

    if not there:
        return canonical(pl.select(rows=pl.int_range(source.row_count(name))))
    return source.read(name, there, canonical)


def _require(table: str, present: frozenset[str], wanted: dict[str, None]) -> None:
    absent = sorted(column for column in wanted if column not in present and column not in nsys.OPTIONAL_COLUMNS)
    if absent:
        raise TraceFormatError(
            f"table {table} lacks the column {absent[0]}, which every known nsys writes",
            hint="export the report again with the nsys that captured it",
        )


_Enums = dict[str, dict[int, str]]


def _pid(value: pl.Expr) -> pl.Expr:
    return ((value // _PID_SHIFT) & _PID_MASK).cast(pl.Int32)


def _tid(value: pl.Expr) -> pl.Expr:
    return (value & _PID_MASK).cast(pl.Int32)


def _memory(value: pl.Expr, enums: _Enums) -> pl.Expr:
    return value.replace_strict(enums["memory"], default="unknown", return_dtype=pl.String)


_CONVERSIONS: dict[str, Callable[[pl.Expr, _Enums], pl.Expr]] = {
    "pid": lambda value, _: _pid(value),
    "tid": lambda value, _: _tid(value),
    "label": lambda value, enums: value.replace_strict(enums["label"], default="other", return_dtype=pl.String),
    "src_memory": _memory,
    "dst_memory": _memory,
    "memory": _memory,
    "duplicate": lambda value, _: (value == nsys.EVENT_CLASS_API_BACKTRACE).fill_null(value=False),
    "is_in": lambda value, _: value != 0,
    "allocates": lambda value, _: value == nsys.MEMORY_OPERATION_ALLOCATION,
}
"""Canonical columns that are not simply nsys's number."""


_ENUM_COLUMNS: Final = frozenset({"label", "src_memory", "dst_memory", "memory"})


def _narrowed(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """In the canonical width. Ids may use all 32 bits; an exporter that signs them writes the upper half below zero."""
    if dtype != U32:
        return value.cast(dtype)
    return pl.when(value.is_between(-(1 << 31), _U32_MAX)).then(value & _U32_MAX).cast(U32)


def _converted(column: str, value: pl.Expr, enums: _Enums) -> pl.Expr:
    return _CONVERSIONS[column](value, enums) if column in _CONVERSIONS else value


def _enums(source: RawSource) -> _Enums:
    """Numbers -> canonical words, by the file's own ENUM tables where it has them."""
    copy = _enum(source, nsys.ENUM_COPY_KIND, nsys.COPY_KIND_PREFIX) or nsys.COPY_KINDS
    memory = _enum(source, nsys.ENUM_MEMORY_KIND, nsys.MEMORY_KIND_PREFIX) or nsys.MEMORY_KINDS
    return {
        "label": {number: nsys.COPY_LABEL.get(kind, "other") for number, kind in copy.items()},
        "memory": {number: nsys.MEMORY_OF.get(kind, "unknown") for number, kind in memory.items()},
    }


def _enum(source: RawSource, table: str, prefix: str) -> dict[int, str]:
    if not {"id", "name"} <= source.columns(table):
        return {}
    return {number: name.removeprefix(prefix) for number, name in source.read(table, ["id", "name"]).iter_rows()}


def _one_id_a_name(kernels: pl.DataFrame, strings: _Table) -> pl.DataFrame:
    """Kernels are told apart by name, and a merged report may hold one name under two ids: keep the lowest id."""
    ids = [name for name in ("name_id", "short_name_id") if name in kernels.columns]
    if not ids:
        return kernels
    used = pl.concat([kernels[name].unique().rename("string_id") for name in ids]).unique().drop_nulls()
    names = strings.frame(["string_id", "value"]).filter(pl.col("string_id").is_in(used.implode()))
    doubled = names.with_columns(first=pl.col("string_id").min().over("value")).filter(
        pl.col("first") != pl.col("string_id")
    )
    if doubled.is_empty():
        return kernels
    return kernels.with_columns(pl.col(ids).replace(doubled["string_id"], doubled["first"]))


def _read_os_calls(source: RawSource) -> pl.DataFrame:
    columns = list(TABLES["os_calls"])
    if "eventClass" not in source.columns(nsys.TABLE_OF["os_calls"]):
        return _read(source, "os_calls", columns)
    frame = _read(source, "os_calls", columns, extra=["eventClass"])
    return frame.filter(pl.col("eventClass") == nsys.EVENT_CLASS_OS_RUNTIME)


def _read_os_marks(source: RawSource) -> pl.DataFrame:
    """Rows of the OS runtime that are no calls; old exports without the column do not tell them apart."""
    if "eventClass" not in source.columns(nsys.TABLE_OF["os_marks"]):
        return empty("os_marks")
    frame = _read(source, "os_marks", list(TABLES["os_marks"]), extra=["eventClass"])
    return frame.filter(pl.col("eventClass") != nsys.EVENT_CLASS_OS_RUNTIME)


def _read_nvtx(source: RawSource, strings: _Table) -> pl.DataFrame:
    """Ranges with their full names. A range that was never closed lasts until the last time in the table."""
    table = nsys.TABLE_OF["nvtx"]
    present = source.columns(table)
    if not present:
        return empty("nvtx")
    wanted = dict.fromkeys(["start", "end", "eventType", "globalTid", "text", "textId", "domainId"])
    _require(table, present | {"text", "textId", "domainId"}, wanted)
    raw = source.read(table, [column for column in wanted if column in present])
    raw = raw.with_columns(
        pl.lit(None, pl.String if column == "text" else pl.Int64).alias(column)
        for column in wanted
        if column not in present
    )
    names = strings.frame(["string_id", "value"])
    events = raw.with_columns(
        _pid(pl.col("globalTid")).alias("pid"),
        _tid(pl.col("globalTid")).alias("tid"),
        pl.col("text").replace("", None),
    ).join(names, left_on="textId", right_on="string_id", how="left", maintain_order="left")
    events = events.with_columns(text=pl.coalesce("text", "value"))
    domains = (
        events.filter(pl.col("eventType") == nsys.NVTX_DOMAIN_CREATE)
        .select("pid", "domainId", domain="text")
        .unique(["pid", "domainId"], keep="first", maintain_order=True)
    )
    last = raw.select(pl.max_horizontal(pl.col("start").max(), pl.col("end").max())).item()
    return (
        events.filter(pl.col("eventType").is_in(list(nsys.NVTX_STYLES)))
        .join(domains, on=["pid", "domainId"], how="left", maintain_order="left")
        .select(
            start_ns="start",
            end_ns=pl.coalesce("end", pl.lit(last, pl.Int64)),
            pid="pid",
            tid="tid",
            style=pl.col("eventType").replace_strict(nsys.NVTX_STYLES, return_dtype=pl.String),
            text=pl.when(pl.col("domain").is_not_null())
            .then(pl.format("{}:{}", "domain", pl.col("text").fill_null("")))
            .otherwise(pl.col("text")),
        )
    )


def _read_gpu_metrics(source: RawSource) -> pl.DataFrame:
    table, named = nsys.TABLE_OF["gpu_metrics"], ["typeId", "metricId", "metricName"]
    present = source.columns(table)
    if not present or not set(named) <= source.columns(nsys.GPU_METRIC_NAMES):
        return empty("gpu_metrics")
    columns = ["timestamp", "typeId", "metricId", "value"]
    _require(table, present, dict.fromkeys(columns))
    names = source.read(nsys.GPU_METRIC_NAMES, named).unique(["typeId", "metricId"], keep="first")
    rows = source.read(table, columns).join(names, on=["typeId", "metricId"], how="inner", maintain_order="left")
    value = pl.col("value").cast(pl.Int64, strict=False)  # other tables have text in a column of that name
    return rows.select(start_ns="timestamp", source="typeId", metric="metricName", value=value)


def _read_diagnostics(source: RawSource) -> pl.DataFrame:
    table = nsys.TABLE_OF["diagnostics"]
    if not source.columns(table):
        return empty("diagnostics")
    raw = source.read(table, ["timestamp", "severity", "text"])
    return raw.select(
        start_ns="timestamp",
        severity=pl.col("severity").replace_strict(nsys.SEVERITIES, default="unknown", return_dtype=pl.String),
        text="text",
    )
