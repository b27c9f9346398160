"""A Python image from the machine's own Debian or Ubuntu packages, where no registry answers."""

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from executions.sandbox.spec import SandboxError

log = logging.getLogger(__name__)

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = "python3,ca-certificates"
"""python3-minimal would do without json, asyncio and most else of the standard library."""
BUILD_SECS = 900
NOT_NEEDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
OF_THIS_MACHINE = (
    "etc/resolv.conf",
    "etc/hostname",
    "etc/apt/sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
)
"""What mmdebstrap copies in: names of hosts, and perhaps a proxy's password."""


class ImageNotBuilt(SandboxError):
    """A tool is missing or failed; the message carries its last lines."""

    code = "image_not_built"


@dataclass(frozen=True, slots=True)
class Source:
    """One archive that apt gets packages from."""

    uri: str
    suite: str
    options: str

    @property
    def line(self) -> str:
        return " ".join(filter(None, ("deb", self.options, self.uri, self.suite, "main")))


def build_python_image(destination_archive: Path) -> None:
    """Writes an OCI archive to `destination_archive`, in one step; about 25 s.

    As root. Raises ImageNotBuilt. Leaves no other file.
    """
    source = machine_source()
    destination_archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".boxer-image-", dir=destination_archive.parent
    ) as directory:
        work = Path(directory)
        # mmdebstrap's own user for downloading has to reach what it makes in here.
        work.chmod(0o711)
        _run(_bootstrap(source, work / "layer.tar"), work)
        for argv in _packing():
            _run(argv, work)
        (work / "image.tar").replace(destination_archive)


def _bootstrap(source: Source, layer: Path) -> list[str]:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_NEEDED]
    options += [f"--aptopt={line}" for line in _apt_proxies()]
    files = " ".join(f'"$1/{name}"' for name in OF_THIS_MACHINE)
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        f"--include={PACKAGES}",
        "--format=tar",
        *options,
        f'--customize-hook=rm -f {files} && rm -rf "$1/etc/apt/sources.list.d"',
        source.suite,
        layer.name,
        source.line,
    ]


def _packing() -> Iterator[list[str]]:
    image = "layout:image"
    yield ["umoci", "init", "--layout", "layout"]
    yield ["umoci", "new", "--image", image]
    yield ["umoci", "raw", "add-layer", "--image", image, "layer.tar"]
    yield ["umoci", "config", "--image", image, "--config.env", PATH, "--config.cmd", "python3"]
    yield [
        "skopeo",
        "--insecure-policy",
        "copy",
        "--quiet",
        "oci:layout:image",
        "oci-archive:image.tar",
    ]


def _run(argv: list[str], work: Path) -> None:
    env = {**os.environ, "TMPDIR": str(work), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            cwd=work,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_SECS,
        )
    except FileNotFoundError:
        raise ImageNotBuilt(f"{argv[0]} is not installed: apt-get install {argv[0]}") from None
    except subprocess.TimeoutExpired:
        raise ImageNotBuilt(f"{argv[0]} took longer than {BUILD_SECS} s") from None
    output = done.stdout.decode("utf-8", "replace")
    log.debug("%s: %s", argv[0], output)
    if done.returncode:
        last = " | ".join(output.strip().splitlines()[-5:])[-1000:]
        raise ImageNotBuilt(f"{argv[0]} ended with {done.returncode}: {last}")


def _apt_proxies() -> list[str]:
    """The machine's apt may reach its mirror through a proxy only; mmdebstrap doesn't ask it."""
    argv = ["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"]
    if shutil.which(argv[0]) is None:
        return []
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = done.stdout.splitlines()
    return [line for line in lines if re.match(r'Acquire::https?::Proxy\S* ".+";', line)]


# ── Where the machine gets its packages ──────────────────────────────────────────────────────────


def machine_source(root: Path = Path("/")) -> Source:
    """The archive of the release that the machine runs. Raises ImageNotBuilt."""
    codename = _codename(root)
    found = list(_sources(root))
    for source in found:
        if source.suite == codename:
            return source
    for source in found:  # `stable`, `testing` and the like; not `…-updates`, `…-security`.
        if re.fullmatch(r"[a-z]+", source.suite):
            return source
    raise ImageNotBuilt(f"apt on this machine has no source with the release {codename!r}")


def _codename(root: Path) -> str:
    try:
        text = (root / "etc/os-release").read_text()
    except FileNotFoundError:
        return ""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', text, re.MULTILINE)
    return match[1] if match else ""


def _sources(root: Path) -> Iterator[Source]:
    apt = root / "etc/apt"
    for path in [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]:
        if path.is_file():
            yield from _one_line_sources(path.read_text(errors="replace"))
    for path in sorted(apt.glob("sources.list.d/*.sources")):
        yield from _deb822_sources(path.read_text(errors="replace"))


def _one_line_sources(text: str) -> Iterator[Source]:
    """`deb [option=value …] URI SUITE COMPONENT…`, see sources.list(5)."""
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>[^#]+)", line.strip())
        words = match["rest"].split() if match else []
        if match is None or len(words) < 3 or "main" not in words[2:]:
            continue
        given = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
        yield Source(words[0], words[1], _options(given))


def _deb822_sources(text: str) -> Iterator[Source]:
    """Stanzas of `Field: value`, values continued on lines that begin with white space."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in unfolded.splitlines())
            if colon
        }
        wanted = "deb" in fields.get("types", "").split() and (
            "main" in fields.get("components", "").split()
        )
        if not wanted or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri, suite, _options(fields))


def _options(given: dict[str, str]) -> str:
    """Those that matter for a first installation; a key that stands in the file itself is left to
    mmdebstrap, which knows the keyrings of the distributions."""
    options = []
    keyring = given.get("signed-by", "")
    if keyring.startswith("/") and " " not in keyring:
        options.append(f"signed-by={keyring}")
    if given.get("trusted", "").lower() == "yes":
        options.append("trusted=yes")
    return f"[{' '.join(options)}]" if options else ""
