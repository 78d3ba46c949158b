"""The ledger itself: it finds what is lost, and nothing else."""

from typing import Any

import pytest
from ledger import CODE, Ledger, Person
from post import PostOffice
from processes import until
from rig import Mongo, Nodes


@pytest.mark.short
def test_what_is_lost_is_found(mongo: Mongo, nodes: Nodes, office: PostOffice) -> None:
    """An account that is deleted behind the server's back, a proof that is taken back, a session that is ended, one
    that is raised from the dead, and a letter that never came are each found, and nothing else is."""
    server = nodes(mongo.uri)
    ledger = Ledger("ledger", lambda: [server.port], office)
    ledger.start(4)

    def sure(*, verified: bool = False, dead: bool = False) -> list[Person]:
        people = [each for each in list(ledger.people) if each.registered and not each.unsure and each.grant]
        return [each for each in people if each.verified == verified and (not dead or bool(each.dead))]

    try:
        # Chance decides what becomes of each of them, and a slow machine proves few addresses.
        assert until(lambda: len(sure()) > 8 and len(sure(dead=True)) > 5 and len(sure(verified=True)) > 5, 120)
    finally:
        ledger.stop()
    assert ledger.wrong == []
    taken: list[Person] = []

    def one(**kind: bool) -> Person:
        taken.append(next(each for each in sure(**kind) if each not in taken))
        return taken[-1]

    gone, unproven, ended, risen, unwritten = one(), one(verified=True), one(), one(dead=True), one()
    for person in ledger.people:  # The last letters are on their way.
        assert office.find(person.email, CODE, 60) or person.verified or not person.registered
    assert office.texts.pop(unwritten.email)
    with mongo.client() as client:
        database = client["hydracore"]
        users, sessions = database.users, database.sessions
        assert users.delete_one({"email": gone.email}).deleted_count == 1
        assert users.update_one({"email": unproven.email}, {"$set": {"email_verified": False}}).modified_count == 1
        assert sessions.delete_one({"_id": session_of(ended.refresh)}).deleted_count == 1
        alive: dict[str, Any] = sessions.find_one({"_id": session_of(risen.refresh)}) or {}
        sessions.insert_one({**alive, "_id": session_of(risen.dead[-1]), "generation": generation_of(risen.dead[-1])})
    lost = ledger.check(mail_within=3)
    assert {each.partition(": ")[0] for each in lost} == {
        each.email for each in (gone, unproven, ended, risen, unwritten)
    }
    for person, what in (
        (gone, "cannot sign in"),
        (unproven, "verified, and me says"),
        (ended, "a live session is dead"),
        (risen, "a dead session lives"),
        (unwritten, "no code came"),
    ):
        assert any(each.startswith(f"{person.email}: {what}") for each in lost), (what, lost)


def session_of(refresh_token: str) -> str:
    return refresh_token.split(".")[1]


def generation_of(refresh_token: str) -> int:
    return int(refresh_token.split(".")[2])
