import math

import pytest

from slurm_bench.scorers.judge.parse import Unreadable, expectation, read_scores, scored

TWO = ["overall", "quality"]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"overall": 7}', 7.0),
        ('The ball fell.\n{"overall": 7.5}\n', 7.5),
        ('Good.\n```json\n{"overall": 0}\n```\n', 0.0),
        ('<think>{"overall": 3}? No.</think>\n{"overall": 10}', 10.0),
        ('{"overall": 4} I stay with that: {"overall": 4.0}', 4.0),
        ('A set {1, 2} and {"colour": "red"} were there. {"overall": 6}', 6.0),
    ],
)
def test_a_reply_in_the_format_is_read(reply, score):
    assert read_scores(reply, ["overall"]) == {"overall": score}


HOSTILE = [
    "",
    "7",
    "Score: 7",
    "overall: 7/10",
    "I can't help with that.",
    "Error: rate limit exceeded",
    '{"overall": }',
    '{"overall": "7"}',
    '{"overall": null}',
    '{"overall": true}',
    '{"overall": [7]}',
    '{"overall": 7/10}',
    '{"overall": NaN}',
    '{"overall": Infinity}',
    '{"overall": -0.1}',
    '{"overall": 10.01}',
    '{"overall": 1e999}',
    '{"overall": ' + "9" * 5000 + "}",
    '{"overall": ' + "[" * 50000 + "}",
    '{"overall": 7, "overall": 2}',
    '{"overall": 7, "mood": 2}',
    '{"quality": 7}',
    '{"Overall": 7}',
    '{"overall": 3} or rather {"overall": 8}',
    '{"overall": true} {"overall": NaN}',
    '{"overall": 7} is what I would say, if',
    '{"overall": 7',
    '{"scores": {"overall": 7}}',
    '<think>{"overall": 7}',
    "<think>" + '{"overall": 7}' * 3,
    "{" * 100_000,
    '"overall": 7',
    "\x00\ud800",
]


@pytest.mark.parametrize("reply", HOSTILE)
def test_anything_else_is_no_number(reply):
    with pytest.raises(Unreadable):
        read_scores(reply, ["overall"])
    result = scored(reply, ["overall"])
    assert result.scores == {}
    assert result.parse not in ("", "ok")
    assert result.raw == reply


def test_all_aspects_or_none():
    assert read_scores('{"quality": 2, "overall": 3}', TWO) == {"overall": 3.0, "quality": 2.0}
    for reply in ('{"overall": 3}', '{"overall": 3}\n{"quality": 2}', '{"overall": 3, "quality": 11}'):
        with pytest.raises(Unreadable):
            read_scores(reply, TWO)


def test_an_expectation_by_hand():
    mean = expectation({"0": 0.1, "3": 0.2, "9": 0.5}, 0.5)
    assert mean == pytest.approx((0.2 * 3 + 0.5 * 9) / 0.8 * 10 / 9)
    assert expectation({"9": 0.7}, 0.5) == 10
    assert expectation({"0": 0.7}, 0.5) == 0


@pytest.mark.parametrize("probabilities", [{"5": 0.49}, {"5": 0.0}, {"5": math.nan}, {}])
def test_too_little_mass_is_no_number(probabilities):
    with pytest.raises(Unreadable, match="min_mass"):
        expectation(probabilities, 0.5)


def test_no_mass_at_all_is_no_number_whatever_the_threshold():
    with pytest.raises(Unreadable):
        expectation({"5": 0.0}, 0.0)
