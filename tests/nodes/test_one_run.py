"""What goes by the step or by percent of a run, and several devices: the experts are one model to it."""


def test_percent_windows_cover_the_steps_that_the_native_sampler_gives_them(measured):
    found = measured["percent_windows"]
    assert len(found) == 24
    for what, (counts, difference) in found.items():
        assert len(set(counts)) == 1 and difference == 0, (what, counts, difference)
    assert all(found[f"simple {shift} 0-0.5"][0][0] == 21 for shift in (5, 12))


def test_scheduled_hooks_follow_the_shift_of_the_run(measured):
    found = measured["scheduled_hooks"]
    assert found["3"] == found["12"] == 0 < 1e-3 < found["change"]


def test_the_shift_of_the_model_is_followed_or_said_to_be_ignored(measured):
    found = measured["the_shift_of_the_model"]
    assert len(found["differences"]) == 6 and not any(found["differences"].values()), found["differences"]
    assert found["told"] == [5.0, None, None, None, None]
    assert [("high_noise" in line, "low_noise" in line) for line in found["lines"]] == [(True, False), (False, True)]
    assert all("shift 5" in line and "this run 12" in line for line in found["lines"])


def test_step_caches_keep_to_their_percents_in_every_queue(measured):
    for first, second, difference in measured["step_cache_windows"].values():
        assert first == second and difference == 0


def test_what_is_added_during_a_run_reaches_both_experts(measured):
    found = measured["added_during_the_run"]
    assert found["twice"] == found["on the first alone"] == 0 < 1e-2 < found["change"]
    assert found["experts"] == ["high", "low"]
    assert found["patched twice"] == 0 < 1e-2 < found["patched change"]
    assert found["calls"][0] == found["calls"][1] > 0


def test_context_windows_move_at_every_step_and_alike_in_every_queue(measured):
    found = measured["context_windows"]
    assert len(found) == 10
    for solver, (steps, difference) in found.items():
        assert difference == 0, solver
        if solver not in ("heun", "dpmpp_2s_ancestral", "dpm_adaptive"):  # which ask at other noise levels, too
            assert steps["high"] + steps["low"] == list(range(12)), solver
