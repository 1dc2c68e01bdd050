"""Destinations: every key of every type, what each type does not have, and their working hours."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.encoding.package import KINDS, Package
from dicom_node.errors import ConfigurationError
from dicom_node.routing.configuration import load_configuration
from dicom_node.routing.destination import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Destination, DestinationTls
from dicom_node.routing.hours import Hours, parse_window

BERLIN = ZoneInfo("Europe/Berlin")


def read(entry: str) -> Destination:
    return load_configuration("destinations:\n  it: {" + entry + "}\n").destinations["it"]


def test_what_need_not_be_said() -> None:
    plain = read("type: dimse, host: h, port: 104, ae_title: PACS")
    assert plain == Destination("it", "dimse", "h", 104, "PACS")
    assert plain.package() == Package()
    assert plain.package(["sc"]) == Package(("seg", "pm", "sc", "sr"))
    assert plain.transfer_syntaxes == (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    assert (plain.hours, plain.max_associations, plain.commitment) == (None, 1, False)


def test_everything_about_a_destination() -> None:
    full = read(
        "type: dimse, host: h, port: 104, ae_title: PACS, objects: [sr_text, seg, sc], omit_empty_frames: false,"
        " fall_backs: false, transfer_syntaxes: implicit, hours: ['mon-fri 19:00-06:00', 'sat,sun 00:00-24:00'],"
        " max_associations: 3, commitment: true, tls: true"
    )
    assert full.package(["pdf"]) == Package(("seg", "sc", "sr_text"), omit_empty_frames=False, fall_backs=False)
    assert full.transfer_syntaxes == (IMPLICIT_LITTLE,)
    assert full.hours == Hours((parse_window("mon-fri 19:00-06:00"), parse_window("sat,sun 00:00-24:00")))
    assert (full.max_associations, full.commitment, full.tls) == (3, True, DestinationTls())
    assert read("type: sender, objects: [sr], commitment: true").objects == ("sr",)
    other = "type: dimse, host: pacs, port: 104, ae_title: PACS, commitment: {port: 105, ae_title: PACS_COMMIT}"
    assert (read(other).commitment, read(other).commitment_address) == (True, ("pacs", 105, "PACS_COMMIT"))
    assert full.commitment_address == (full.host, full.port, full.ae_title)
    web = read("type: stow, url: 'https://archive/dicom-web', user: node, password_env: ARCHIVE_PASSWORD")
    assert (web.url, web.user, web.password_env) == (
        "https://archive/dicom-web",
        "node",
        "ARCHIVE_PASSWORD",
    )
    assert read("type: folder, path: /srv/out").path == "/srv/out"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("type: folder", "'path' is missing"),
        ("type: dimse, host: h, port: 1, ae_title: A, commitment: {prot: 2}", "unknown key 'prot'"),
        ("type: dimse, host: h, port: 1, ae_title: A, commitment: maybe", "true or false is needed"),
        ("type: folder, path: /a, commitment: true", "unknown key 'commitment'"),
        ("type: folder, path: out", "the full path"),
        ("type: folder, path: /a, port: 104", "unknown key 'port'"),
        ("type: sender, host: h", "unknown key 'host'"),
        ("type: stow", "'url' is missing"),
        ("type: stow, url: 'archive/dicom-web'", "a URL as https://"),
        ("type: stow, url: 'ftp://archive/'", "a URL as https://"),
        ("type: stow, url: 'https://me:secret@archive/'", "no user or password in the URL"),
        ("type: stow, url: 'https://a/', user: me", "give user with password_env or password_file"),
        ("type: stow, url: 'https://a/', password_env: B", "give user with password_env or password_file"),
        ("type: stow, url: 'https://a/', token_env: A, token_file: /b", "or token_env, or token_file"),
        ("type: stow, url: 'https://a/', user: me, password_env: 'a b'", "environment variable"),
        ("type: stow, url: 'https://a/', user: 'm:e', password_env: A", "without a colon"),
        ("type: stow, url: 'http://a/', token_file: /a", "token_file would go over the network in the clear"),
        ("type: folder, path: /a, objects: [srr]", "no such kind of object; did you mean 'sr"),
        ("type: folder, path: /a, objects: []", "the list is empty"),
        ("type: folder, path: /a, objects: [seg_labelmap, sr]", "beside seg"),
        ("type: folder, path: /a, hours: evening", "'19:00-06:00'"),
        ("type: folder, path: /a, hours: ['19:00-19:00']", "'19:00-06:00'"),
        ("type: folder, path: /a, hours: ['25:00-26:00']", "'19:00-06:00'"),
        ("type: folder, path: /a, hours: ['foo 19:00-20:00']", "'19:00-06:00'"),
        ("type: folder, path: /a, hours: []", "the list is empty"),
        ("type: sender, max_associations: 0", "a whole number above 0"),
        ("type: sender, transfer_syntaxes: [jpeg]", "'explicit' or 'implicit'"),
        ("type: sender, fall_backs: 1", "true or false"),
    ],
)
def test_mistakes(entry: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^line 2: destination it: ") as caught:
        read(entry)
    assert told in str(caught.value)


def test_a_name_that_could_be_taken_for_a_reply() -> None:
    with pytest.raises(ConfigurationError, match="colon"):
        load_configuration("destinations: {'back: CT1 at 10.0.0.1': {type: sender}}")


def test_objects_are_in_the_order_in_which_they_are_sent() -> None:
    assert read("type: folder, path: /a, objects: [" + ", ".join(reversed(KINDS)) + "]").objects == tuple(KINDS)


@pytest.mark.parametrize(
    ("windows", "at", "opens"),
    [
        (["19:00-06:00"], "2026-03-02 18:59", "2026-03-02 19:00"),
        (["19:00-06:00"], "2026-03-02 19:00", None),
        (["19:00-06:00"], "2026-03-02 05:59", None),
        (["19:00-06:00"], "2026-03-02 06:00", "2026-03-02 19:00"),
        (["08:00-17:00", "20:00-22:00"], "2026-03-02 18:00", "2026-03-02 20:00"),
        (["mon-fri 19:00-06:00"], "2026-03-07 05:00", None),  # Saturday, in Friday's window
        (["mon-fri 19:00-06:00"], "2026-03-07 06:00", "2026-03-09 19:00"),
        (["sat,sun 00:00-24:00"], "2026-03-08 23:59", None),
        (["fri-mon 10:00-11:00"], "2026-03-10 10:30", "2026-03-13 10:00"),
        (["wed 10:00-11:00"], "2026-03-04 11:00", "2026-03-11 10:00"),
        (["02:30-03:30"], "2026-03-29 03:15", None),  # the night without 02:30
    ],
)
def test_hours(windows: list[str], at: str, opens: str | None) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=BERLIN)
    found = Hours(tuple(map(parse_window, windows))).opens_at(moment, BERLIN)
    assert found == (opens and datetime.fromisoformat(opens).replace(tzinfo=BERLIN))


@given(begin=st.integers(0, 1439), length=st.integers(1, 1439), minutes=st.integers(0, 600_000))
def test_a_closed_destination_opens_within_a_day_and_is_open_then(begin: int, length: int, minutes: int) -> None:
    end, at = (begin + length) % 1440, datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    hours = Hours((parse_window(f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"),))
    opens = hours.opens_at(at, UTC)
    if opens is not None:
        assert timedelta(0) < opens - at < timedelta(days=1)
        assert hours.opens_at(opens, UTC) is None
        assert hours.opens_at(opens - timedelta(minutes=1), UTC) == opens
