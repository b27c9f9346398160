"""What pages may load and run, as django-csp takes it: nothing inline, nothing of another host."""

from typing import Any

from csp.constants import NONE, SELF, UNSAFE_INLINE

STRICT: dict[str, Any] = {
    "default-src": [NONE],
    "script-src": [SELF],
    "style-src": [SELF],
    # Small pictures of the admin's and Swagger UI's style sheets stand in them as data.
    "img-src": [SELF, "data:"],
    "font-src": [SELF],
    "connect-src": [SELF],
    "form-action": [SELF],
    "base-uri": [NONE],
    "frame-ancestors": [NONE],
}
REDOC: dict[str, Any] = {
    # It makes its style sheet in the browser and searches in a worker made of a blob. No script of
    # the page itself runs, whoever wrote it into the document.
    "style-src": [SELF, UNSAFE_INLINE],
    "worker-src": ["blob:"],
    "form-action": [NONE],
}

CHECKS_OF_HTTPS = ("security.W004", "security.W008", "security.W012", "security.W016")
"""HSTS, redirection, and the two cookies: see django.core.checks.security."""
