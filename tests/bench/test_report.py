"""What a run found is kept, judged, and told on the page about performance."""

import pytest
from attrs import evolve

from bench.figures import Figures
from bench.gateway import KEPT
from bench.record import Results, read_results, write_results
from bench.report import PAGE, tables, write_report
from bench.rounds import Sample, merged


def sample(stack, value, *, cell="backlog", regime="stepped", pin="pinned", number=0, **more):
    figures = {"cpu_us_token": value, **more}
    return Sample(regime=regime, cell=cell, pin=pin, stack=stack, round=number, figures=figures)


def results(*samples):
    about = {"date": "d", "commit": "c", "machine": "m", "system": "s"}
    return Results(about=about, samples=samples)


def verdict(*samples):
    (one,) = Figures(results(*samples)).verdicts()
    return one


@pytest.mark.parametrize(
    ("ours", "reached"),
    [(10.1, "not met"), (10.0, "must"), (6.6, "goal"), (6.7, "must"), (4.0, "stretch")],
)
def test_a_ratio_is_held_against_the_levels(ours, reached):
    assert verdict(sample("ours", ours), sample("strong", 20.0)).reached == reached


def test_ratios_are_taken_within_a_round_and_their_median_counts():
    """The second round was disturbed: both cost thrice as much, and their ratio is the same."""
    pairs = [(8.0, 20.0), (24.0, 60.0), (20.0, 20.0)]
    samples = [
        sample(stack, value, number=number)
        for number, pair in enumerate(pairs)
        for stack, value in zip(("ours", "strong"), pair, strict=True)
    ]
    assert verdict(*samples).standing == pytest.approx(0.4)


def test_the_worse_way_of_pinning_and_the_worse_load_are_told():
    samples = [
        sample(stack, value, cell=cell, pin=pin)
        for cell, pin, ours in (
            ("paced100", "pinned", 10.0),
            ("paced100", "unpinned", 12.0),
            ("paced300", "pinned", 18.0),
            ("paced300", "unpinned", 14.0),
        )
        for stack, value in (("ours", ours), ("strong", 20.0))
    ]
    one = verdict(*samples)
    assert (one.cell, one.pin, one.standing) == ("paced300", "pinned", pytest.approx(0.9))


def test_what_is_added_is_told_against_the_decoder_read_directly():
    def gaps(stack, p99):
        return sample(stack, None, cell="paced100", calm_gap_ms={"p50": 20.0, "p99": p99})

    one = verdict(gaps("ours", 21.8), gaps("strong", 25.0), gaps("direct", 20.5))
    assert (one.standing, one.reached) == (pytest.approx(1.3), "goal")


def test_the_page_says_how_many_gaps_were_left_out():
    found = [
        sample("ours", 5.0, cell="paced100", number=n, calm_share=0.9 - n / 10) for n in (0, 1)
    ]
    about = tables(Figures(results(*found)))["about"]
    assert about.endswith("slow moments (see below): ark-trio 15 %.")


def test_turns_of_a_round_are_told_by_their_medians():
    turns = [
        sample("ours", value, first_ms={"p50": value / 2, "p99": 9.0}) for value in (4.0, 90.0, 6.0)
    ]
    figures = merged(turns).figures
    assert figures == {"cpu_us_token": 6.0, "first_ms": {"p50": 3.0, "p99": 9.0}}
    lost = evolve(turns[1], figures={"failed": "Lost"})
    assert merged([turns[0], lost, turns[2]]) == lost


def test_a_run_is_kept_and_told_with_what_was_lost(tmp_path):
    lost = sample("strong", None, cell="burst", failed="Lost: 3 of 4 tokens")
    found = results(sample("ours", 5.0), sample("strong", 20.0), lost)
    write_results(tmp_path / "kept" / "gateway.json", found)
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text())
    write_report(read_results(tmp_path / "kept" / "gateway.json"), page)
    text = page.read_text()
    assert "| 5 | 20 | **0.25** | 0.5 | 0.33 | 0.2 | goal |" in text
    assert "Lost: 3 of 4 tokens" in text
    assert "<svg" in (tmp_path / "performance-tokens.svg").read_text()
    before = text
    write_report(read_results(tmp_path / "kept" / "gateway.json"), page)
    assert page.read_text() == before


def test_a_page_without_a_place_for_a_table_is_refused(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("nothing")
    with pytest.raises(LookupError, match="about"):
        write_report(results(sample("ours", 5.0), sample("strong", 20.0)), page)


def test_the_page_tells_the_kept_run():
    page = PAGE.read_text()
    for name, table in tables(Figures(read_results(KEPT))).items():
        assert f"<!-- {name} -->\n{table}\n<!-- /{name} -->" in page, name
