"""Each lie of a server is refused by its name, and moves the site that was lied to nowhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cardionets_core.privacy.secure_sum import SecureSite, Terms
from cardionets_core.privacy.secure_sum.vouching import (
    confirmed,
    list_digest,
    signed_advert,
    survivors_content,
)

ME = "site-0"
LATER = {
    "study": {"study_digest": "cd" * 32},
    "phase": {"phase": 2},
    "round": {"round": 5},
    "attempt": {"attempt": 2},
    "purpose": {"purpose": "counts"},
}


def swapped(found: tuple, place: int, thing) -> tuple:
    return (*found[:place], thing, *found[place + 1 :])


@pytest.fixture
def advertised(play):
    return play(4, 3).advertise()


@pytest.fixture
def shared(play):
    return play(4, 3).advertise().share()


@pytest.fixture
def masked(play):
    """One of four has dropped out after its shares were dealt."""
    return play(4, 3).advertise().share().mask(["site-0", "site-1", "site-2"])


# -- who takes part ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1, 2, 4])
def test_another_threshold(advertised, refused, asked):
    with advertised.unmoved(ME) as site, refused("threshold-differs"):
        site.share(replace(advertised.participants, threshold=asked))


def test_more_sites_than_the_threshold_is_a_majority_of(play, refused):
    run = play(6, 4).advertise()
    sites = {name: run.sites[name] for name in run.names}
    low = Terms(session=run.terms.session, threshold=3, roster=run.terms.roster)
    site = SecureSite(low, replace(sites[ME]._state, threshold=3))
    with refused("threshold-too-low"):
        site.share(replace(run.participants, threshold=3))


def test_keys_signed_by_somebody_else(advertised, refused, key_of):
    adverts = advertised.participants.adverts
    forged = signed_advert(replace(adverts[1], mask_public=adverts[1].channel_public[::-1]), key_of("guest"))
    with advertised.unmoved(ME) as site, refused("signature-invalid", "site-1"):
        site.share(replace(advertised.participants, adverts=swapped(adverts, 1, forged)))


@pytest.mark.parametrize("field", ["channel_public", "mask_public", "seed_check"])
def test_keys_that_the_server_put_in_under_a_true_signature(advertised, refused, field):
    adverts = advertised.participants.adverts
    changed = replace(adverts[2], **{field: bytes(range(1, 33))})
    with advertised.unmoved(ME) as site, refused("signature-invalid", "site-2"):
        site.share(replace(advertised.participants, adverts=swapped(adverts, 2, changed)))


def test_keys_of_a_site_that_the_study_does_not_list(advertised, refused, key_of):
    stranger = signed_advert(replace(advertised.participants.adverts[3], site="somebody"), key_of("somebody"))
    with advertised.unmoved(ME) as site, refused("site-unknown", "somebody"):
        site.share(replace(advertised.participants, adverts=(*advertised.participants.adverts[:3], stranger)))


@pytest.mark.parametrize("what", LATER)
def test_keys_of_another_session(play, advertised, refused, what):
    """Replayed as they were, and with the session's mark rewritten."""
    other = play(4, 3, **LATER[what]).advertise()
    adverts = advertised.participants.adverts
    replayed = other.participants.adverts[1]
    with advertised.unmoved(ME) as site, refused("session-differs"):
        site.share(other.participants)
    with advertised.unmoved(ME) as site, refused("session-differs", "site-1"):
        site.share(replace(advertised.participants, adverts=swapped(adverts, 1, replayed)))
    renamed = replace(replayed, session=adverts[1].session)
    with advertised.unmoved(ME) as site, refused("signature-invalid", "site-1"):
        site.share(replace(advertised.participants, adverts=swapped(adverts, 1, renamed)))


def test_the_site_itself_is_left_out_or_replaced_by_its_former_keys(advertised, refused, key_of):
    participants = advertised.participants
    with advertised.unmoved(ME) as site, refused("own-entry-missing"):
        site.share(replace(participants, adverts=participants.adverts[1:]))
    former = SecureSite.begin(advertised.terms, site=ME, identity=key_of(ME)).advertise()
    with advertised.unmoved(ME) as site, refused("own-entry-missing"):
        site.share(replace(participants, adverts=swapped(participants.adverts, 0, former)))


