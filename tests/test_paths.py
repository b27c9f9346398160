"""Paths of the file store: whatever comes in, what comes out is safe, or an error says why not."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from filestore.errors import BadPath
from filestore.paths import clean_path, clean_upload_path

ANYTHING = st.text(alphabet=st.characters(), max_size=300)
HOSTILE = st.lists(
    st.sampled_from(["..", ".", "", "/", "a", "...", "\\", "..\\", "%2e%2e", "\x00", "output", "ü"])
).map("/".join)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a", "a"),
        ("workspace/script.py", "workspace/script.py"),
        ("/etc/passwd", "etc/passwd"),
        ("//a///b//", "a/b"),
        ("./a/./b/.", "a/b"),
        ("a/", "a"),
        ("...", "..."),
        ("..a/b..", "..a/b.."),
        (".hidden", ".hidden"),
        (r"C:\windows\..\x", r"C:\windows\..\x"),
        ("%2e%2e/%00", "%2e%2e/%00"),
        (" a b ", " a b "),
        ("-rf", "-rf"),
        ("日本/é", "日本/é"),
    ],
)
def test_a_path_is_cleaned(raw: str, clean: str) -> None:
    assert clean_path(raw) == clean
    assert clean_upload_path(raw) == clean


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "empty"),
        ("/", "names no file"),
        (".", "names no file"),
        ("././/", "names no file"),
        ("..", "'..'"),
        ("../a", "'..'"),
        ("a/../b", "'..'"),
        ("a/..", "'..'"),
        ("/../../etc/shadow", "'..'"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\x1bb", "U+001B"),
        ("a\x7f", "U+007F"),
        ("a\x85b", "U+0085"),
        ("a\x9f", "U+009F"),
        ("\ud800", "UTF-8"),
        ("a/\udcff", "UTF-8"),
        ("a\ufffdb", "UTF-8"),
        ("a" * 256, "255 bytes"),
        ("a/" + "ü" * 128, "255 bytes"),
        ("a/" * 2048 + "a", "4096 bytes"),
        ("/" * 5000 + "a", "4096 bytes"),
    ],
)
def test_a_bad_path_is_refused_with_the_reason(raw: str, why: str) -> None:
    with pytest.raises(BadPath) as caught:
        clean_path(raw)
    assert caught.value.code == "invalid_path"
    assert why in caught.value.message
    assert caught.value.message.startswith("path: ")
    assert len(caught.value.message) < 5000
    caught.value.message.encode()  # Whoever answers it can write it down.


def test_the_longest_path_and_component_are_accepted() -> None:
    component = "ü" * 127 + "a"
    assert clean_path(component) == component
    path = "/".join(["a" * 255] * 16)
    assert len(path) == 4095
    assert clean_path(path + "/") == path


@pytest.mark.parametrize("raw", ["output", "output/", "/output/a", "./output/x", "output//a"])
def test_what_runs_leave_can_be_read_but_not_uploaded_over(raw: str) -> None:
    assert clean_path(raw).split("/")[0] == "output"
    with pytest.raises(BadPath, match="reserved"):
        clean_upload_path(raw)


@pytest.mark.parametrize("raw", ["outputs/a", "a/output/b", "Output/a", "output.txt"])
def test_only_the_first_component_is_reserved(raw: str) -> None:
    assert clean_upload_path(raw) == raw


@given(ANYTHING | HOSTILE)
@example("a/\u2028/b")
@example(".." + "\u200b")
def test_a_cleaned_path_is_safe_and_cleaning_it_again_changes_nothing(raw: str) -> None:
    try:
        path = clean_path(raw)
    except BadPath as error:
        error.message.encode()
        return
    components = path.split("/")
    assert not {"", ".", ".."} & set(components)
    assert all(unicodedata.category(character) != "Cc" for character in path)
    assert len(path.encode()) <= 4096
    assert all(len(component.encode()) <= 255 for component in components)
    assert clean_path(path) == path


@given(st.lists(st.sampled_from(["a", "b.txt", "ü", "\\", "..."]), min_size=1, max_size=8))
def test_slashes_and_dots_around_components_never_matter(components: list[str]) -> None:
    assert clean_path("/./" + "//./".join(components) + "/.") == "/".join(components)


@given(st.lists(st.sampled_from(["a", ".", "", "b"])), st.lists(st.sampled_from(["a", "."])))
def test_a_parent_component_is_refused_wherever_it_stands(
    before: list[str], after: list[str]
) -> None:
    with pytest.raises(BadPath):
        clean_path("/".join([*before, "..", *after]))
