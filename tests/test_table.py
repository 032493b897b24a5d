"""The reader of hourly tables: what it accepts, what it refuses, and in which words."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manual_bptt.forecasting.columns import DataError
from manual_bptt.forecasting.table import read_header, read_table

ARGUMENTS = {"time": "hour", "group": "place", "columns": ["temp"]}
CLOCK = {"time": ["year", "month", "day", "hour"], "group": None}
NEW_YORK = {"timezone": "America/New_York"}
GUESS = {"guess": True}

GOOD = "place,hour,temp\nB,2013-01-01T07:00Z,1.5\nA,2013-01-01T08:00Z,NA\nA,2013-01-01T07:00Z,-2\n"
PARTS = "year,month,day,hour,temp\n2013,1,1,6,1\n"
NO_NUMBER = "{}:5: temp: expected a number or NA, got "
NO_HOUR = "{}:5: hour: expected a whole hour in ISO 8601, got "
NO_COLUMN = "{}:1: temp: expected a column of this name, got "
NO_CSV = "{}:5: expected CSV: "
NO_TEXT = "{}: expected text in UTF-8, got "


def temp(cell):
    return GOOD + f"A,2013-01-01T09:00Z,{cell}\n"


def hour(cell):
    return GOOD + f"A,{cell},1\n"


def malformed(name, content, message, **arguments):
    return pytest.param(content, message, arguments, id=name)


# (content, how the message begins, arguments other than ARGUMENTS); {} stands for the path.
MALFORMED = [
    malformed("empty", "", "{}:1: hour: expected a column of this name, got an empty line"),
    malformed("only a byte order mark", "\ufeff", "{}:1: hour: expected a column of this name"),
    malformed("blank first line", "\n" + GOOD, "{}:1: hour: expected a column of this name"),
    malformed("no header", GOOD[16:], "{}:1: hour: expected a column of this name, got B, 2013-"),
    malformed("header only", GOOD[:16], "{}: expected rows below the header, got none"),
    malformed("blank below", GOOD[:16] + "\n \n", "{}: expected rows below the header, got none"),
    malformed("column missing", "place,hour\nA,2013", NO_COLUMN + "place, hour"),
    malformed("column twice", "place,hour,temp,temp\n", NO_COLUMN + "two such columns"),
    malformed("twice but for space", "place,hour,temp, temp\n", NO_COLUMN + "two such columns"),
    malformed("other case", "place,hour,Temp\n", NO_COLUMN + "place, hour, Temp"),
    malformed(
        "semicolons",
        GOOD.replace(",", ";"),
        "{}:1: hour: expected a column of this name, got place;hour;temp; cells seem to be "
        "separated by semicolons; expected commas",
    ),
    malformed(
        "tabs",
        GOOD.replace(",", "\t"),
        r"{}:1: hour: expected a column of this name, got 'place\thour\ttemp'; cells seem to be "
        "separated by tabs",
    ),
    malformed("escape in header", "\x1b[2J,hour,place\n", NO_COLUMN + r"'\x1b[2J', hour, place"),
    malformed(
        "wide header",
        ",".join(["place", "hour", *map(str, range(998))]),
        NO_COLUMN + "place, hour, " + ", ".join(map(str, range(18))) + ", ... (1000 in all)",
    ),
    malformed("row too short", GOOD + "A,2013-01-01T09:00Z\n", "{}:5: expected 3 cells, got 2"),
    malformed("row too long", temp("1,2"), "{}:5: expected 3 cells, got 4"),
    malformed("trailing comma", temp("1,"), "{}:5: expected 3 cells, got 4"),
    malformed("cut off", GOOD + "A,2013-01", "{}:5: expected 3 cells, got 2"),
    malformed(
        "long row after carriage returns", GOOD.replace("\n", "\r") + "A\r", "{}:5: expected 3"
    ),
    malformed(
        "after a cell of two lines",
        'place,hour,temp,note\nA,2013-01-01T07:00Z,1,"a\nb"\nA,2013-01-01T08:00Z,warm,\n',
        "{}:4: temp: expected a number or NA, got 'warm'",
    ),
    malformed(
        "in the second line of a row",
        'place,note,hour,temp\nA,"a\nb",2013-01-01T07:00Z,warm\n',
        "{}:2: temp: expected a number or NA, got 'warm'",
    ),
    malformed("quote never closed", GOOD + 'A,"2013\n' + GOOD, NO_CSV + "unexpected end of data"),
    malformed("quote closed late", GOOD + 'A,"2013\nB,"x"\n', NO_CSV + "',' expected after '\"'"),
    malformed("quote over a long text", GOOD + 'A,"' + "x\n" * 2**17, NO_CSV + "field larger than"),
    malformed("word for a number", temp("warm"), NO_NUMBER + "'warm'"),
    malformed("infinite", temp("inf"), NO_NUMBER + "'inf'"),
    malformed("too large", temp("1e999"), NO_NUMBER + "'1e999'"),
    malformed("signed nan", temp("-nan"), NO_NUMBER + "'-nan'"),
    malformed("underscore", temp("1_0"), NO_NUMBER + "'1_0'"),
    malformed("decimal comma", temp('"1,5"'), NO_NUMBER + "'1,5'"),
    malformed("hexadecimal", temp("0x10"), NO_NUMBER + "'0x10'"),
    malformed("Arabic digits", temp("\u0661\u0662"), NO_NUMBER + "'\u0661\u0662'"),
    malformed("unit", temp("12 degF"), NO_NUMBER + "'12 degF'"),
    malformed("long cell", temp("9" * 37 + "x" * 1000), NO_NUMBER + f"'{'9' * 37}...'"),
    malformed("escape in cell", temp("\x1b[2J\u202e"), NO_NUMBER + r"'\x1b[2J\u202e'"),
    malformed("line break in cell", temp('"1\r\n2"'), NO_NUMBER + r"'1\r\n2'"),
    malformed("word for a time", hour("yesterday"), NO_HOUR + "'yesterday'; 2013-01-01T06:00Z is"),
    malformed("no time", hour(""), NO_HOUR + "''"),
    malformed("missing time", hour("NA"), NO_HOUR + "'NA'"),
    malformed("minutes", hour("2013-01-01T09:51Z"), NO_HOUR + "'2013-01-01T09:51Z'"),
    malformed("seconds", hour("2013-01-01T09:00:01Z"), NO_HOUR),
    malformed("microseconds", hour("2013-01-01T09:00:00.000001Z"), NO_HOUR),
    malformed("leap second", hour("2016-12-31T23:59:60Z"), NO_HOUR),
    malformed("month 13", hour("2013-13-01T00:00Z"), NO_HOUR),
    malformed("February 30", hour("2013-02-30T00:00Z"), NO_HOUR),
    malformed("American date", hour("1/31/2013 9:00"), NO_HOUR),
    malformed("year of five digits", hour("12013-01-01T00:00Z"), NO_HOUR),
    malformed("before year 1 in UTC", hour("0001-01-01T00:00+05:00"), NO_HOUR),
    malformed("after year 9999 in UTC", hour("9999-12-31T23:00-05:00"), NO_HOUR),
    malformed("half an hour off UTC", hour("2013-01-01T09:00+05:30"), NO_HOUR),
    malformed("seconds since 1970", hour("1356998400"), NO_HOUR + "'1356998400'"),
    malformed("milliseconds that look like a date", hour("1312010100000"), NO_HOUR),
    malformed(
        "no group", GOOD + " ,2013-01-01T09:00Z,1\n", "{}:5: place: expected a name, got ' '"
    ),
    malformed(
        "long group",
        GOOD + "x" * 201 + ",2013-01-01T09:00Z,1\n",
        f"{{}}:5: place: expected a name, got '{'x' * 37}...'; a name has 1 to 200 characters",
    ),
    malformed(
        "hour twice",
        hour("2013-01-01T02:00-05:00"),
        "{}:5: hour: expected one row an hour, got a second one for A at 2013-01-01T07Z (the first "
        "is line 4), with another temp",
    ),
    malformed(
        "hour twice, with and without a value",
        hour("2013-01-01T08:00Z"),
        "{}:5: hour: expected one row an hour, got a second one for A at 2013-01-01T08Z (the first "
        "is line 3), with another temp",
    ),
    malformed(
        "hour twice on a clock",
        "hour,temp\n2013-11-03 01:00,1\n2013-11-03 01:00,2\n",
        "{}:3: hour: expected one row an hour, got a second one at 2013-11-03T01Z (the first is "
        "line 2), with another temp; if these times are a local clock's, which shows one hour "
        "twice in autumn, give its timezone",
        group=None,
    ),
    malformed(
        "hour three times in autumn",
        "hour,temp\n2013-11-03 01:00,1\n2013-11-03 01:00,2\n2013-11-03 01:00,3\n",
        "{}:4: hour: expected one row an hour, got a second one at 2013-11-03T06Z (the first is "
        "line 3), with another temp",
        group=None,
        **NEW_YORK,
    ),
    malformed(
        "skipped in spring",
        GOOD + "A,2013-03-10T02:00,1\n",
        "{}:5: hour: expected an hour that the clock does not skip, got 2013-03-10T02:00 in "
        "America/New_York",
        **NEW_YORK,
    ),
    malformed(
        "half an hour off by timezone",
        "hour,temp\n2013-03-10T02:00,1\n",
        "{}:2: hour: expected a whole hour of UTC, got 2013-03-10T02:00 in Asia/Kolkata; without "
        "timezone, times are read as UTC",
        group=None,
        timezone="Asia/Kolkata",
    ),
    malformed(
        "half an hour off the second time only",
        "hour,temp\n2006-04-15T00:00,1\n",
        "{}:2: hour: expected a whole hour of UTC, got 2006-04-15T00:00 in Asia/Colombo",
        group=None,
        timezone="Asia/Colombo",
    ),
    malformed(
        "skipped in parts",
        PARTS + "2013,3,10,2,1\n",
        "{}:3: year, month, day, hour: expected an hour that the clock does not skip",
        **CLOCK,
        **NEW_YORK,
    ),
    *(
        malformed(
            f"parts {row}",
            PARTS + row + ",1\n",
            "{}:3: " + message,
            **CLOCK,
        )
        for row, message in (
            ("0,1,1,6", "year: expected an integer from 1 to 9999, got '0'"),
            ("2013,13,1,6", "month: expected an integer from 1 to 12, got '13'"),
            ("2013,1,0,6", "day: expected an integer from 1 to 31, got '0'"),
            ("2013,2,29,6", "day: expected a day of 2013-02, got '29'"),
            ("2013,1,1,24", "hour: expected an integer from 0 to 23, got '24'"),
            ("2013,1,1,-1", "hour: expected an integer from 0 to 23, got '-1'"),
            ("2013,1,1,6.5", "hour: expected an integer from 0 to 23, got '6.5'"),
            ("2013,1,1,\u0661", "hour: expected an integer from 0 to 23, got '\u0661'"),
            ("2013,NA,1,6", "month: expected an integer from 1 to 12, got 'NA'"),
            (f"{'9' * 5000},1,1,6", "year: expected an integer from 1 to 9999, got '99"),
        )
    ),
    malformed(
        "unknown category",
        temp("fog"),
        "{}:2: temp: expected one of rain, clear, got '1.5'",
        categories={"temp": ["rain", "clear"]},
    ),
    malformed(
        "text, then a number", temp("x"), NO_NUMBER + "'x'; other cells hold numbers", **GUESS
    ),
    malformed(
        "number after text",
        "hour,temp\n2013-01-01,\n2013-01-02,calm\n2013-01-03,3\n",
        "{}:3: temp: expected a number or NA, got 'calm'; other cells hold numbers",
        group=None,
        **GUESS,
    ),
    malformed(
        "too many categories",
        "hour,temp\n" + "".join(f"{2000 + i}-01-01,x{i}\n" for i in range(60)),
        "{}:52: temp: expected numbers or at most 50 different texts, got 60 texts",
        group=None,
        **GUESS,
    ),
    malformed("other bytes", GOOD.encode() + b"A\xb0,2013", NO_TEXT + "the byte 0xb0 in line 5"),
    malformed("NUL", GOOD + "A,2013-01-01T09:00Z,1\0\n", NO_TEXT + "the byte 0x00 in line 5"),
    malformed("UTF-16", GOOD.encode("utf-16"), NO_TEXT + "UTF-16 in line 1"),
    malformed("UTF-16 without mark", GOOD.encode("utf-16-le"), NO_TEXT + "the byte 0x00 in line 1"),
    malformed("gzip", gzip.compress(GOOD.encode()), NO_TEXT + "a gzip file in line 1"),
    malformed(
        "zip", b"PK\x03\x04\x14\x00\x06\x00", NO_TEXT + "a zip file or spreadsheet in line 1"
    ),
    malformed("picture", b"\x89PNG\r\n\x1a\n\x00", NO_TEXT + "the byte 0x89 in line 1"),
]


def read(path, content, **arguments):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, **{**ARGUMENTS, **arguments})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.csv"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path to write to again and again, for tests with many examples."""
    return tmp_path_factory.mktemp("table") / "t.csv"


