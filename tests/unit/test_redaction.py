"""What is struck out of prompts, and which patterns are taken."""

import json
import time
from re import _parser

import pytest

from cluster import redaction
from cluster.redaction import Redaction


@pytest.mark.parametrize(
    ("word", "text", "left"),
    [
        ("email", "write to jane.doe+x@mail.example.co.uk!", "write to [email]!"),
        ("phone", "call +49 (171) 123-4567 now", "call [phone] now"),
        ("card", "4111 1111 1111 1111", "[card]"),
        ("iban", "DE89 3704 0044 0532 0130 00", "[iban]"),
        ("ip", "from 10.1.2.3:80", "from [ip]:80"),
        ("number", "no 12345, 1,234.50, 12", "no [number], [number], 12"),
        ("secret", "sk-abcdefghijklmnopqrstuvwxyz0123456789", "[secret]"),
    ],
)
def test_words_strike_out_what_they_mean_and_nothing_else(word, text, left):
    assert Redaction([word]).text(text) == left
    assert Redaction([]).text(text) == text


def test_the_platforms_own_keys_are_always_struck_out():
    assert Redaction([]).text("key moor_p_abcdefghijkl_" + "x" * 40) == "key [secret]"


def test_own_patterns_are_struck_out():
    assert Redaction([r"ACME-\d{3}"]).text("ticket ACME-123.") == "ticket [redacted]."


def test_every_text_and_number_of_a_value_is_looked_at():
    found = Redaction(["number", "email"]).value({"a@b.co": [{"x": 12345, "y": True, "z": None}, "a@b.co", 1.5]})
    assert found == {"[email]": [{"x": "[number]", "y": True, "z": None}, "[email]", 1.5]}


def test_what_is_cut_does_not_keep_half_of_what_was_to_be_struck_out():
    rules = Redaction(["email", "secret"])
    address = "someone.with.a.long.name@example.com"
    for place in range(80, 320):
        text = "x" * place + " " + address + " sk-" + "y" * 500
        assert "someone" not in rules.beginning(text, 200)
        assert "yyyyyyyy" not in rules.beginning(text, 200)
        assert len(rules.beginning(text, 200)) <= 200


def test_shrinking_texts_show_nothing_of_what_follows():
    text = "a@example-of-a-long-domain.com " * 40
    kept = Redaction(["email"]).beginning(text, 300)
    assert set(kept.replace("[email]", "").split()) <= {"[", "[e", "[em", "[ema", "[emai", "[email"}


@pytest.mark.parametrize("rule", [*redaction.WORDS, r"ACME-\d{3}", r"(\d{4}-?){4}", "[a-z]{1,40}@x", "foo|bar", r"(?i)secret", r"(?<=a)b"])
def test_rules_that_can_be_used(rule):
    assert redaction.check(rule) == rule


@pytest.mark.parametrize(
    "rule", ["", "a?", "(", "a+", "a*b", r"(a{1,9}){1,9}", "(a|a){1,30}", r"(a)\1", "x" * 300, "a{1,5000}", r"a{1,40}b{1,40}c{1,40}", "[a-"]
)
def test_rules_that_would_take_long_or_mean_nothing_are_refused(rule):
    with pytest.raises(ValueError, match=r".+"):
        redaction.check(rule)


@pytest.mark.parametrize("word", [word for word in redaction.WORDS if word != "secret"])
def test_no_word_matches_more_than_what_is_looked_at_behind_a_cut(word):
    assert _parser.parse(redaction.WORDS[word]).getwidth()[1] <= redaction.MOST_WIDTH


@pytest.mark.parametrize("text", ["a" * 65536, "1" * 65536, "1-" * 32768, "a@" * 32768, "AB12" * 16384])
def test_hostile_texts_take_no_longer_than_others(text):
    began = time.process_time()
    Redaction([*redaction.WORDS]).text(text)
    assert time.process_time() - began < 2.0


def test_an_endpoint_with_such_a_pattern_is_refused_with_a_sentence(api):
    body = {"name": "demo-chat", "model": {"image": {"echo": {}}}, "requestLog": {"prompts": True, "redact": ["(a+)+"]}}
    answer = api.call("POST", "", body)
    assert (answer.status_code, answer.json()["error_type"]) == (400, "invalid_request")
    assert "bound its repetitions" in json.dumps(answer.json())
