import math

import pytest

from slurm_bench.scorers.judge.expectation import DigitAnswer, expectation, expected
from slurm_bench.scorers.judge.parse import Reply, Unreadable, opens_thinking, read_scores, scored

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
        ('Good. **{"overall": 7}**', 7.0),
        ('`{"overall": 7}`.', 7.0),
        ('**`{"overall": 7}`**\n', 7.0),
        ('```\n{"overall": 7}\n```.', 7.0),
        ('It fell. {"overall": 7}.', 7.0),
        ('球掉了。{"overall": 7}。', 7.0),
        ('<answer>{"overall": 7}</answer>', 7.0),
        ('{"reason": "It fell, {as} \\"said\\".", "overall": 7}', 7.0),
        ('{"reason": "It fell.\n\nIt lies.", "overall": 7}', 7.0),
        ('{"reasons": ["It fell.", "It lies."], "overall": 7}', 7.0),
        ('{"overall": 7}<|im_end|>', 7.0),
        ('{"overall": 7, "overall_reason": "8 of 10 cups stand"}', 7.0),
        ('{"overall": {"score": 7, "reason": "It fell."}}', 7.0),
        ('The form: {"overall": <number>}\n\n{"overall": 7}', 7.0),
        ('```json\n{\n  "overall": "<number>"\n}\n```\n{"overall": 7}', 7.0),
        ('<thinking>{"overall": 3}</thinking>{"overall": 7}', 7.0),
        ('[THINK]{"overall": 3}[/THINK]{"overall": 7}', 7.0),
        ('◁think▷{"overall": 3}◁/think▷{"overall": 7}', 7.0),
        ('the template opened it {"overall": 3}</think> {"overall": 7}', 7.0),
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
    "{" + '"overall": <number>\n  ' * 100 + "and so on",  # read within a moment, or never
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
    '[THINK]{"overall": 7}',
    'Done.</think> <think>{"overall": 7}',
    '{"overall": 7}...',
    '{"overall": 7}. But the shadow',
    '{"overall": 7}?',
    '[{"overall": 7}]',
    '{"overall": <7>}',
    '{"overall": <number>}',
    '{"overall": <7>} {"overall": 8}',
    '{"overall": 7, "reason": "8"}',
    '{"overall": 7, "reason": " 8/10 "}',
    '{"overall": 7, "reason": null}',
    '{"overall": 7, "others": [7, 8]}',
    '{"overall": {"score": 7, "of": 10}}',
    '{"overall": {"score": 7, "score": 3}}',
    '{"overall": {"value": 7}}',
    '{"reason": "so {", "overall": 7',
    '{"a": ' * 3000 + '{"overall": 7}',
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
    assert mean == pytest.approx((0.2 * 3 + 0.5 * 10) / 0.8)
    assert expectation({"9": 0.7}, 0.5) == 10
    assert expectation({"0": 0.7}, 0.5) == 0


def test_the_middle_is_the_middle_in_both_modes():
    assert expectation({"5": 1.0}, 0.5) == 5 == read_scores('{"overall": 5}', ["overall"])["overall"]
    scores = [expectation({str(digit): 1.0}, 0.5) for digit in range(10)]
    assert scores == sorted(scores)
    assert (scores[0], scores[9]) == (0, 10)


def test_scores_have_the_order_of_the_aspects_whatever_that_of_the_answers():
    answers = [DigitAnswer(aspect, {"5": 1.0}, "5") for aspect in ("preservation", "quality", "overall")]
    result = expected(answers, ["overall", "quality", "preservation"], 0.5)
    assert list(result.scores) == list(result.info["mass"]) == ["overall", "quality", "preservation"]
    assert result.raw == "overall: 5\nquality: 5\npreservation: 5"


def test_a_reply_that_is_not_whole_is_never_read():
    result = scored(Reply('{"overall": 7}', cut_short="the limit of tokens"), ["overall"])
    assert result.scores == {}
    assert result.parse == "the limit of tokens"
    assert result.raw == '{"overall": 7}'


def test_a_prompt_that_opens_the_thinking_is_told_from_others():
    assert opens_thinking("<|im_start|>assistant\n<think>\n")
    assert not opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_thinking("<|im_start|>user\nno <think>, please<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("probabilities", [{"5": 0.49}, {"5": 0.0}, {"5": math.nan}, {}])
def test_too_little_mass_is_no_number(probabilities):
    with pytest.raises(Unreadable, match="min_mass"):
        expectation(probabilities, 0.5)


def test_no_mass_at_all_is_no_number_whatever_the_threshold():
    with pytest.raises(Unreadable):
        expectation({"5": 0.0}, 0.0)
