"""The pages that a voter sees. They do not reveal what is compared."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from diffalign.study.questions import GREATEST, LEAST, Design, Mode

if TYPE_CHECKING:
    from diffalign.study.votes import Answer

#: The fields of a question and their texts, by mode.
_FIELDS: dict[Mode, tuple[tuple[str, str], ...]] = {
    "pairs": (
        ("alignment", "Which shows the description better?"),
        ("quality", "Which looks better?"),
    ),
    "rating": (
        ("alignment", "How well does the picture show the description?"),
        ("quality", "How good does the picture look?"),
    ),
}
#: The values of a field and their texts, by mode.
_CHOICES: dict[Mode, tuple[tuple[str, str], ...]] = {
    "pairs": (("left", "Left"), ("tie", "Tie"), ("right", "Right")),
    "rating": tuple((str(i), str(i)) for i in range(LEAST, GREATEST + 1)),
}
#: The texts of the least and the greatest rating, by field.
_ENDS = {"alignment": ("not at all", "fully"), "quality": ("bad", "very good")}
_KEYS: dict[Mode, str] = {
    "pairs": "<kbd>1</kbd> left, <kbd>2</kbd> tie, <kbd>3</kbd> right",
    "rating": "<kbd>1</kbd> to <kbd>5</kbd> rate",
}
#: Title and instructions, by mode.
_TASK: dict[Mode, tuple[str, str]] = {
    "pairs": (
        "Compare pictures",
        "You will see a description and two pictures, {n} times. Say each time which picture shows the "
        "description better, and which one looks better, whatever it shows. Choose “Tie” if you cannot say.",
    ),
    "rating": (
        "Rate pictures",
        "You will see a description and a picture, {n} times. Rate each time from 1 to 5 how well the "
        "picture shows the description (1 not at all, 5 fully), and how good it looks, whatever it shows (1 "
        "bad, 5 very good).",
    ),
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script src="/keys.js" defer></script>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _page(title: str, *parts: str) -> str:
    return _PAGE.format(title=escape(title), body="\n".join(filter(None, parts)))


def _warning(text: str) -> str:
    return f'<p class="warning" role="alert">{escape(text)}</p>' if text else ""


def start(design: Design, warning: str = "") -> str:
    """The page with instructions and the form for consent."""
    title, task = _TASK[design.mode]
    return _page(
        title,
        f"<h1>{title}</h1>",
        f"<p>{task.format(n=design.questions + design.checks)}</p>",
        "<p>Your own view counts; a few seconds each are enough. You may stop at any time, "
        "and go on later in the same browser.</p>",
        _warning(warning),
        '<form method="post" action="/start">',
        '<label class="consent"><input type="checkbox" name="consent" value="yes" required>'
        "<span>I take part of my own will. My answers are kept under a random number, without my name or "
        "address; a cookie holds the number so that I can go on.</span></label>",
        '<p class="ways"><button>Begin</button></p>',
        "</form>",
    )


def question(
    mode: Mode,
    prompt: str,
    pictures: Sequence[str],
    index: int,
    total: int,
    answer: Answer | None = None,
    warning: str = "",
) -> str:
    """The page with a question.

    Arguments:
        pictures: ids, from left to right.
        index: of the question among `total`, from 1.
        answer: that the voter gave before, if any.
        warning: shown above the form.
    """
    sides = ("Left picture", "Right picture") if len(pictures) > 1 else ("Picture",)
    images = "".join(
        f'<figure><img src="/picture/{name}" alt="{side}"><figcaption>{side}</figcaption></figure>'
        for name, side in zip(pictures, sides, strict=True)
    )
    fields = "\n".join(
        _choices(mode, field, text, getattr(answer, field, None)) for field, text in _FIELDS[mode]
    )
    back = f'<a class="back" rel="prev" href="/vote/{index - 1}">Back</a>' if index > 1 else ""
    return _page(
        f"{index} of {total}",
        f'<p class="progress"><progress max="{total}" value="{index - 1}" aria-label="Answered"></progress>'
        f"<span>{index} of {total}</span></p>",
        f'<h1 class="prompt"><span>Description</span> {escape(prompt)}</h1>',
        f'<div class="pictures {mode}">{images}</div>',
        _warning(warning),
        f'<form method="post" action="/vote/{index}" autocomplete="off">',
        f'<div class="asked">{fields}</div>',
        f'<p class="ways">{back}<button>Next</button></p>',
        "</form>",
        f'<p class="keys">Keys: {_KEYS[mode]}; <kbd>Enter</kbd> next; <kbd>B</kbd> back</p>',
    )


def _choices(mode: Mode, field: str, text: str, chosen: str | None) -> str:
    """The radio buttons of a field."""
    radios = "".join(
        f'<label><input type="radio" name="{field}" value="{value}" required'
        f"{' checked' * (value == chosen)}><span>{shown}</span></label>"
        for value, shown in _CHOICES[mode]
    )
    low, high = _ENDS[field]
    ends = f'<p class="ends"><span>1 {low}</span><span>5 {high}</span></p>' * (mode == "rating")
    return f'<fieldset><legend>{text}</legend><div class="choices">{radios}</div>{ends}</fieldset>'


def end(total: int) -> str:
    """The page after the last question."""
    return _page(
        "Thank you",
        "<h1>Thank you!</h1>",
        f"<p>All {total} answers are kept. You may close this page.</p>",
        f'<p class="ways"><a class="back" rel="prev" href="/vote/{total}">Change the last answer</a></p>',
    )


def trouble() -> str:
    """The page for an answer that could not be stored."""
    return _page(
        "Not kept",
        "<h1>This could not be kept</h1>",
        "<p>Nothing that you said before is lost. Please go back and try again in a minute.</p>",
    )


def nothing() -> str:
    """The page for an unknown address."""
    return _page(
        "Not found",
        "<h1>There is nothing here</h1>",
        '<p class="ways"><a class="back" href="/">To the questions</a></p>',
    )
