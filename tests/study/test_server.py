"""A study over HTTP: blind, safe, and no vote lost or doubled."""

import http.client
import io
import random
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffalign.study.questions import pool
from diffalign.study.server import StudyServer, render
from diffalign.study.votes import ALLOWED, Answer, Votes

from .conftest import SOURCES, Client, Page


def test_a_voter_from_start_to_end(make: Any, serve: Any) -> None:
    votes = make(questions=3)
    client = Client(serve(votes).url)
    assert "Begin" in client.get("/").text and client.get("/vote").url.endswith("/")
    assert client.post("/start").status == 400 and not client.jar
    shown = client.begin()
    assert shown.url.endswith("/vote/1") and "1 of 3" in shown.text and 'rel="prev"' not in shown.text
    shown = client.vote(1, "left", "tie")
    assert shown.place == 2 and client.get("/").place == 2 and client.begin().place == 2
    assert client.get("/vote/3").place == 2  # not yet
    assert client.vote(3, "left", "left").place == 2
    missing = client.post("/vote/2", alignment="left")
    assert missing.status == 400 and "answer both" in missing.text
    assert client.vote(2, "left", "5").status == 400
    assert len(votes.all()) == 1

    assert client.get("/vote/1").text.count(" checked") == 2
    assert client.vote(1, "right", "right").place == 2  # another answer, not another vote
    assert client.vote(1, "right", "right").place == 2
    assert len(votes.all()) == 1 and votes.all()[0].answer == Answer("right", "right")
    client.vote(2, "tie", "tie")
    end = client.vote(3, "tie", "left")
    assert end.url.endswith("/end") and "Thank you" in end.text
    assert client.get("/").url.endswith("/end")
    assert len(votes.all()) == 3


def test_without_an_invitation_nobody_fills_the_deal(make: Any, serve: Any) -> None:
    votes = make(questions=3, invite=True)
    server = serve(votes)
    stranger, guest = Client(server.url), Client(server.url)
    for given in ({}, {"code": ""}, {"code": "é" * 16}, {"code": votes.secret[:16]}):
        refused = stranger.post("/start", consent="yes", **given)
        assert refused.status == 400 and "code of your invitation" in refused.text and not stranger.jar
        assert votes.invitation not in refused.text
    assert votes.invitation not in stranger.get("/").text
    address = server.invitation.removeprefix(server.url)
    assert f'value="{votes.invitation}"' in guest.get(address).text
    assert votes.invitation in guest.post("/start", code=votes.invitation).text  # without consent
    assert guest.post("/start", code=votes.invitation, consent="yes").place == 1
    assert guest.vote(1, "left", "tie").place == 2
    assert [votes.number(cookie.value) for cookie in guest.jar] == [0]  # strangers took no part of the deal
    evil = Client(server.url).get("/?code=%22%3E%3Cscript%3E").text
    assert "<script>" not in evil and "&#34;&gt;&lt;script&gt;" in evil


def pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_nothing_that_is_served_tells_what_is_which(make: Any, serve: Any, tmp_path: Path) -> None:
    votes = make(checks=2)
    url, names, sides = serve(votes).url, [], []
    told = [word.encode() for word in (*SOURCES, "secret", "seed0", "000.png", "Software", "made by", "tEXt")]
    told += [str(tmp_path).encode(), b"Last-Modified", b"ETag", b"filename"]
    for _ in range(3):
        client = Client(url)
        seen = [client.get("/"), client.get("/page.css"), client.get("/keys.js"), client.begin()]
        (cookie,) = client.jar
        dealt = votes.dealt(cookie.value)
        assert cookie.has_nonstandard_attr("HttpOnly")
        assert cookie.get_nonstandard_attr("SameSite") == "Strict"
        for place, shown in enumerate(dealt, 1):
            pictures = [client.get(path) for path in seen[-1].pictures]
            names += seen[-1].pictures
            question = pool(votes.design)[shown.number]
            left, right = question.first, question.second
            if shown.swapped:
                left, right = right, left
            for picture, source in zip(pictures, (left, right), strict=True):
                assert picture.status == 200 and picture.headers["Content-Type"] == "image/png"
                file = votes.png(question.prompt, question.position, source)
                assert np.array_equal(pixels(picture.content), pixels(file))
                assert picture.headers["Cache-Control"] == "no-store"
            sides.append(left)
            answer = client.vote(place, "left", "right")
            seen[-1:] = [seen[-1], *pictures, answer]
        for it in seen:
            everything = it.content + str(it.headers).encode() + it.url.encode()
            assert [word for word in told if word in everything] == []
    assert len(set(names)) == len(names) == 3 * 2 * 8  # no id comes twice
    assert set(sides) == {0, 1}
    heads = {
        tuple(sorted(set(it.headers.keys()))) for it in seen if it.headers["Content-Type"] == "image/png"
    }
    assert len(heads) == 1


def test_pictures_are_for_their_voter_alone(make: Any, serve: Any) -> None:
    url = serve(make()).url
    one, other, stranger = Client(url), Client(url), Client(url)
    pictures = one.begin().pictures
    other.begin()
    assert [client.get(pictures[0]).status for client in (one, other, stranger)] == [200, 404, 404]


def question(mode: Any, prompt: str, index: int, total: int, answer: Answer | None = None) -> str:
    pictures = ["1"] if mode == "rating" else ["1", "2"]
    shown = {"mode": mode, "prompt": prompt, "pictures": pictures, "values": ALLOWED[mode], "answer": answer}
    return render("question", **shown, index=index, total=total, warning="")


