"""Mails keep the words of their sender, and no quoted mails, addresses or signatures."""

from __future__ import annotations

import io
from email.message import EmailMessage

import pytest

from minigpt.documents import mail
from minigpt.documents.base import Source

OWN = "The second finding is new to me."
QUOTED = "What do you say about the quoted finding?"
ENGLISH = "From: Al Smith <al@example.org>\nSent: Monday, March 3, 2025 10:00 AM\nTo: Jo Doe\nSubject: Finding"
GERMAN = "Von: Al Smith [mailto:al@example.org]\nGesendet: Montag, 3. März 2025 10:00\nAn: Jo Doe\nBetreff: Befund"
FRENCH = "De : Al Smith <al@example.org>\nEnvoyé : lundi 3 mars 2025 10:00\nÀ : Jo Doe\nObjet : Bilan"
LONG = (
    "From: Al <al@example.org>\nDate: Monday, 3 March 2025\nTo: Jo <jo@example.org>,\n Bo <bo@example.org>\n"
    "Cc: Di <di@example.org>\nSubject:"
)
GMAIL = "On Mon, Mar 3, 2025 at 10:00 AM Al Smith <al@example.org>\nwrote:"


def text_of(content: str, *, subject: str = "Re: Finding", kind: str = "plain") -> str:
    """Text that is read of a mail, below its subject."""
    message = EmailMessage()
    message["From"], message["Subject"] = "jo@example.org", subject
    message.set_content(content, subtype=kind)
    data = message.as_bytes()
    row = next(iter(mail.read(Source(file="a.eml", size=len(data), opener=lambda: io.BytesIO(data)))))
    first, _, rest = str(row["text"]).partition("\n")
    assert first == subject
    return rest


@pytest.mark.parametrize(
    "above",
    [
        f"-----Original Message-----\n{ENGLISH}\n",
        f"-----Ursprüngliche Nachricht-----\n{GERMAN}\n",
        "-----Message d'origine-----\n",
        f"________________________________\n{ENGLISH}\n",
        f"{GERMAN}\n",
        f"{FRENCH}\n",
        LONG,
        ENGLISH.replace("From:", "*From:*").replace("Sent:", "*Sent:*"),
        "Am 03.03.2025 um 10:00 schrieb Al Smith <al@example.org>:",
    ],
)
def test_a_mail_that_is_answered_is_left_out(above: str) -> None:
    assert text_of(f"{OWN}\n\nBest, Jo\n\n{above}\n\n{QUOTED}\n\n{above}\n\nOlder.\n") == f"{OWN}\nBest, Jo"


@pytest.mark.parametrize("above", [GMAIL, "On Sunday Al wrote:", "Am 3. März 2025 schrieb Al Smith:", GERMAN])
def test_marked_lines_are_left_out_wherever_they_stand(above: str) -> None:
    quoted = f"{above}\n\n> {QUOTED}\n> Al\n"
    assert text_of(f"{OWN}\n\n{quoted}") == OWN
    if above != GERMAN:
        assert text_of(f"{quoted}\n{OWN}\n\n> More.\n\nAnd no.\n\n-- \nJo, +49 30 1234567\n") == f"{OWN}\nAnd no."


def test_running_text_with_such_words_is_kept() -> None:
    words = [
        "She writes: -----Original Message----- stands above it.",
        "From: Monday on we are closed.\nTo: all of you a good week.",
        "Von: hier bis dort sind es drei Meilen.",
        "On Monday the old nurse wrote:\nthe patient sleeps.",
        "From: 3 March\nTo: 5 March\nDate: not fixed\nare the days of the visit.",
        "The original message was lost, and the forwarded message too.",
        "Subject: to change.\nDate: unknown.",
    ]
    for text in words:
        assert text_of(f"{OWN}\n\n{text}\n\nEnd.") == f"{OWN}\n{' '.join(text.split())}\nEnd."


@pytest.mark.parametrize(
    ("subject", "above"),
    [
        ("Fwd: Finding", f"---------- Forwarded message ---------\n{ENGLISH}"),
        ("Finding", f"-------- Forwarded Message --------\nSubject: Finding\nDate: Monday\n{ENGLISH}"),
        ("WG: Befund", GERMAN),
        ("WG: Befund", f"-----Ursprüngliche Nachricht-----\n{GERMAN}"),
        ("Fwd: Finding", f"Begin forwarded message:\n\n{ENGLISH}"),
    ],
)
def test_a_forwarded_mail_is_kept_without_its_addresses(subject: str, above: str) -> None:
    older = f"\n{GERMAN}\n\nOlder words.\n"
    for own in ("", OWN):
        signed = f"{own}\n\n-- \nJo, +49 30 1234567\n\n" if own else ""
        assert text_of(f"{signed}{above}\n\n{QUOTED}\n{older}", subject=subject) == f"{own}\n{QUOTED}".strip()
    marked = "\n".join(f"> {line}" for line in f"{ENGLISH}\n\n{QUOTED}".split("\n"))
    assert text_of(f"{OWN}\n\nBegin forwarded message:\n\n{marked}", subject=subject) == f"{OWN}\n{QUOTED}"