def test_a_site_or_a_key_twice_or_a_list_out_of_order(advertised, refused, key_of):
    participants = advertised.participants
    one, two, three, four = participants.adverts
    with advertised.unmoved(ME) as site, refused("site-twice", "site-1"):
        site.share(replace(participants, adverts=(one, two, two, four)))
    with advertised.unmoved(ME) as site, refused("malformed"):
        site.share(replace(participants, adverts=(two, one, three, four)))
    for copied in (
        replace(three, mask_public=two.mask_public),
        replace(three, mask_public=two.channel_public),
        replace(three, channel_public=three.mask_public),
        replace(three, seed_check=one.seed_check),
    ):
        copy = signed_advert(copied, key_of("site-2"))
        with advertised.unmoved(ME) as site, refused("key-twice", "site-2"):
            site.share(replace(participants, adverts=(one, two, copy, four)))


WEAK = {
    "zero": bytes(32),
    "one": (1).to_bytes(32, "little"),
    "of order eight": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    "the prime": ((1 << 255) - 19).to_bytes(32, "little"),
    "nine, spelt otherwise": ((1 << 255) - 19 + 9).to_bytes(32, "little"),
    "nine with the top bit": bytes([9]) + bytes(30) + b"\x80",
}


@pytest.mark.parametrize("field", ["channel_public", "mask_public"])
@pytest.mark.parametrize("which", WEAK)
def test_a_key_with_which_the_common_secret_is_known(advertised, refused, key_of, which, field):
    participants = advertised.participants
    weak = signed_advert(replace(participants.adverts[1], **{field: WEAK[which]}), key_of("site-1"))
    with advertised.unmoved(ME) as site, refused("key-weak", "site-1"):
        site.share(replace(participants, adverts=swapped(participants.adverts, 1, weak)))


def test_shares_are_dealt_for_one_list_alone(play, refused):
    run = play(4, 3).advertise()
    run.sites[ME].share(run.participants)
    with run.unmoved(ME) as site, refused("already-answered"):
        site.share(replace(run.participants, adverts=run.participants.adverts[:3]))


def test_the_roster_lists_another_key_for_the_site(play, refused, key_of):
    terms = play(3, 2).terms
    with refused("own-entry-missing"):
        SecureSite.begin(terms, site=ME, identity=key_of("site-1"))
    with refused("own-entry-missing"):
        SecureSite.begin(terms, site="nobody", identity=key_of(ME))


# -- shares ------------------------------------------------------------------------------------------------


def test_sites_that_were_shown_different_lists(play, refused):
    """Each list by itself is one that the terms allow."""
    run = play(4, 3).advertise()
    everybody, three = run.participants, replace(run.participants, adverts=run.participants.adverts[:3])
    bundles = {name: run.sites[name].share(everybody if name == ME else three) for name in run.names[:3]}
    honest = play(4, 3)
    honest.sites = run.sites

    def delivered(**changed):
        to_me = tuple(
            replace(next(entry for entry in bundles[name].envelopes if entry.holder == ME), **changed)
            for name in run.names[1:3]
        )
        return replace(empty, envelopes=to_me)

    empty = play(4, 3).advertise().share().deliveries[ME]
    vector = np.ones(3, np.uint32)
    with run.unmoved(ME) as site, refused("participants-differ", "site-1"):
        site.mask(delivered(), vector)
    with run.unmoved(ME) as site, refused("envelope-invalid", "site-1"):
        site.mask(delivered(participants=list_digest(everybody)), vector)


