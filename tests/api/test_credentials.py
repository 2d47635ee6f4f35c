from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectome_dagster.api.credentials import Credentials, redact, redacted_start
from connectome_dagster.errors import ConfigurationError


class EnvVar(str):
    """As Dagster's: a str whose text is a variable's name."""


def test_the_repr_hides_both_and_says_which_are_there() -> None:
    assert repr(Credentials("abc", "def")) == "Credentials(read='***', write='***')"
    assert str(Credentials(write="def")) == "Credentials(read=None, write='***')"


def test_each_call_gets_the_credential_it_needs() -> None:
    credentials = Credentials("abc", "def")
    assert credentials.for_("read", "read", "movies") == "abc"
    assert credentials.for_("write", "batchwrite", "movies") == "def"


@pytest.mark.parametrize(
    ("needs", "variable"),
    [("read", "CONNECTOME_READ_CREDENTIAL"), ("write", "CONNECTOME_WRITE_CREDENTIAL")],
)
def test_a_missing_one_is_named_with_verb_collection_and_variable(
    needs: str, variable: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Credentials().for_(needs, "someverb", "movies")  # type: ignore[arg-type]
    for part in (needs, "someverb", "'movies'", variable):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "secret/part",
        "secret part",
        "secret\n",
        "secret\x00",
        "secret\u2028",
        EnvVar("secret"),
        b"secret",
        17,
    ],
)
@pytest.mark.parametrize("needs", ["read", "write"])
def test_what_cannot_be_a_credential_is_refused_without_showing_it(
    needs: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"the {needs} credential") as caught:
        Credentials(**{needs: value})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


SECRETS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="/*…§¶"),
    min_size=6,
    max_size=40,
)
PLAIN = st.text("§¶ \n", max_size=20)  # nothing of a secret

WRITINGS = [
    str,
    lambda secret: quote(secret, safe=""),
    lambda secret: quote(secret, safe="~!@$&'()*+,;=:"),
    quote_plus,
    lambda secret: quote(quote(secret, safe=""), safe=""),
    lambda secret: quote(secret, safe="").lower(),
    lambda secret: json.dumps(secret)[1:-1],
    lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    lambda secret: html.escape(secret),
    lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
    lambda secret: "".join(f"&#{ord(character)};" for character in secret),
]


@given(SECRETS, PLAIN, PLAIN, st.sampled_from(WRITINGS))
def test_a_secret_vanishes_however_it_is_written(secret, before, after, written) -> None:  # type: ignore[no-untyped-def]
    assert redact(before + written(secret) + after, [secret]) == f"{before}***{after}"


@given(SECRETS.filter(lambda secret: len(secret) > 8), st.integers(8, 40))
def test_the_beginning_of_a_secret_counts_as_the_secret(secret: str, kept: int) -> None:
    assert redact(f"§{secret[:kept]}§", [secret]) == "§***§"


@given(SECRETS, st.integers(1, 39), st.sampled_from(WRITINGS), PLAIN)
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(secret, kept, written, before) -> None:  # type: ignore[no-untyped-def]
    half = written(secret)[:kept]
    shown = redacted_start(before + half, [secret], length=500, cut=True)
    assert shown.replace("***", "").rstrip("…") in (before, before.rstrip("…"))


def test_a_text_is_redacted_before_it_is_shortened() -> None:
    text = "x" * 8 + "topsecret"
    assert redacted_start(text, ["topsecret"], length=12, cut=False) == "xxxxxxxx***"
    assert redacted_start(text, ["topsecret"], length=10, cut=False) == "xxxxxxxx**…"


def test_several_secrets_vanish_the_longest_first() -> None:
    assert redact("abcdef abc xyz", ["abc", "abcdef", "", "xyz"]) == "*** *** ***"


@given(st.text())
def test_without_secrets_a_text_stays(text: str) -> None:
    assert redact(text, []) == text