def test_a_quoted_mail_is_kept_where_nothing_else_is_written() -> None:
    for above in (ENGLISH, f"-----Original Message-----\n{ENGLISH}"):
        assert text_of(f"\n{above}\n\n{QUOTED}\n") == QUOTED
    assert text_of(f"{GMAIL}\n\n> {QUOTED}\n> \n> > Older.\n") == QUOTED


@pytest.mark.parametrize(
    "quote",
    [
        '<div>On 3 Mar 2025, Al &lt;al@example.org&gt; wrote:</div><blockquote type="cite">'
        f"<p>{QUOTED}</p></blockquote>",
        f'<div class="gmail_quote"><div class="gmail_attr">On Mon Al wrote:<br></div><blockquote class="gmail_quote">'
        f"{QUOTED}</blockquote></div>",
        f'<div name="quote"><b>Von:</b> "Al" &lt;al@example.org&gt;<br>{QUOTED}</div>',
        f'<div class="moz-cite-prefix">Am 03.03.25 schrieb Al:<br></div><blockquote type="cite">{QUOTED}</blockquote>',
        '<div style="border-top:solid 1.0pt"><p><b>From:</b> Al &lt;al@example.org&gt;<br><b>Sent:</b> Monday<br>'
        f"<b>To:</b> Jo<br><b>Subject:</b> Finding</p></div><p>{QUOTED}</p>",
        '<div id="divRplyFwdMsg"><b>Von:</b> Al &lt;al@example.org&gt;<br><b>Gesendet:</b> Montag<br>'
        f"<b>Betreff:</b> Befund</div><div>{QUOTED}</div>",
    ],
)
def test_quoted_mails_in_html_are_left_out(quote: str) -> None:
    page = f"<html><body><p>{OWN}</p><blockquote>A saying.</blockquote><p>Jo</p>{{}}{quote}</body></html>"
    assert text_of(page.format(""), kind="html") == f"{OWN}\nA saying.\nJo"
    signature = '<div class="gmail_signature">Jo, +49 30 1234567</div>'
    assert text_of(page.format(signature), kind="html") == f"{OWN}\nA saying.\nJo"
    # A mail without words of its own is not left without any.
    assert QUOTED in text_of(f"<html><body>{quote}</body></html>", kind="html")
    assert "@" not in text_of(f"<html><body>{quote}</body></html>", kind="html") or 'name="quote"' in quote


def test_words_below_a_quoted_mail_in_html_are_kept() -> None:
    quote = f'<p>On 3 Mar 2025, Al &lt;al@example.org&gt; wrote:</p><blockquote type="cite">{QUOTED}</blockquote>'
    assert text_of(f"<html><body>{quote}<p>{OWN}</p></body></html>", kind="html") == OWN


def test_forwarded_mails_in_html_are_kept() -> None:
    lines = "From: <b>Al</b> &lt;al@example.org&gt;<br>Date: Monday<br>Subject: Finding<br>To: Jo<br>"
    forward = (
        f'<div class="gmail_quote"><div>---------- Forwarded message ---------<br>{lines}</div><p>{QUOTED}</p></div>'
    )
    page = f"<html><body><p>{OWN}</p>{forward}</body></html>"
    for subject in ("Fwd: Finding", "Finding"):
        assert text_of(page, kind="html", subject=subject) == f"{OWN}\n{QUOTED}"
    apple = f'<p>Begin forwarded message:</p><blockquote type="cite"><p>{lines}</p><p>{QUOTED}</p></blockquote>'
    assert text_of(f"<html><body>{apple}</body></html>", kind="html", subject="Fwd: Finding") == QUOTED


def test_mails_inside_mails_without_end_are_no_harm() -> None:
    assert text_of(">" * 5000 + " x") == ""
    assert text_of("-----Original Message-----\n" * 5000) == ""
    assert text_of(f"{OWN}\n" + "From: x\n" * 5000).startswith(OWN)


def test_hundreds_of_quotations_in_html_are_read_at_once() -> None:
    quotes = "".join(f'<blockquote type="cite">Old words {number}.</blockquote>' for number in range(4000))
    assert "Own words." in text_of(f"<html><body><p>Own words.</p>{quotes}</body></html>", kind="html")
