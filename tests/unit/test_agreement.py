"""Which configuration is the newest among living processes, and since when a process has an older one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from palette_sync.core.agreement import MOST_FORMER, Loaded, at_start, compared, read_again
from palette_sync.core.leadership import Member

NOW = datetime(2026, 7, 15, 12, 0, tzinfo=UTC)
READ = datetime(2020, 1, 1, tzinfo=UTC)  # a clock that is wrong counts for nothing
EARLIER, LATER = NOW - timedelta(hours=1), NOW + timedelta(hours=1)


def member(
    configuration: str, loaded_at: datetime, *former: str, outdated_since: datetime | None = None, name: str = "b"
) -> Member:
    return Member(name, configuration, loaded_at, former=former, outdated_since=outdated_since)


def test_the_first_process_has_loaded_the_newest() -> None:
    assert at_start("one", READ, [], NOW) == Loaded("one", READ, NOW)


def test_a_start_with_what_others_have_loaded_is_nothing_new() -> None:
    others = [member("one", EARLIER), member("one", NOW, name="c")]

    assert at_start("one", READ, others, LATER).loaded_at == EARLIER


def test_a_start_with_another_configuration_is_the_newest() -> None:
    found = at_start("two", READ, [member("one", EARLIER)], NOW)

    assert (found.loaded_at, found.outdated_since, found.former) == (NOW, None, ("one",))


def test_a_start_with_a_configuration_that_was_replaced_is_older_and_says_so() -> None:
    """A host whose file nobody changed starts again: it must not take over."""
    found = at_start("one", READ, [member("two", EARLIER, "one")], NOW)

    assert found.loaded_at < EARLIER
    assert found.outdated_since == NOW


def test_who_starts_like_a_process_that_is_outdated_is_outdated_too() -> None:
    outdated = member("one", EARLIER, outdated_since=EARLIER)

    assert at_start("one", READ, [outdated], NOW).outdated_since == EARLIER
    assert at_start("one", READ, [outdated, member("one", EARLIER, name="c")], NOW).outdated_since is None


def test_a_newer_configuration_elsewhere_outdates_this_one_once_and_for_all() -> None:
    first = Loaded("one", READ, EARLIER)

    outdated = compared(first, [member("two", NOW)], NOW)
    assert outdated.outdated_since == NOW
    assert compared(outdated, [member("two", NOW)], LATER).outdated_since == NOW
    assert compared(outdated, [], LATER).outdated_since == NOW, "the process that had the newer one is gone"
    agreed = [member("one", LATER)]
    assert compared(outdated, agreed, LATER).outdated_since is None, "the other one went back"


def test_reading_the_same_file_again_makes_it_no_newer() -> None:
    loaded = Loaded("one", READ, EARLIER, EARLIER)

    again = read_again(loaded, "one", NOW, [member("two", NOW)], LATER)
    assert again == Loaded("one", NOW, EARLIER, EARLIER)
    alone = read_again(loaded, "one", NOW, [], LATER)
    assert alone == Loaded("one", NOW, EARLIER), "whoever asks for it without the others means the file as it is"


def test_reading_another_file_is_the_newest_and_remembers_what_it_replaced() -> None:
    loaded = Loaded("one", READ, EARLIER, EARLIER, ("zero", "two"))

    found = read_again(loaded, "two", NOW, [member("three", NOW)], LATER)

    assert found == Loaded("two", NOW, LATER, None, ("zero", "one", "three"))


def test_few_former_configurations_are_remembered() -> None:
    loaded = Loaded("0", READ, EARLIER)
    for number in range(1, 20):
        loaded = read_again(loaded, str(number), NOW, [], NOW + timedelta(seconds=number))

    assert loaded.former == tuple(str(number) for number in range(19 - MOST_FORMER, 19))
