"""What every answer that isn't 2xx must be."""

import json
from typing import Any

KEYS = {"error", "code", "exec_id", "fields", "stdout", "stderr", "checks"}


def error_of(response: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The body of an error, checked for its shape."""
    assert response.status_code == status, response.content[:2000]
    assert response["Content-Type"] == "application/json"
    body: dict[str, Any] = json.loads(response.content)
    assert set(body) <= KEYS
    assert isinstance(body["error"], str)
    assert body["error"]
    assert isinstance(body["code"], str)
    assert body["code"]
    for messages in body.get("fields", {}).values():
        assert messages
        assert all(isinstance(message, str) for message in messages)
    assert "Traceback" not in response.content.decode()
    if status == 503:
        assert int(response["Retry-After"]) > 0
    if status == 405:
        assert response["Allow"]
    if code is not None:
        assert body["code"] == code
    return body
