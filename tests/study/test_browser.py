"""A voter in a real browser: clicks, keys, and the way back."""

from collections.abc import Callable
from typing import Any

from diffalign.study.server import StudyServer
from diffalign.study.votes import Answer, Votes

CHECKED = "[...document.querySelectorAll('input:checked')].map(it => it.name + '=' + it.value)"


def choose(browser: Any, alignment: str, quality: str) -> None:
    for name, value in (("alignment", alignment), ("quality", quality)):
        browser.click(f"input[name={name}][value='{value}']")


def start(browser: Any, url: str) -> None:
    browser.go(url, "/")
    browser.click("button")  # without consent the form stays
    assert browser.run("document.querySelector('input:invalid') !== null")
    browser.click(".consent span")
    browser.click("button")
    browser.at("/vote/1")


def test_a_voter_goes_through_a_study_of_pairs(
    make: Callable[..., Votes], serve: Callable[[Votes], StudyServer], browser: Any
) -> None:
    votes = make(questions=4, checks=1)
    start(browser, serve(votes).url)
    choose(browser, "left", "right")
    browser.click("button")
    browser.at("/vote/2")
    assert browser.run("document.querySelector('.progress span').textContent") == "2 of 5"

    for key in "23":  # tie, right: then the button has the focus
        browser.press(key)
    assert browser.run(CHECKED) == ["alignment=tie", "quality=right"]
    browser.press("Enter")
    browser.at("/vote/3")

    browser.click("button")  # without answers the page stays
    assert browser.run("document.querySelectorAll('input:invalid').length") == 6
    browser.press("b")
    browser.at("/vote/2")
    assert browser.run(CHECKED) == ["alignment=tie", "quality=right"]
    choose(browser, "left", "tie")
    browser.click("button")
    browser.at("/vote/3")

    browser.call("Page.reload")
    browser.at("/vote/3")
    choose(browser, "right", "right")
    browser.click("button")
    browser.at("/vote/4")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)  # the rest without scripts
    browser.call("Page.reload")
    browser.at("/vote/4")
    choose(browser, "left", "left")
    browser.click("button")
    browser.at("/vote/5")
    browser.click("a.back")
    browser.at("/vote/4")
    browser.click("button")
    browser.at("/vote/5")
    choose(browser, "tie", "tie")
    browser.click("button")
    browser.at("/end")

    said = [("left", "right"), ("left", "tie"), ("right", "right"), ("left", "left"), ("tie", "tie")]
    (voter,) = (row[0] for row in votes._file.execute("SELECT id FROM voters"))
    dealt, answers = votes.dealt(voter), votes.answers(voter)
    assert [answers[shown.number] for shown in dealt] == [Answer(*it) for it in said]
    assert len(votes.all()) == 5


def test_a_voter_rates_on_a_phone(
    make: Callable[..., Votes], serve: Callable[[Votes], StudyServer], browser: Any
) -> None:
    votes = make(mode="rating", questions=2)
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True
    )
    start(browser, serve(votes).url)
    assert browser.run("document.documentElement.scrollWidth") <= 360  # nothing sticks out
    assert (
        browser.run("Math.min(...[...document.querySelectorAll('label')].map(it => it.offsetHeight))") >= 44
    )
    choose(browser, "4", "2")
    browser.click("button")
    browser.at("/vote/2")
    choose(browser, "1", "5")
    browser.click("button")
    browser.at("/end")
    assert sorted((vote.answer.alignment, vote.answer.quality) for vote in votes.all()) == [
        ("1", "5"),
        ("4", "2"),
    ]
