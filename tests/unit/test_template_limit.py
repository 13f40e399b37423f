"""Templates that do not end."""

import threading
import time

import jinja2
import pytest

from deployments.template_limit import Limit, TemplateTooSlow

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def render(limit, text, **values):
    return limit.bounded(jinja2.Template(text).render)(**values)


def test_a_template_without_end_is_ended_and_the_thread_goes_on():
    limit = Limit(0.1)
    for _ in range(3):
        with pytest.raises(TemplateTooSlow, match="did not end"):
            render(limit, ENDLESS)
        assert render(limit, "{{ a }}", a=sum(range(1000))) == "499500"


def test_others_are_left_alone_while_one_is_ended():
    limit, found = Limit(0.3), []

    def many():
        found.extend(render(limit, "{% for a in range(50) %}{{ a }}{% endfor %}") for _ in range(300))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    with pytest.raises(TemplateTooSlow):
        render(limit, ENDLESS)
    for thread in threads:
        thread.join()
    assert len(found) == 1200
    assert len(set(found)) == 1


def test_a_template_within_a_template_has_the_outer_ones_time():
    limit = Limit(0.1)
    inner = limit.bounded(jinja2.Template(ENDLESS).render)
    with pytest.raises(TemplateTooSlow):
        render(limit, "{{ inner() }}", inner=inner)


def test_an_error_of_the_templates_own_passes():
    with pytest.raises(jinja2.UndefinedError):
        render(Limit(), "{{ nothing.at.all }}")


def test_waiting_is_no_work():
    limit = Limit(0.1)
    assert render(limit, "{{ wait() }}", wait=lambda: time.sleep(0.5) or "done") == "done"


def test_threads_that_come_and_go_are_never_asked_after_their_end():
    limit = Limit(0.05)

    def once():
        render(limit, "{{ a }}", a=1)

    for _ in range(300):
        threads = [threading.Thread(target=once) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert render(limit, "{{ a }}", a=1) == "1"
