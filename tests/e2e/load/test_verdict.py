"""What the load looks for, it finds: each kind of fault by itself, and none where there is none."""

from __future__ import annotations

import json

import pytest

from tests.e2e.load import model, verdict
from tests.e2e.load.clients import Acknowledged, Load, Sample


def sample(name: str, sent: float = 0.0, generation: int = 1, version: int = 1, fault: str = "") -> Sample:
    return Sample(name, "keep-alive", sent, sent + 0.1, 0 if fault else 200, generation, version, fault)


def judged(*samples: Sample, ran: str, acknowledged: tuple[tuple[float, int], ...] = ()) -> verdict.Verdict:
    load = Load(0)
    load.samples = list(samples)
    load.acknowledged = [Acknowledged(*each) for each in acknowledged]
    return verdict.judge(load, ran)


def test_a_load_without_a_fault_has_none() -> None:
    acknowledged = ((1.0, 2), (2.0, 3))
    samples = [sample("a"), sample("b", 0.9), sample("c", 1.1, 2, 5), sample("d", 1.9, 3, 6)]
    assert judged(*samples, ran="a 1\nb 1\nc 5\nd 6\n", acknowledged=acknowledged).faults == ()


def test_a_request_without_a_good_answer_and_a_closed_connection_are_lost() -> None:
    load = Load(0)
    load.samples, load.closed = [sample("a", fault="status 502")], ["b: its answer ended the connection"]
    assert len(verdict.judge(load, "a 1\n").lost) == 2


def test_an_older_answer_to_a_request_that_was_sent_after_the_acknowledgement_is_stale() -> None:
    found = judged(sample("a", 0.9), sample("b", 1.1), ran="a 1\nb 1\n", acknowledged=((1.0, 2),))
    assert found.stale == ("b: g1 answered 100.0 ms after g2 was acknowledged",)


@pytest.mark.parametrize(
    "ran", ["", "a 1\na 1\n", "a 1\nb 1\n", "a 2\n"], ids=["never", "twice", "unasked", "elsewhere"]
)
def test_what_did_not_run_exactly_once_where_the_answer_says_is_found(ran: str) -> None:
    assert len(judged(sample("a"), ran=ran).reran) == 1


def test_a_generation_of_two_versions_and_versions_or_generations_that_go_back_are_confused() -> None:
    two = judged(sample("a", version=1), sample("b", version=2), ran="a 1\nb 2\n")
    back = judged(sample("a", version=2), sample("b", generation=2, version=1), ran="a 2\nb 1\n")
    down = judged(ran="", acknowledged=((1.0, 3), (2.0, 2)))
    assert [len(each.confused) for each in (two, back, down)] == [1, 1, 1]


def answer(text: str, name: str = "a") -> bytes:
    data = {"prediction": text}
    return json.dumps({"success": True, "data": data, "request_id": name}, separators=(",", ":")).encode()


def test_an_answer_with_one_byte_changed_or_of_another_request_is_not_the_one_owed() -> None:
    good = f"00007:a:{model.text('a', 100)}"
    assert model.version_of(answer(good), "a", 100) == 7
    for bad in (good[:-1] + "x", good[:-1], good + "x", f"00007:b:{model.text('b', 100)}"):
        with pytest.raises(ValueError, match="not the one of a"):
            model.version_of(answer(bad), "a", 100)
    with pytest.raises(ValueError, match="not the one of a"):
        model.version_of(answer(good, "b"), "a", 100)


def stream(*pieces: str) -> bytes:
    events = [json.dumps({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    return "".join(f"data: {each}\n\n" for each in events).encode()


def test_a_stream_that_is_cut_lacks_a_piece_or_changes_its_code_is_not_the_one_owed() -> None:
    good = [f"00007:a:{number};" for number in range(model.PIECES)]
    end = b"data: [DONE]\n\n"
    assert model.version_of_stream(stream(*good) + end, "a") == 7
    for bad in (stream(*good), stream(*good[:-1]) + end, stream(*good[:-1], good[-1].replace("7", "8")) + end):
        with pytest.raises(ValueError, match="the stream"):
            model.version_of_stream(bad, "a")
