"""The ledger itself: it finds what is lost, and nothing else."""

import time
from typing import Any

import pytest
from ledger import Ledger, Person
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
    try:
        assert until(lambda: len(ledger.people) > 24, 60)
    finally:
        ledger.stop()
    assert ledger.wrong == []
    sure = [person for person in ledger.people if person.registered and not person.unsure and person.grant]

    def one(*, verified: bool = False, dead: bool = False) -> Person:
        found = next(each for each in sure if each.verified == verified and bool(each.dead) >= dead)
        sure.remove(found)
        return found

    gone, unproven, ended, risen, unwritten = one(), one(verified=True), one(), one(dead=True), one()
    time.sleep(1)  # The last letters are on their way.
    office.texts.pop(unwritten.email, None)
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