# What is refused


@pytest.mark.parametrize(("content", "message", "arguments"), MALFORMED)
def test_a_malformed_file_is_refused_in_one_line_that_says_where(path, content, message, arguments):
    with pytest.raises(DataError) as caught:
        read(path, content, **arguments)
    assert str(caught.value).startswith(message.replace("{}", str(path)))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800


def test_a_folder_and_a_missing_file_are_refused_by_either_reader(tmp_path):
    for name, reason in ((tmp_path, "Is a directory"), (tmp_path / "x.csv", "No such file")):
        for reader in (read_header, lambda path: read_table(path, **ARGUMENTS)):
            with pytest.raises(DataError, match=f"{name}: cannot be read: {reason}"):
                reader(name)


def test_a_line_break_in_the_name_of_the_file_does_not_reach_the_message(tmp_path):
    with pytest.raises(DataError) as caught:
        read(tmp_path / "a\nb.csv", "")
    assert str(caught.value).isprintable()
    assert r"a\nb.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "America", "../x", "/etc/localtime", "a\0b"])
def test_an_unknown_timezone_is_named(path, name):
    with pytest.raises(ValueError, match=r"timezone is .*; expected an IANA name") as caught:
        read(path, GOOD, timezone=name)
    assert repr(name) in str(caught.value)
    assert not isinstance(caught.value, DataError)