def test_envelopes_that_were_swapped_changed_or_are_somebody_elses(play, shared, refused):
    delivery = shared.deliveries[ME]
    first, second, third = delivery.envelopes
    foreign = play(4, 3, attempt=2).advertise().share().deliveries[ME].envelopes[0]
    to_other = shared.deliveries["site-2"].envelopes[1]
    assert (to_other.dealer, first.dealer) == ("site-1", "site-1")
    for lie in (
        replace(first, sealed=second.sealed),
        replace(first, seed_share_check=second.seed_share_check),
        replace(first, key_share_check=first.seed_share_check),
        replace(second, dealer="site-1"),
        replace(first, sealed=first.sealed[:-1] + bytes([first.sealed[-1] ^ 1])),
        to_other,
        replace(to_other, holder=ME),
        replace(foreign, participants=first.participants),
        replace(foreign, participants=first.participants, session=first.session),
    ):
        with shared.unmoved(ME) as site, refused("envelope-invalid", "site-1"):
            site.mask(replace(delivery, envelopes=(lie, second, third)), np.ones(3, np.uint32))


def test_an_envelope_that_goes_back_to_its_sender(shared, refused):
    """Each direction has a key of its own."""
    mine = next(entry for entry in shared.deliveries["site-1"].envelopes if entry.dealer == ME)
    delivery = shared.deliveries[ME]
    turned = replace(mine, dealer="site-1", holder=ME)
    with shared.unmoved(ME) as site, refused("envelope-invalid", "site-1"):
        site.mask(replace(delivery, envelopes=(turned, *delivery.envelopes[1:])), np.ones(3, np.uint32))


def test_deliveries_from_strangers_to_others_or_of_another_session(play, shared, refused):
    delivery, vector = shared.deliveries[ME], np.ones(3, np.uint32)
    first, second, third = delivery.envelopes
    other = play(4, 3, attempt=2).advertise().share().deliveries[ME]
    for lie, reason in (
        (other, "session-differs"),
        (shared.deliveries["site-1"], "envelope-invalid"),
        (replace(delivery, envelopes=(first, first, second)), "site-twice"),
        (replace(delivery, envelopes=(second, first, third)), "malformed"),
        (replace(delivery, envelopes=(replace(first, dealer="guest"), second, third)), "site-unknown"),
        (replace(delivery, envelopes=(replace(first, dealer=ME), second, third)), "site-unknown"),
    ):
        with shared.unmoved(ME) as site, refused(reason):
            site.mask(lie, vector)


def test_a_site_masks_one_vector_among_one_set_of_dealers(masked, refused):
    delivery = masked.deliveries[ME]
    with masked.unmoved(ME) as site, refused("vector-differs"):
        site.mask(delivery, masked.vectors[ME] + np.uint32(1))
    with masked.unmoved(ME) as site, refused("vector-differs"):
        site.mask(delivery, masked.vectors[ME].view(np.uint64))
    with masked.unmoved(ME) as site, refused("already-answered"):
        site.mask(replace(delivery, envelopes=delivery.envelopes[:2]), masked.vectors[ME])


@pytest.mark.parametrize(
    "vector", [np.ones(3), np.ones(3, np.int64), np.ones((3, 1), np.uint32), np.ones(0, np.uint64)]
)
def test_what_is_no_vector_of_the_ring_is_not_masked(shared, refused, vector):
    with shared.unmoved(ME) as site, refused("vector-differs"):
        site.mask(shared.deliveries[ME], vector)


# -- survivors ---------------------------------------------------------------------------------------------


def test_a_list_of_survivors_that_cannot_be(play, masked, refused, key_of):
    other = play(4, 3, attempt=2).advertise().share().mask().survivors
    for sites, reason in (
        (("site-1", "site-2", "site-3"), "own-entry-missing"),
        (("guest", "site-0", "site-1", "site-2"), "site-unknown"),
        (("site-0", "site-1", "site-1"), "site-twice"),
        (("site-1", "site-0", "site-2"), "malformed"),
    ):
        with masked.unmoved(ME) as site, refused(reason):
            site.confirm(replace(masked.survivors, sites=sites), identity=key_of(ME))
    with masked.unmoved(ME) as site, refused("session-differs"):
        site.confirm(other, identity=key_of(ME))


