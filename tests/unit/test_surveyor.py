"""Facts of models are looked up once and kept a while; what could not be reached is tried again."""

from cluster import errors, surveyor
from cluster import spec as specs
from cluster.model_facts import Facts

MODEL = specs.Model.model_validate({"repository": "org/model", "secrets": {"HF_TOKEN": "x"}})


class World:
    def __init__(self):
        self.now = 0.0
        self.asked = []
        self.answer = Facts("org/model", config={"a": 1})
        self.surveyor = surveyor.Surveyor(self.look, clock=lambda: self.now)

    def look(self, model, secrets, wait_s):
        self.asked.append((model, dict(secrets), wait_s))
        if self.answer is None:
            raise errors.Unavailable("Not now.")
        return self.answer


def test_facts_are_kept_for_a_while_per_question():
    world = World()
    assert world.surveyor.known(MODEL, {}) is None
    assert world.surveyor.facts(MODEL, {}, 5) == world.surveyor.facts(MODEL, {}, 5) == world.surveyor.known(MODEL, {}) == world.answer
    assert [(model["repository"], wait) for model, _, wait in world.asked] == [("org/model", 5)]
    assert "secrets" not in world.asked[0][0]
    for secrets, model in (({"HF_TOKEN": "y"}, MODEL), ({}, MODEL.model_copy(update={"revision": "v2"}))):
        world.surveyor.facts(model, secrets, 5)
    assert len(world.asked) == 3
    world.now = surveyor.FRESH_S + 1
    assert world.surveyor.known(MODEL, {}) is None


def test_what_could_not_be_reached_is_told_and_looked_at_again():
    world = World()
    good, world.answer = world.answer, None
    found = world.surveyor.facts(MODEL, {}, 5)
    assert (found.problem, found.message, found.known) == (surveyor.UNREACHABLE, "Not now.", False)
    assert world.surveyor.known(MODEL, {}) == found
    world.answer = good
    assert world.surveyor.facts(MODEL, {}, 30) == good


def test_only_the_newest_are_kept():
    world = World()
    for number in range(surveyor.KEPT + 1):
        world.surveyor.facts(MODEL.model_copy(update={"revision": str(number)}), {}, 5)
    assert world.surveyor.known(MODEL.model_copy(update={"revision": "0"}), {}) is None
    assert world.surveyor.known(MODEL.model_copy(update={"revision": "1"}), {}) is not None
