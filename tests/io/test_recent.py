"""Values kept for a while."""

from anchorsfm.io.recent import Recent


def test_what_was_asked_for_last_is_kept_and_the_rest_made_again():
    made: list[int] = []

    def ask(key: int) -> int:
        def make() -> int:
            made.append(key)
            return 10 * key

        return recent.get(key, make)

    recent: Recent[int, int] = Recent(2)
    assert [ask(key) for key in (1, 2, 1, 3, 1, 2)] == [10, 20, 10, 30, 10, 20]
    assert made == [1, 2, 3, 2], "1 was asked for more lately than 2 when 3 came"


def test_a_value_may_ask_for_others_while_it_is_made():
    recent: Recent[int, int] = Recent(1)
    assert recent.get(1, lambda: 1 + recent.get(2, lambda: 5)) == 6
