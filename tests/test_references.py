"""Image references are made whole as Docker does it, and refused before anything is executed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executions.sandbox.references import TRANSPORTS, BadReference, normalise, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
        ("library/python", "docker.io/library/python:latest"),
        ("docker.io/python", "docker.io/library/python:latest"),
        ("index.docker.io/python", "docker.io/library/python:latest"),
        ("docker.io/grafana/grafana:11", "docker.io/grafana/grafana:11"),
        ("user/app", "docker.io/user/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:tag", "localhost:5000/a/b:tag"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("ghcr.io/owner/a__b/c-d.e:V1.0_x", "ghcr.io/owner/a__b/c-d.e:V1.0_x"),
        ("Registry.Example.COM/app", "registry.example.com/app:latest"),
        ("boxer.local/python:debian", "boxer.local/python:debian"),
        (f"python@{DIGEST}", f"docker.io/library/python@{DIGEST}"),
        (f"host:1/a:tag@{DIGEST}", f"host:1/a:tag@{DIGEST}"),
        ("a/b/c/d/e", "docker.io/a/b/c/d/e:latest"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128),
    ],
)
def test_a_reference_is_made_whole(written: str, whole: str) -> None:
    assert normalise(written) == whole


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "empty"),
        (" ", "white space"),
        ("python 3", "white space"),
        ("python\n", "white space"),
        ("python\t", "white space"),
        ("pyth\u00a0on", "white space"),
        ("python\x00", "control character"),
        ("python\x7f", "control character"),
        ("pythön", "not ASCII"),
        ("\u0440ython", "not ASCII"),
        ("--help", "starts with '-'"),
        ("-v", "starts with '-'"),
        ("docker://python", "URL"),
        ("http://host/python", "URL"),
        ("https://host/python", "URL"),
        ("dir:/etc", "dir:"),
        ("DIR:/etc", "dir:"),
        ("oci:layout", "oci:"),
        ("oci-archive:/tmp/x.tar", "oci-archive:"),
        ("docker-archive:x", "docker-archive:"),
        ("docker-daemon:python:3", "docker-daemon:"),
        ("containers-storage:python", "containers-storage:"),
        ("Python", "lower case"),
        ("user/App", "lower case"),
        ("host:5000/App", "lower case"),
        ("Host/app", "lower case"),
        ("../../etc/passwd", "not the host"),
        ("a/../b", "can't be a part"),
        ("a..b", "can't be a part"),
        ("host.example/../a", "can't be a part"),
        ("/etc/passwd", "empty"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("host.example/", "empty"),
        ("a/.hidden", "can't be a part"),
        ("a/-b", "can't be a part"),
        ("a/b-", "can't be a part"),
        ("a___b", "can't be a part"),
        ("a$(id)", "can't be a part"),
        ("a;id", "can't be a part"),
        ("a`id`", "can't be a part"),
        ("a?x=1", "can't be a part"),
        ("a%2e", "can't be a part"),
        ("python:", "can't be a tag"),
        (":tag", "empty"),
        ("python:-x", "can't be a tag"),
        ("python:a:b", "can't be a part"),
        ("python:" + "t" * 129, "tag is longer than 128"),
        ("host:0/a", "not a port"),
        ("host:65536/a", "not a port"),
        ("host:/a", "not the host"),
        ("host:abc/a", "not the host"),
        ("user@host/a", "after '@'"),
        ("user:pass@host.example/a", "after '@'"),
        ("python@", "after '@'"),
        ("python@sha256:abc", "after '@'"),
        ("python@sha512:" + "0" * 128, "after '@'"),
        (f"python@{DIGEST.upper()}", "after '@'"),
        (f"python@{DIGEST}@{DIGEST}", "after '@'"),
        ("0" * 64, "ID of an image"),
        ("a/" * 130 + "a", "name is longer than 255"),
        ("a" * 2000, "longer than 512"),
    ],
)
def test_what_no_registry_could_serve_is_refused_with_its_reason(written: str, reason: str) -> None:
    with pytest.raises(BadReference) as refused:
        normalise(written)
    message = str(refused.value)
    assert reason in message
    assert repr(written[:100])[:-1] in message
    assert len(message) < 600


def test_a_message_holds_no_control_character() -> None:
    with pytest.raises(BadReference) as refused:
        normalise("a\x1b[31m\nb")
    assert str(refused.value).isprintable()


def test_only_the_local_host_itself_is_local() -> None:
    assert parse("boxer.local/a").local
    assert parse("BOXER.local/a").local
    assert not parse("boxer.local:443/a").local
    assert not parse("boxer.localhost/a").local


PIECES = st.sampled_from(
    (
        *(*TRANSPORTS, *"/:@.-_aA0[]\n\0 é", "..", "__", "//", "localhost", "docker.io"),
        *("library/", "sha256:", DIGEST, "host.example", "5000"),
    )
)
ANYTHING = st.one_of(
    st.text(max_size=600),
    st.lists(PIECES, max_size=12).map("".join),
    st.from_regex(r"[a-z0-9.:/@_-]{1,80}", fullmatch=True),
)


@given(ANYTHING)
def test_any_text_is_made_whole_or_refused_and_never_anything_else(text: str) -> None:
    try:
        whole = normalise(text)
    except BadReference:
        return
    assert normalise(whole) == whole
    assert whole.isascii()
    assert whole.isprintable()
    assert not set(whole) & set(" \t\n'\"\\$`;|&<>*?~#%")
    assert "/" in whole
    assert not whole.startswith(("-", "/", "."))
    assert ".." not in whole.split("/")
