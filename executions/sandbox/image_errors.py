"""What can go wrong with an image; each class carries a code."""

from executions.sandbox.spec import SandboxError


class ImageError(SandboxError):
    """The image can't be had. The message names it and is fit for its user."""

    code = "image_error"


class ImageNotFound(ImageError):
    """There is no such image, or its registry keeps it from us: registries rarely tell which."""

    code = "image_not_found"


class ImageTooLarge(ImageError):
    """More bytes or files than an image may have here."""

    code = "image_too_large"


class PullTimeout(ImageError):
    code = "pull_timeout"


class PullFailed(ImageError):
    """The registry can't be reached, or what came from it is no image."""

    code = "pull_failed"


class ImageInUse(ImageError):
    """It can't be removed now: a run holds it."""

    code = "image_in_use"


BY_CODE: dict[str, type[ImageError]] = {
    kind.code: kind for kind in (ImageNotFound, ImageTooLarge, PullTimeout, PullFailed, ImageInUse)
}
