"""The screen says what a person needs, in few lines."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from megatron.monitor.console import LiveScreen, PlainScreen, SilentScreen, build_screen, duration, step_line
from megatron.monitor.metrics import StepMetrics


def metrics(iteration: int, *, mfu: float | None = None, skipped: bool = False) -> StepMetrics:
    return StepMetrics(
        iteration=iteration,
        consumed_samples=8 * iteration,
        consumed_tokens=512 * iteration,
        loss=2.34567,
        lr=1e-3,
        grad_norm=0.5,
        loss_scale=256.0,
        skipped=skipped,
        step_seconds=2.0,
        tokens_per_second=1234.5,
        model_flops_per_second=5e9,
        hardware_flops_per_second=6e9,
        mfu=mfu,
        memory_bytes=1,
    )


def plain(log_interval: int) -> tuple[PlainScreen, io.StringIO]:
    text = io.StringIO()
    return PlainScreen(Console(file=text, width=500), log_interval=log_interval), text


def test_plain_lines_come_first_every_interval_and_last() -> None:
    screen, text = plain(log_interval=5)
    screen.start(iteration=2, total=12)
    for iteration in range(3, 13):
        screen.step(metrics(iteration))
    printed = [line.split(" ")[1] for line in text.getvalue().splitlines()]
    assert printed == ["3/12", "5/12", "10/12", "12/12"]


def test_a_plain_line_has_loss_speed_and_time_left() -> None:
    screen, text = plain(log_interval=1)
    screen.start(iteration=0, total=40)
    screen.step(metrics(10))
    assert text.getvalue() == (
        "iteration 10/40 | loss 2.3457 | lr 1.00e-03 | grad norm 0.50 | 1,234 tokens/s | 5 GFLOP/s | 1:00 left\n"
    )


def test_a_known_peak_shows_utilisation_and_a_skipped_step_is_named() -> None:
    line = step_line(metrics(1, mfu=0.412, skipped=True))
    assert "MFU 41.2%" in line
    assert "skipped (loss scale 256)" in line


def test_the_summary_lists_every_fact() -> None:
    screen, text = plain(log_interval=1)
    screen.summary("run", {"model": "10M", "[odd] markup": "[x]"})
    assert text.getvalue().splitlines() == ["run", "  model         10M", "  [odd] markup  [x]"]


def test_a_terminal_gets_a_live_bar_with_the_newest_step() -> None:
    text = io.StringIO()
    screen = LiveScreen(Console(file=text, force_terminal=True, width=160))
    screen.summary("run", {"model": "10M"})
    screen.start(iteration=0, total=2)
    screen.step(metrics(2))
    screen.message("saved")
    screen.stop()
    assert "loss 2.3457" in text.getvalue()
    assert "2/2" in text.getvalue()
    assert "saved" in text.getvalue()


def test_the_live_bar_fits_a_terminal_of_80_columns() -> None:
    text = io.StringIO()
    screen = LiveScreen(Console(file=text, force_terminal=True, color_system=None, width=80))
    screen.start(iteration=0, total=143000)
    screen.step(metrics(99999, mfu=0.512))
    screen.stop()
    (last,) = [line for line in text.getvalue().replace("\r", "\n").splitlines() if "99999/143000" in line][-1:]
    assert "loss 2.3457 | 1,234 tokens/s | MFU 51.2%" in last
    assert last.rstrip().endswith("left")


def test_a_timed_step_shows_the_bubble_and_the_stages_of_the_pipeline() -> None:
    times = {"pipeline_bubble": 0.312, "pipeline_bubble_expected": 0.2, "stage_seconds": (0.51, 0.4999)}
    timed = replace(metrics(10), **times)
    assert step_line(timed).endswith("bubble 31% (20% expected) | stages 0.51 0.5 s")
    assert timed.record()["stage_seconds"] == (0.51, 0.4999)
    assert not times.keys() & metrics(10).record().keys()


def test_only_the_first_rank_has_a_screen() -> None:
    assert isinstance(build_screen(rank=1, log_interval=1), SilentScreen)
    assert isinstance(build_screen(rank=0, log_interval=1), PlainScreen)


def test_durations_are_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]


@pytest.mark.parametrize(("terminal", "kind"), [("xterm", LiveScreen), ("dumb", PlainScreen)])
def test_a_terminal_that_cannot_redraw_gets_plain_lines(
    terminal: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes any output for a terminal then
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert isinstance(build_screen(rank=0, log_interval=1), kind)
