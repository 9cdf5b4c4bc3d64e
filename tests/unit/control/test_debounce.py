"""When a save is over: decided from times alone."""

import math

from orchestrator.control.debounce import DATA_QUIET, LONGEST, Debounce, for_data


def fresh():
    return Debounce(quiet=0.010, max_wait=0.250)


def test_one_save_is_acted_on_after_the_quiet_time():
    saves = fresh()
    saves.add("main.py", 100.0)
    assert saves.due == 100.010
    assert saves.take(100.009) is None
    assert saves.take(100.010) == {"main.py"}
    assert saves.due is None


def test_events_of_one_path_extend_the_quiet_time_to_max_wait_and_no_longer():
    saves = fresh()
    now = 100.0
    while now < 100.240:
        saves.add("main.py", now)
        assert saves.take(now) is None
        now += 0.005
    saves.add("main.py", 100.248)
    assert saves.due == 100.250
    assert saves.take(100.250) == {"main.py"}


def test_new_paths_extend_it_further_to_the_longest_and_no_longer():
    saves = fresh()
    now = 100.0
    number = 0
    while now < 100.0 + LONGEST - 0.005:
        saves.add(f"{number}.py", now)
        assert saves.take(now) is None
        number, now = number + 1, now + 0.009
    saves.add("last.py", 100.0 + LONGEST - 0.001)
    assert saves.due == 100.0 + LONGEST
    assert len(saves.take(100.0 + LONGEST)) == number + 1


def test_a_checkout_is_one_edit_while_git_holds_its_lock_but_not_for_ever():
    saves = fresh()
    saves.add("main.py", 100.0)
    now = 100.0
    while (due := saves.due) < 100.0 + LONGEST:
        assert due > now
        now = due
        assert saves.take(now, locked=True) is None
    assert saves.take(due, locked=True) == {"main.py"}
    saves.add("main.py", 200.0)
    assert saves.take(saves.due, locked=True) is None
    assert saves.take(saves.due, locked=False) == {"main.py"}


def test_an_emptied_file_waits_one_more_quiet_time_once():
    saves = fresh()
    saves.add("main.py", 100.0)
    assert saves.take(100.010, empty=True) is None
    assert saves.take(100.019) is None
    assert saves.take(100.021, empty=True) == {"main.py"}


def test_a_file_that_is_still_being_written_waits_for_its_writer_up_to_max_wait():
    saves = fresh()
    saves.add("main.py", 100.0, writing=True)
    assert saves.due == 100.250
    saves.add("main.py", 100.030)
    assert saves.due == 100.040
    saves.add("main.py", 100.035, writing=True)
    assert saves.take(100.250) == {"main.py"}


def test_everything_swallows_the_paths():
    saves = fresh()
    saves.add("main.py", 100.0)
    saves.add(None, 100.001)
    assert saves.take(101.0) == frozenset()


def test_a_batch_leaves_nothing_to_the_next():
    saves = fresh()
    saves.add("a", 100.0, writing=True)
    saves.take(100.250, empty=True)
    saves.take(101.0)
    saves.add("b", 102.0)
    assert (saves.first, saves.due, saves.pending) == (102.0, 102.010, {"b"})
    assert saves.take(102.010) == {"b"}


def test_data_waits_until_it_is_left_alone_and_an_endless_log_never_counts():
    data = for_data()
    for second in range(1000):
        data.add("data/steps", second * 0.5)
        assert data.take(second * 0.5) is None
    assert data.due == 999 * 0.5 + DATA_QUIET
    assert data.take(data.due) == {"data/steps"}
    assert math.isinf(data.longest)
