"""Tables and pictures that are kept: those that were used last."""

from api.frames import Recent


def test_what_was_used_last_is_kept_as_far_as_there_is_room():
    made = []

    def make(name):
        return lambda: made.append(name) or name

    kept = Recent(10, len)
    for name in ("aaaa", "bbbb", "aaaa", "cc", "dddd"):
        assert kept.get(name, make(name)) == name
    assert made == ["aaaa", "bbbb", "cc", "dddd"]
    kept.get("cc", make("cc"))
    kept.get("aaaa", make("aaaa"))
    assert made == ["aaaa", "bbbb", "cc", "dddd"], "the latest ten characters are there"
    kept.get("bbbb", make("bbbb"))
    assert made[4:] == ["bbbb"]
