"""Lines of files with carets under the text in question."""

from __future__ import annotations

from megatron.neox_arguments.reading.excerpt import WIDTH, excerpt
from megatron.neox_arguments.reading.values import ConfigFile, Origin


def shown(text: str, *places: tuple[int, int, int | None]) -> list[str]:
    file = ConfigFile("a.yml", text)
    lines = excerpt([file], [Origin("a.yml", *place) for place in places]).split("\n")
    assert lines[0] == ""
    return lines[1:]


def test_a_place_is_underlined_over_its_width() -> None:
    assert shown("seed: 12\nlr: 3", (1, 7, 2)) == ["    a.yml:1 | seed: 12", "            |       ^^"]


def test_two_places_in_a_line_share_it_and_lines_are_in_the_order_of_the_file() -> None:
    assert shown("a: 1\nb: {c: 2, d: 3}", (2, 14, 1), (1, 4, 1), (2, 8, 1)) == [
        "    a.yml:1 | a: 1",
        "            |    ^",
        "    a.yml:2 | b: {c: 2, d: 3}",
        "            |        ^     ^",
    ]


def test_margins_of_several_files_are_aligned_and_paths_are_short_where_that_is_clear() -> None:
    files = [ConfigFile("m/long.yml", "a: 1"), ConfigFile("n/b.yml", "c: 2")]
    origins = [Origin("m/long.yml", 1, 1), Origin("n/b.yml", 1, 1)]
    assert excerpt(files, origins).split("\n")[1::2] == ["    long.yml:1 | a: 1", "    b.yml:1    | c: 2"]
    same = [ConfigFile("m/a.yml", "a: 1"), ConfigFile("n/a.yml", "c: 2")]
    origins = [Origin("m/a.yml", 1, 1), Origin("n/a.yml", 1, 1)]
    assert excerpt(same, origins).split("\n")[1::2] == ["    m/a.yml:1 | a: 1", "    n/a.yml:1 | c: 2"]


def test_carets_follow_the_columns_of_a_terminal() -> None:
    _, under = shown('{"模型": x}', (1, 8, 1))
    assert under.index("^") - under.index("|") - 2 == len('{"') + 4 + len('": ')
    _, below = shown("e\u0301: x", (1, 5, 1))
    assert below.index("^") - below.index("|") - 2 == len("e: ")


def test_tabs_and_control_characters_take_one_column() -> None:
    assert shown("a\t\x1b[31m: x", (1, 10, 1)) == ["    a.yml:1 | a ?[31m: x", "            |          ^"]


def test_long_lines_are_cut_around_each_place() -> None:
    text = "a" * 200 + "bcd" + "e" * 300 + "f"
    first, carets, second, more = shown(text, (1, 201, 3), (1, 504, 1))
    for line, below, underlined in ((first, carets, "bcd"), (second, more, "f")):
        assert len(line) <= len("    a.yml:1 | ") + WIDTH
        assert line[below.index("^") : below.rindex("^") + 1] == underlined
    assert first.count("...") == 2
    assert second.count("...") == 1


def test_a_place_that_goes_on_is_underlined_to_the_end_of_its_line() -> None:
    assert shown("a: [1,\n 2]", (1, 4, None)) == ["    a.yml:1 | a: [1,", "            |    ^^^"]


def test_places_outside_files_show_nothing() -> None:
    assert excerpt([ConfigFile("a.yml", "a: 1")], [None, Origin("command line"), Origin("a.yml", 9, 1)]) == ""