def test_prompts_are_escaped() -> None:
    evil = '<script>alert("1")</script>'
    text = question("pairs", evil, 1, 2)
    assert evil not in text and "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in text
    assert re.findall("<script[^>]*>", text) == ['<script src="/keys.js" defer>']


def test_addresses_methods_and_bodies_that_are_not_served(make: Any, serve: Any) -> None:
    votes = make()
    server = serve(votes)
    client = Client(server.url)
    assert client.get("/").headers["Content-Security-Policy"].startswith("default-src 'none'")
    client.begin()
    for path in (
        "/x",
        "/vote/0",
        "/vote/9999",
        "/vote/-1",
        "/vote/²",
        "/vote/1/2",
        "/picture/",
        "/study.sqlite",
    ):
        assert client.get(path.replace("²", "%C2%B2")).status == 404, path
    assert client.get("/picture/../study.sqlite").status == 404
    assert client.post("/x", a="b").status == client.get("/vote/7", b"a=b").status == 404
    assert client.get("/vote/1", b"\xff=1").status == client.get("/vote/1", b"junk").status == 400
    assert client.get("/vote/1", b"a=1&" * 20).status == 400
    assert client.get("/vote/1", b"a" * 5000).status == 413
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    for method, status in (("PUT", 501), ("DELETE", 501)):
        connection.request(method, "/vote/1")
        assert connection.getresponse().status == status
        connection.close()
    connection.putrequest("POST", "/start")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()
    connection.request("GET", "/vote", headers={"Cookie": "voter=; \x01=2; a b"})
    assert connection.getresponse().status == 303
    connection.close()
    assert not votes.all()


def test_every_reply_has_the_headers(make: Any, serve: Any) -> None:
    votes = make()
    server = serve(votes)
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    known = {"Cookie": f"{server.cookie}={votes.register()}"}
    votes.dealt = lambda voter: 1 / 0  # a fault of ours
    for method, path, headers, status in (
        ("GET", "/", {}, 200),
        ("GET", "/page.css", {}, 200),
        ("GET", "/vote", {}, 303),
        ("GET", "/vote/", {}, 404),
        ("GET", f"/vote/{'9' * 5000}", {}, 303),
        ("GET", "/picture/1", {}, 404),
        ("GET", "/start", {}, 404),
        ("HEAD", "/", {}, 200),
        ("PATCH", "/start", {}, 501),
        ("POST", "/start", {"Content-Length": "5000"}, 413),
        ("POST", "/start", {"Transfer-Encoding": "chunked"}, 411),
        ("GET", "/vote", known, 500),
    ):
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        assert reply.status == status, (method, path)
        assert str(reply.headers["Content-Security-Policy"]).startswith("default-src 'none'")
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not {"server", "etag", "last-modified"} & {name.lower() for name in reply.headers}
        connection.close()


def test_eight_voters_at_once_and_each_in_two_windows(make: Any, serve: Any) -> None:
    votes = make(checks=2)
    url, faults, said = serve(votes).url, [], {}

    def again(client: Client, place: int, alignment: str, quality: str) -> None:
        try:
            client.vote(place, alignment, quality)
        except OSError as error:
            faults.append(error)

    def vote(voter: int) -> None:
        rng, client = random.Random(voter), Client(url)
        try:
            shown: Page = client.begin()
            (cookie,) = client.jar
            own = []
            while not shown.url.endswith("/end"):
                own.append((rng.choice(("left", "tie", "right")), rng.choice(("left", "tie", "right"))))
                twice = threading.Thread(target=again, args=(client, shown.place, *own[-1]))
                twice.start()  # the same form, sent from another window
                shown = client.vote(shown.place, *own[-1])
                twice.join(20)
            said[cookie.value] = own
        except (OSError, ValueError) as error:
            faults.append(error)

    threads = [threading.Thread(target=vote, args=(voter,)) for voter in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults and len(said) == 8
    assert len(votes.all()) == 8 * 8
    for voter, own in said.items():
        answers = votes.answers(voter)
        assert [answers[shown.number] for shown in votes.dealt(voter)] == [Answer(*it) for it in own]
    assert sorted(votes.number(voter) for voter in said) == list(range(8))
    times = [sum(vote.question == number for vote in votes.all()) for number in range(6)]
    assert times == [8] * 6


def test_an_answer_that_cannot_be_kept_is_not_passed_over(make: Any, serve: Any) -> None:
    votes: Votes = make()
    client = Client(serve(votes).url)
    client.begin()
    votes._file.execute("PRAGMA query_only = ON")  # as a disk that is full
    failed = client.vote(1, "left", "left")
    assert failed.status == 503 and "could not be kept" in failed.text
    votes._file.execute("PRAGMA query_only = OFF")
    assert client.vote(1, "left", "left").place == 2


@pytest.mark.parametrize("mode", ["pairs", "rating"])
def test_pages_are_whole(mode: Any) -> None:
    start = render("start", mode=mode, questions=1, warning="")
    for text in (start, render("end", total=3), render("nothing"), render("trouble")):
        assert text.startswith("<!doctype html>") and text.count("<h1") == 1
    text = question(mode, "p", 2, 3, Answer("left", "5"))
    assert text.count("<legend>") == 2 and text.count("alt=") == (1 if mode == "rating" else 2)
    assert text.count(" checked") == 1


def test_a_cookie_is_told_from_that_of_another_study(make: Any) -> None:
    server = StudyServer(make())
    server.close()
    assert re.fullmatch(r"voter-[0-9a-f]{8}", server.cookie)
