#!/bin/bash
# Installs what Boxer needs: packages of the system, runsc (gVisor), .venv with the pinned packages.
#
#   scripts/setup.sh [--dev]      --dev: what the tests and linters need, too
#
# For Debian 12 or newer and Ubuntu. Does nothing, quickly, when everything is there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PIP_DISABLE_PIP_VERSION_CHECK=1

PYTHON=${PYTHON:-python3}
OLDEST_RUNSC=20231218 # the first with everything that systrap needs; see executions/checks.py

dev=false
requirements=(requirements.txt)
# What proves that a package is there (a program, or a file), and the package.
needed=(
    skopeo=skopeo
    umoci=umoci
    mmdebstrap=mmdebstrap
    busybox=busybox-static
    catatonit=catatonit
    ip=iproute2
    nft=nftables
    /usr/lib/cni/bridge=containernetworking-plugins
    /etc/ssl/certs/ca-certificates.crt=ca-certificates
)
case ${1:-} in
    --dev)
        dev=true
        requirements+=(requirements-dev.txt)
        needed+=(docker-registry=docker-registry buildah=buildah qemu-system-x86_64=qemu-system-x86 cpio=cpio tmux=tmux chromium=chromium)
        ;;
    '') ;;
    *)
        echo "usage: scripts/setup.sh [--dev]" >&2
        exit 2
        ;;
esac

say() { echo "setup: $*" >&2; }
die() {
    say "$@"
    exit 1
}

# ── Packages of the system ───────────────────────────────────────────────────────────────────────

is_there() { # program or file
    case $1 in
        /*) [[ -e $1 ]] ;;
        # The dynamic busybox doesn't run in an image without libraries.
        busybox) command -v busybox >/dev/null && ! grep -qa /ld-linux "$(command -v busybox)" ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing_packages() {
    local pair
    for pair in "${needed[@]}"; do
        is_there "${pair%%=*}" || echo "${pair#*=}"
    done
}

apt_get() { apt-get -o DPkg::Lock::Timeout=300 -qq -y "$@" >&2; }

apt_install() { # packages, or options before them
    command -v apt-get >/dev/null || die "no apt-get here; please install: $*"
    [[ $EUID -eq 0 ]] || die "must be root to install packages: sudo apt-get install $*"
    say "installing $*"
    # The lists may be missing, or older than what the mirror holds.
    apt_get install --no-install-recommends "$@" 2>/dev/null ||
        { apt_get update && apt_get install --no-install-recommends "$@"; } ||
        die "apt-get could not install $*; see above"
}

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    [[ ${#packages[@]} -gt 0 ]] || return 0
    apt_install "${packages[@]}"
    # Its package starts a registry on every address; the tests only want the program.
    if [[ " ${packages[*]} " == *" docker-registry "* && -d /run/systemd/system ]]; then
        systemctl disable --quiet --now docker-registry || true
    fi
    mapfile -t packages < <(missing_packages)
    [[ ${#packages[@]} -eq 0 ]] || die "still missing after the installation: ${packages[*]}"
}

# ── runsc ────────────────────────────────────────────────────────────────────────────────────────

date_of() { # the date in a version of runsc, or 0
    local date
    date=$(grep -oE '(^|[^0-9])20[0-9]{6}([^0-9]|$)' <<<"$1" | grep -oE '[0-9]{8}' | head -n 1) || true
    echo "${date:-0}"
}

runsc_is_there() { # what says nothing about its age was built by its user, who knows
    local binary version
    binary=${BOXER_RUNSC_PATH:-$(command -v runsc || true)}
    [[ -n $binary ]] && version=$("$binary" --version 2>/dev/null) || return 1
    version=$(date_of "$version")
    [[ $version -eq 0 || $version -ge $OLDEST_RUNSC ]]
}

runsc_on_offer() { # as apt's `runsc/suite` or `runsc=version`, the newest; fails if too old or none
    local version
    version=$(apt-cache madison runsc 2>/dev/null | awk '{print $3}' | sort -rV | head -n 1)
    [[ -n $version && $(date_of "$version") -ge $OLDEST_RUNSC ]] && echo "runsc=$version"
}

install_runsc() {
    runsc_is_there && return
    local offer own="put gVisor's release (https://gvisor.dev/docs/user_guide/install/) on PATH or at BOXER_RUNSC_PATH"
    [[ -z ${BOXER_RUNSC_PATH:-} ]] || die "BOXER_RUNSC_PATH=$BOXER_RUNSC_PATH: can't be run, or is older than $OLDEST_RUNSC"
    [[ $EUID -eq 0 ]] || die "must be root to install runsc; or $own"
    if ! offer=$(runsc_on_offer); then
        add_backports
        apt_get update || say "apt-get update failed; trying with what it got"
        offer=$(runsc_on_offer) || die "this system packages no runsc from $OLDEST_RUNSC or later: $own"
    fi
    apt_install "$offer"
    runsc_is_there || die "runsc was installed and can't be run; $own"
}

add_backports() { # from the mirror that this machine uses already
    # shellcheck source=/dev/null
    local id codename file=/etc/apt/sources.list.d/boxer-backports.sources
    id=$(. /etc/os-release && echo "${ID:-}")
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ $id == debian && -n $codename ]] || return 0
    apt-cache policy | grep -q "n=$codename-backports," && return 0
    say "adding $codename-backports of this machine's mirror: $file"
    "$PYTHON" scripts/backports_source.py >"$file.new" || die "no mirror of Debian found in /etc/apt"
    mv "$file.new" "$file"
}

# ── Python ───────────────────────────────────────────────────────────────────────────────────────

check_python() {
    command -v "$PYTHON" >/dev/null || apt_install python3
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$("$PYTHON" --version) is too old: Boxer needs Python 3.11 or newer. Where one is" \
            "installed beside it: PYTHON=python3.12 make run"
}

make_venv() {
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        .venv/bin/python -m pip --version >/dev/null 2>&1 && return
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "$("$PYTHON" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    fi
    say "making .venv"
    "$PYTHON" -m venv --clear .venv
}

install_requirements() {
    local file arguments=()
    for file in "${requirements[@]}"; do arguments+=(-r "$file"); done
    say "installing ${requirements[*]} into .venv"
    # Everything that gets installed is pinned there, so nothing is left to be resolved.
    .venv/bin/python -m pip install --quiet --require-virtualenv --no-deps "${arguments[@]}"
    .venv/bin/python -m pip check >&2 || die "the pins of ${requirements[*]} don't fit together"
}

# ── All of it, or nothing ────────────────────────────────────────────────────────────────────────

stamp() { cat scripts/setup.sh "${requirements[@]}" | sha256sum; }
stamp_file=.venv/setup.stamp
[[ $dev == false ]] || stamp_file=.venv/setup-dev.stamp

if [[ -f $stamp_file && $(<"$stamp_file") == "$(stamp)" && -z $(missing_packages) ]] &&
    runsc_is_there && .venv/bin/python -c 'import django' 2>/dev/null; then
    exit 0
fi
check_python
install_packages
install_runsc
make_venv
install_requirements
stamp >"$stamp_file"
say "done"