def test_times_of_two_columns_and_categories_of_no_column_are_refused(path):
    with pytest.raises(ValueError, match="time names 2 columns; expected one, or four"):
        read(path, GOOD, time=["hour", "temp"])
    with pytest.raises(ValueError, match="categories names 'sky'; expected one of temp"):
        read(path, GOOD, categories={"sky": ["clear"]})


ANY_BYTES = st.binary(max_size=200)
PIECES = (
    *(b"", b",", b"\n", b"\r", b'"', b" ", b"-", b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1b[0m"),
    *(b"1e999", b"NaN", b"9" * 30, b"2013-11-03T01:00", b"2013-03-10T02:00,1"),
    "\u0663\u2028\x85".encode(),
)
EDITS = st.lists(
    st.tuples(st.integers(0, len(GOOD)), st.integers(0, 9), st.sampled_from(PIECES)), max_size=4
)


@given(
    st.one_of(
        ANY_BYTES,
        ANY_BYTES.map(lambda end: GOOD.encode() + end),
        EDITS.map(lambda edits: mutate(GOOD.replace("Z", "").encode(), edits)),
    ),
    st.sampled_from(
        [{}, GUESS, NEW_YORK, {"categories": {"temp": ["1.5", "NA"]}}, {"group": None}]
    ),
)
def test_any_bytes_are_a_table_or_refused_in_one_line(scratch, content, arguments):
    try:
        table = read(scratch, content, **arguments)
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert len(table.time) == len(table.group) == len(table.values) > 0
        assert not np.isinf(table.values).any()
    assert message.isprintable()
    assert message.startswith(str(scratch) if message else "")


def mutate(content, edits):
    """Return content with a piece put in place of some bytes, for each (where, how many, piece)."""
    for where, length, piece in edits:
        content = content[:where] + piece + content[where + length :]
    return content


# What is read

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
names = cells.map(str.strip).filter(bool)
hours = st.integers(-(10**6), 10**6)
numbers = st.floats(allow_nan=True, allow_infinity=False)


@st.composite
def tables(draw):
    """Draw {(group, hour): (number, category)} and the categories."""
    levels = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    rows = st.tuples(numbers, st.sampled_from([np.nan, *range(len(levels))]))
    keys = st.tuples(names, hours)
    return draw(st.dictionaries(keys, rows, min_size=1, max_size=8)), levels


def iso(hour):
    return str(np.datetime64(hour, "h")) + ":00Z"


def written(rows, always_quoted=False, newline="\n"):
    def cell(text):
        special = always_quoted or not set(text).isdisjoint(',"\r\n')
        return '"' + text.replace('"', '""') + '"' if special else text

    return "".join(",".join(map(cell, row)) + newline for row in rows)


def assert_holds(table, rows):
    expected = sorted(rows)
    assert list(zip(table.group.tolist(), table.time.astype(int).tolist(), strict=True)) == expected
    np.testing.assert_array_equal(table.values, [rows[key] for key in expected])


@given(tables(), st.data())
def test_a_table_reads_the_same_in_any_order_and_dressing(scratch, drawn, data):
    rows, levels = drawn
    missing = st.sampled_from([t for t in ("", "NA", "n/a", "NaN", "NULL") if t not in levels])
    pad = st.sampled_from(["", " ", "\t"])
    columns = data.draw(st.permutations(["place", "hour", "temp", "sky", "note", ""]))
    order = data.draw(st.permutations(list(rows)))
    order += data.draw(st.lists(st.sampled_from(order), max_size=2))  # rows that occur again
    lines = [[data.draw(pad) + column for column in columns]]
    for key in order:
        number, level = rows[key]
        cell = {
            "place": key[0] + data.draw(pad),
            "hour": iso(key[1]) + data.draw(pad),
            "temp": data.draw(missing) if np.isnan(number) else data.draw(pad) + repr(number),
            "sky": data.draw(missing) if np.isnan(level) else levels[int(level)],
        }
        lines.append([cell.get(column, data.draw(cells)) for column in columns])
        lines += [[]] * data.draw(st.integers(0, 1))
    text = written(
        lines,
        always_quoted=data.draw(st.booleans()),
        newline=data.draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    content = data.draw(st.sampled_from(["", "\ufeff"])) + text
    table = read(scratch, content, columns=["temp", "sky"], categories={"sky": levels})
    assert_holds(table, rows)
    assert table.names == ("temp", "sky")
    assert table.levels == {"sky": tuple(levels)}
    assert read_header(scratch) == tuple(columns)


def test_without_a_group_all_rows_are_of_one(path):
    table = read(path, "hour,temp\n2013-01-02,2\n2013-01-01,1\n", group=None)
    assert table.group.tolist() == ["", ""]
    assert table.values.tolist() == [[1], [2]]
    assert table.levels == {}


@pytest.mark.parametrize("text", ["2012-10-02 09:00:00", "2012-10-02T09Z", "20121002T0900"])
def test_an_hour_may_be_written_in_these_ways(path, text):
    assert str(read(path, f"hour,temp\n{text},1\n", group=None).time[0]) == "2012-10-02T09"


@given(st.dictionaries(hours, st.just((1.0,)), min_size=1, max_size=20))
def test_four_columns_give_the_hours_that_iso_8601_gives(scratch, rows):
    lines = [["year", "month", "day", "hour", "temp"]]
    for hour in rows:
        lines.append([*iso(hour)[:13].replace("T", "-").split("-"), "1"])
    table = read(scratch, written(lines), **CLOCK)
    assert_holds(table, {("", hour): row for hour, row in rows.items()})


@pytest.mark.parametrize("text", ["", " ", "NA", "na", "N/A", "n/a", "NaN", "nan", "null", "None"])
def test_a_missing_number_may_be_written_in_these_ways(path, text):
    content = f"hour,temp\n2013-01-01,{text}\n2013-01-02,1\n"
    for guess in (False, True):
        table = read(path, content, group=None, guess=guess)
        np.testing.assert_array_equal(table.values, [[np.nan], [1]])


def test_repeated_rows_are_kept_once_if_all_that_is_read_agrees(path):
    content = "hour,temp,note\n2013-01-01,1,a\n2013-01-02,,b\n2013-01-01,1.0,c\n2013-01-02,NA,d\n"
    table = read(path, content, group=None)
    np.testing.assert_array_equal(table.values, [[1], [np.nan]])
    assert table.group.tolist() == ["", ""]
    with pytest.raises(DataError, match="with another note"):
        read(path, content, group=None, columns=["temp", "note"], guess=True)


def test_the_hint_at_a_timezone_is_given_only_where_it_could_help(path):
    rows = "hour,temp\n{0},1\n{0},2\n"
    for text, arguments in (("2013-01-01T01:00Z", {}), ("2013-01-01T01:00", NEW_YORK)):
        with pytest.raises(DataError) as caught:
            read(path, rows.format(text), group=None, **arguments)
        assert str(caught.value).endswith("(the first is line 2), with another temp")


# Clocks


def test_without_a_timezone_times_without_an_offset_are_utc(path):
    content = "hour,temp\n2013-07-01T06:00,1\n2013-07-01T07:00+01:00,1\n"
    assert [str(hour) for hour in read(path, content, group=None).time] == ["2013-07-01T06"]


def test_a_year_on_a_local_clock_reads_back_as_consecutive_hours(path):
    utc = np.arange("2013-01-01T05", "2014-01-01T05", dtype="datetime64[h]")
    summer = (utc >= np.datetime64("2013-03-10T07")) & (utc < np.datetime64("2013-11-03T06"))
    clock = utc - np.where(summer, 4, 5)
    content = "hour,temp\n" + "".join(f"{hour}:00,{i}\n" for i, hour in enumerate(clock))
    table = read(path, content, group=None, **NEW_YORK)
    np.testing.assert_array_equal(table.time, utc)
    np.testing.assert_array_equal(table.column("temp"), np.arange(len(utc)))


def test_each_group_shows_the_repeated_hour_by_itself(path):
    rows = ["A,2013-11-03T01:00,1", "B,2013-11-03 01:00,2", "B,2013-11-03T01:00,3"]
    rows += ["A,2013-11-03T01:00,4", "C,2013-11-03T01:00,5"]
    table = read(path, "\n".join(["place,hour,temp", *rows]), **NEW_YORK)
    assert table.group.tolist() == ["A", "A", "B", "B", "C"]
    assert [int(str(hour)[-2:]) for hour in table.time] == [5, 6, 5, 6, 5]
    assert table.column("temp").tolist() == [1, 4, 2, 3, 5]


def test_an_offset_outranks_the_timezone(path):
    rows = ["2013-11-03T01:00-04:00,1", "2013-11-03T06:00Z,2", "2013-11-03T02:00,3"]
    table = read(path, "\n".join(["hour,temp", *rows]), group=None, **NEW_YORK)
    assert [str(hour) for hour in table.time] == ["2013-11-03T05", "2013-11-03T06", "2013-11-03T07"]
    assert table.column("temp").tolist() == [1, 2, 3]


def test_four_columns_are_turned_into_utc_too(path):
    table = read(path, PARTS, **CLOCK, **NEW_YORK)
    assert [str(hour) for hour in table.time] == ["2013-01-01T11"]


# Categories


def days(*texts):
    return "hour,temp\n" + "".join(f"2013-01-{i:02},{text}\n" for i, text in enumerate(texts, 1))


def test_the_levels_are_in_the_order_given_and_may_look_missing(path):
    content = days("NA", "EU", "", "None")
    table = read(path, content, group=None, categories={"temp": ["None", "NA", "EU"]})
    np.testing.assert_array_equal(table.column("temp"), [1, 2, np.nan, 0])
    assert table.levels == {"temp": ("None", "NA", "EU")}


def test_none_is_no_missing_category(path):
    with pytest.raises(DataError, match=r":2: temp: expected one of EU, got 'None'"):
        read(path, days("None"), group=None, categories={"temp": ["EU"]})


def test_a_column_of_texts_is_guessed_to_hold_categories(path):
    table = read(path, days("None", "rain", " fog ", "NA", "None", "fog"), group=None, guess=True)
    assert table.levels == {"temp": ("None", "fog", "rain")}
    np.testing.assert_array_equal(table.column("temp"), [0, 2, 1, np.nan, 0, 1])


def test_guessing_leaves_given_categories_numbers_and_missing_columns_alone(path):
    given = {"temp": ["2", "1"]}
    assert read(path, days(1, 2), group=None, guess=True, categories=given).levels == {
        "temp": ("2", "1")
    }
    for texts in ((1, 2, "NA"), ("", "None")):
        assert read(path, days(*texts), group=None, guess=True).levels == {}


def test_fifty_levels_can_be_guessed(path):
    texts = [f"x{i:02}" for i in range(50)]
    rows = "".join(f"{2000 + i}-01-01,{text}\n" for i, text in enumerate(texts))
    assert read(path, "hour,temp\n" + rows, group=None, guess=True).levels["temp"] == tuple(texts)


# The header


def test_the_header_is_read_with_its_empty_and_repeated_names(path):
    path.write_bytes('\ufeffa, b ,,a,"c\nd"\r\n\xff'.encode("utf-8"))
    assert read_header(path) == ("a", "b", "", "a", "c\nd")


def test_an_empty_header_is_refused(path):
    path.write_text("")
    with pytest.raises(DataError, match=r":1: expected the names of columns, got an empty line"):
        read_header(path)


def test_names_that_are_not_asked_for_may_be_empty_or_occur_twice(path):
    content = "place,,note,hour,note,temp,\nA,1,2,2013-01-01,3,4,\n"
    assert read(path, content).values.tolist() == [[4]]