@pytest.mark.parametrize("reborn", [False, True])
@pytest.mark.parametrize("answered", [False, True])
def test_a_second_list_of_survivors_is_refused_for_ever(play, refused, key_of, reborn, answered):
    run = play(4, 3, reborn=reborn).advertise().share().mask().confirm()
    if answered:
        run.unmask()
    fewer = ("site-0", "site-1", "site-2")
    signed = tuple(
        confirmed(
            survivors_content(
                run.participants.session,
                participants=list_digest(run.participants),
                dealers=run.participants.names,
                survivors=fewer,
            ),
            session=run.participants.session,
            site=name,
            identity=key_of(name),
        )
        for name in fewer
    )
    for _ in range(2):
        run.at(ME)
        with run.unmoved(ME) as site, refused("survivors-differ"):
            site.confirm(replace(run.survivors, sites=fewer), identity=key_of(ME))
        with run.unmoved(ME) as site, refused("survivors-differ"):
            site.unmask(replace(run.request, sites=fewer, confirmations=signed))
    assert run.at(ME).unmask(run.request).site == ME


def test_both_shares_of_one_site_are_never_told(masked, refused, key_of):
    """The list that would ask for the other kind, with true signatures of sites that the server owns."""
    masked.confirm()
    told = {entry.dealer: entry.kind for entry in masked.sites[ME].unmask(masked.request).shares}
    assert told == {"site-0": "seed", "site-1": "seed", "site-2": "seed", "site-3": "key"}
    everybody = ("site-0", "site-1", "site-2", "site-3")
    with masked.unmoved(ME) as site, refused("survivors-differ"):
        site.unmask(replace(masked.request, sites=everybody))
    with masked.unmoved(ME) as site, refused("survivors-differ"):
        site.confirm(replace(masked.survivors, sites=everybody), identity=key_of(ME))


def test_signatures_that_do_not_count(play, masked, refused, key_of):
    masked.confirm()
    one, two, three = masked.request.confirmations
    session, participants = one.session, masked.participants
    other = play(4, 3, attempt=2).advertise().share().mask(["site-0", "site-1", "site-2"]).confirm()

    def over(site, *, key=None, **changed):
        said = {
            "participants": list_digest(participants),
            "dealers": participants.names,
            "survivors": masked.survivors.sites,
        }
        content = survivors_content(session, **(said | changed))
        return confirmed(content, session=session, site=site, identity=key_of(key or site))

    fewer = replace(participants, adverts=participants.adverts[:3])
    assert over("site-2") == three, "or the lies below would be refused for another reason"
    for lie, reason in (
        (over("site-2", survivors=participants.names), "signature-invalid"),
        (over("site-2", participants=list_digest(fewer)), "signature-invalid"),
        (over("site-2", dealers=masked.survivors.sites), "signature-invalid"),
        (over("site-2", key="guest"), "signature-invalid"),
        (replace(two, site="site-2"), "signature-invalid"),
        (other.request.confirmations[2], "session-differs"),
        (replace(other.request.confirmations[2], session=session), "signature-invalid"),
        (over("site-3"), "site-unknown"),
        (over("site-4", key="guest"), "site-unknown"),
        (two, "site-twice"),
    ):
        with masked.unmoved(ME) as site, refused(reason):
            site.unmask(replace(masked.request, confirmations=(one, two, lie)))
    with masked.unmoved(ME) as site, refused("malformed"):
        site.unmask(replace(masked.request, confirmations=(two, one, three)))
    with masked.unmoved(ME) as site, refused("session-differs"):
        site.unmask(replace(masked.request, session=other.request.session))


# -- order -------------------------------------------------------------------------------------------------


def test_no_step_is_made_before_the_one_it_follows(play, refused, key_of):
    far = play(3, 2).advertise().share().mask().confirm()
    run = play(3, 2).advertise()
    vector = np.ones(3, np.uint32)
    steps = {
        "mask": lambda site: site.mask(far.deliveries[ME], vector),
        "confirm": lambda site: site.confirm(far.survivors, identity=key_of(ME)),
        "unmask": lambda site: site.unmask(far.request),
    }

    def all_refused(*names):
        for name in names:
            with run.unmoved(ME) as site, refused("out-of-order"):
                steps[name](site)

    all_refused("mask", "confirm", "unmask")
    run.share()
    all_refused("confirm", "unmask")
    run.mask()
    all_refused("unmask")
    run.confirm()
    all_refused("mask")
    run.unmask()
    all_refused("mask")
