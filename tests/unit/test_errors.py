"""Promises about errors: each has a status, a slug and a sentence; nothing in headers can break them."""

import pytest

from cluster import errors, http_errors


def all_errors(base=errors.MoorageError):
    """Those of cluster.errors, whatever other modules this process has imported."""
    mine = [child for child in base.__subclasses__() if child.__module__ == errors.__name__]
    return [base, *(found for child in mine for found in all_errors(child))]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_has_a_status_a_slug_and_a_sentence(cls):
    error = cls()
    assert 400 <= http_errors.status_of(error) < 600
    assert error.code == error.code.lower() and " " not in error.code
    assert error.message.endswith((".", "`", "call")) or ":" in error.message
    assert http_errors.openai_body(error)["error"]["code"] == error.code
    assert http_errors.management_body(error)["error_type"] == error.code


def test_slugs_are_unique():
    codes = [cls.code for cls in all_errors()]
    assert len(codes) == len(set(codes))


def test_a_message_with_line_breaks_and_foreign_letters_makes_a_legal_header():
    headers = http_errors.headers(errors.InvalidRequest("first\r\nSet-Cookie: x\tнет", retry_after=0.2))
    assert headers["X-Error-Message"] == "first Set-Cookie: x ???"
    assert headers["Retry-After"] == "1"
