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
    for slot, line in zip(("high_noise", "low_noise"), found["lines"], strict=True):
        assert f"the MODEL in {slot} has shift 5, this run 12; with shift 0 the sampler follows" in line


def test_the_models_keep_their_shift(measured):
    found = measured["the_models_afterwards"]
    assert found == {"shifts": ["finished", 8.0, 8.0, 8.0, 8.0], "native": 0}


def test_step_caches_keep_to_their_percents_in_every_queue(measured):
    native, ours, pair = (measured["step_cache_windows"][label] for label in ("native", "ours", "pair"))
    assert ours == [native[1], native[1], 0, native[3]]
    assert pair[0] == pair[1] < 20 and pair[2] == 0


def test_what_is_added_during_a_run_reaches_both_experts(measured):
    found = measured["added_during_the_run"]
    assert found["twice"] == found["on the first alone"] == 0 < 1e-2 < found["change"]
    assert found["experts"] == ["high", "low"]
    assert found["patched twice"] == 0 < 1e-2 < found["patched change"]
    assert found["calls"][0] == found["calls"][1] > 0


def test_what_was_set_on_one_expert_stays_there(measured):
    found = measured["set_on_the_first_alone"]
    assert found.pop("experts") == ["high", "low"]
    assert found == {"wrapper": ["high"], "patch": ["high"], "replacement": ["high"]}


def test_context_windows_move_at_every_step_and_alike_in_every_queue(measured):
    found = measured["context_windows"]
    assert len(found) == 9
    for solver, (high, low, difference) in found.items():
        assert difference == 0, solver
        assert high == list(range(8)) or solver == "dpm_adaptive", (solver, high)
        assert low == list(range(8, 12)) or solver in ("dpmpp_2s_ancestral", "dpm_adaptive", "churn"), (solver, low)


def test_context_windows_are_the_native_ones(measured):
    found = measured["context_windows_and_native"]
    assert len(found) == 3
    for solver, (difference, change) in found.items():
        assert difference == 0 < 1e-3 < change, (solver, difference, change)


def test_guidance_is_split_over_the_devices_of_both_experts(measured):
    found = measured["guidance_on_two_devices"]
    assert found["difference"] == found["again"] == 0
    for expert in ("high", "low"):
        assert found[expert]["own"] == found[expert]["clone"] > 0, expert
    assert found["threads"] == 4 and found["left"] == found["lost"] == []


def test_the_low_noise_expert_may_be_on_a_device_of_its_own(measured):
    """Texts, masks, latents and hooks included; a mix-up of devices would have ended the run."""
    found = measured["experts_on_two_devices"]
    assert len(found) == 5 and not any(found.values()), found
