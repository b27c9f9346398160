"""The OpenAPI document: valid, complete, and shown by pages that ask no other host for anything."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.test import Client
from openapi_spec_validator import validate

from tests.answers import error_of

DOCUMENT = dict[str, Any]

WITH_A_LOGIN = {401, 403, 429}
"""What every route can say that asks who it is; added to what stands below."""
OPEN = {"/healthz", "/readyz"}
STATUSES = {
    ("get", "/api/v1/tokens/"): {200, 405, 406, 500, 503},
    ("post", "/api/v1/tokens/"): {201, 400, 405, 406, 409, 413, 415, 422, 500, 503},
    ("delete", "/api/v1/tokens/{token_id}/"): {204, 404, 405, 406, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/receipt/"): {200, 404, 405, 406, 409, 500, 503},
    ("get", "/api/v1/receipt-key/"): {200, 405, 406, 500, 503},
    ("get", "/api/v1/callback-secret/"): {200, 405, 406, 500, 503},
    ("post", "/api/v1/callback-secret/"): {200, 405, 406, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/callbacks/"): {200, 404, 405, 406, 500, 503},
    ("get", "/files"): {200, 206, 304, 400, 404, 405, 406, 416, 500, 503},
    ("post", "/files"): {200, 400, 405, 406, 413, 415, 500, 503},
    ("get", "/healthz"): {200, 405, 406, 500, 503},
    ("get", "/readyz"): {200, 405, 406, 500, 503},
    ("get", "/api/v1/quota/"): {200, 405, 406, 500, 503},
    ("get", "/api/v1/images/"): {200, 403, 405, 406, 500, 503},
    ("get", "/api/v1/images/prefetch/"): {200, 403, 405, 406, 500, 503},
    ("post", "/api/v1/images/prefetch/"): {
        *(202, 400, 403, 405, 406, 409, 413, 415, 422, 500, 503)
    },
    ("get", "/api/v1/images/prefetch/{prefetch_id}/"): {200, 403, 404, 405, 406, 500, 503},
    ("delete", "/api/v1/images/prefetch/{prefetch_id}/"): {
        *(204, 403, 404, 405, 406, 409, 500, 503)
    },
    ("get", "/api/v1/image-rules/"): {200, 403, 405, 406, 500, 503},
    ("post", "/api/v1/image-rules/"): {*(201, 400, 403, 405, 406, 409, 413, 415, 422, 500, 503)},
    ("delete", "/api/v1/image-rules/{rule_id}/"): {204, 403, 404, 405, 406, 500, 503},
    ("get", "/api/v1/batches/"): {200, 400, 405, 406, 500, 503},
    ("post", "/api/v1/batches/"): {*(202, 400, 403, 405, 406, 409, 413, 415, 422, 429, 500, 503)},
    ("get", "/api/v1/batches/{batch_id}/"): {200, 404, 405, 406, 500, 503},
    ("post", "/api/v1/batches/{batch_id}/cancel/"): {202, 403, 404, 405, 406, 409, 500, 503},
    ("get", "/api/v1/batches/{batch_id}/results/"): {200, 400, 404, 405, 406, 500, 503},
    ("get", "/api/v1/executions/"): {200, 400, 405, 406, 500, 503},
    ("post", "/api/v1/executions/"): {
        *(202, 400, 403, 405, 406, 409, 413, 415, 422, 429, 500, 503)
    },
    ("get", "/api/v1/executions/{exec_id}/"): {200, 400, 404, 405, 406, 500, 503},
    ("delete", "/api/v1/executions/{exec_id}/"): {204, 403, 404, 405, 406, 409, 500, 503},
    ("post", "/api/v1/executions/{exec_id}/cancel/"): {202, 403, 404, 405, 406, 409, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/events/"): {200, 400, 404, 405, 406, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/files.zip"): {200, 404, 405, 406, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/files/"): {200, 404, 405, 406, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/files/{path}"): {
        200,
        206,
        304,
        404,
        405,
        406,
        416,
        500,
        503,
    },
    ("post", "/api/v1/executions/{exec_id}/rerun/"): {
        *(202, 400, 403, 404, 405, 406, 409, 422, 429, 500, 503)
    },
    ("get", "/api/v1/executions/{exec_id}/stderr/"): {200, 206, 404, 405, 406, 416, 500, 503},
    ("get", "/api/v1/executions/{exec_id}/stdout/"): {200, 206, 404, 405, 406, 416, 500, 503},
    ("post", "/run"): {200, 400, 403, 405, 406, 408, 409, 413, 415, 422, 429, 500, 503, 507},
}
COMPONENTS = {
    *("Batch", "BatchPage", "BatchRequest", "BatchResult", "BatchRun", "BatchTemplate"),
    "Receipt",
    "ReceiptKey",
    "ReceiptSignature",
    "CachedImage",
    "Callback",
    "CallbackList",
    "CallbackSecret",
    "CallbackTry",
    "Ceilings",
    "Checks",
    "Count",
    "Error",
    "Exceeded",
    "ExecutionRequest",
    "ExecutionPage",
    "Execution",
    "Health",
    "ImageList",
    "LeftFile",
    "LeftFiles",
    "LimitsTold",
    "NotReady",
    "Prefetch",
    "PrefetchList",
    "PrefetchRequest",
    "Quota",
    "QuotaExceeded",
    "Readiness",
    "ResourceLimits",
    "Rule",
    "RuleList",
    "RuleRequest",
    "RunRequest",
    "RunResponse",
    "Stopped",
    "NewToken",
    "Token",
    "TokenRequest",
    "Tokens",
    "StoredPath",
    "Upload",
}


@pytest.fixture
def document(client: Client) -> DOCUMENT:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    found: DOCUMENT = json.loads(response.content)
    return found


def responses(document: DOCUMENT) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                yield method, path, status, response


def resolve(document: DOCUMENT, schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return found


def test_it_validates(document: DOCUMENT) -> None:
    validate(document)


def test_it_says_what_it_is(document: DOCUMENT) -> None:
    info = document["info"]
    assert (info["title"], info["version"], info["license"]) == (
        "Boxer API",
        "1.0",
        {"name": "MIT"},
    )
    assert [tag["name"] for tag in document["tags"]] == [
        "files",
        "system",
        "execution",
        "images",
        "accounts",
    ]


def test_yaml_says_the_same(client: Client, document: DOCUMENT) -> None:
    response = client.get("/openapi.yaml")
    assert response["Content-Type"] == "application/yaml; charset=utf-8"
    assert yaml.safe_load(response.content) == document


def test_each_status_that_a_route_can_give_is_there(document: DOCUMENT) -> None:
    found: dict[tuple[str, str], set[int]] = {}
    for method, path, status, _ in responses(document):
        found.setdefault((method, path), set()).add(int(status))
    expected = {
        (method, path): statuses | (set() if path in OPEN else WITH_A_LOGIN)
        for (method, path), statuses in STATUSES.items()
    }
    assert found == expected


def test_each_response_with_a_body_has_an_example(document: DOCUMENT) -> None:
    for method, path, status, response in responses(document):
        for content in response.get("content", {}).values():
            assert content["examples"], (method, path, status)


def test_each_error_has_the_one_shape(document: DOCUMENT) -> None:
    for method, path, status, response in responses(document):
        if int(status) < 400:
            continue
        (content,) = response["content"].values()
        shape = resolve(document, content["schema"])
        assert {"error", "code"} <= set(shape["required"]), (method, path, status)
        for example in content["examples"].values():
            assert set(shape["required"]) <= set(example["value"]) <= set(shape["properties"])


def test_busy_and_wrong_methods_have_their_headers(document: DOCUMENT) -> None:
    for _, _, status, response in responses(document):
        if status == "503":
            assert "Retry-After" in response["headers"]
        if status == "405":
            assert "Allow" in response["headers"]


def test_components_keep_their_names(document: DOCUMENT) -> None:
    assert set(document["components"]["schemas"]) == COMPONENTS


def test_each_operation_has_a_tag_an_id_and_a_summary(document: DOCUMENT) -> None:
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert all(op["summary"] and op["description"] for op in operations)
    assert all(
        set(op["tags"]) <= {"files", "system", "execution", "images", "accounts"}
        for op in operations
    )
    assert len({op["operationId"] for op in operations}) == len(operations)


def test_requests_are_closed_and_bounded(document: DOCUMENT) -> None:
    run, limits = (
        document["components"]["schemas"][name] for name in ("RunRequest", "ResourceLimits")
    )
    assert run["additionalProperties"] is False
    assert limits["additionalProperties"] is False
    assert set(run["required"]) == {"image", "cmd"}
    assert run["properties"]["cmd"]["minItems"] == 1
    assert run["properties"]["files"]["maxItems"] == settings.BOXER_FILES_LIMIT
    assert set(run["properties"]["network"]["enum"]) - {None} == {"none", "sandbox", "host"}
    for name in ("env", "cwd", "files", "limits", "network", "persist"):
        assert run["properties"][name]["nullable"] is True
    for name, maximum in settings.BOXER_MAX_LIMITS.items():
        limit = limits["properties"][name]
        assert (limit["minimum"], limit["maximum"], limit["nullable"]) == (0, maximum, True)
        assert limit["type"] == ("number" if name == "cpu_cores" else "integer")


def test_nothing_of_the_framework_shows(document: DOCUMENT) -> None:
    text = json.dumps(document)
    assert "x-spec-enum-id" not in text
    assert "sessionid" not in text


def test_the_document_takes_no_other_method(client: Client) -> None:
    error_of(client.post("/openapi.json"), 405, "method_not_allowed")
    error_of(client.post("/openapi.yaml"), 405, "method_not_allowed")
    error_of(client.post("/redoc"), 405, "method_not_allowed")


@pytest.mark.parametrize("page", ["/swagger", "/redoc"])
def test_a_page_shows_the_document_with_files_of_this_host_alone(client: Client, page: str) -> None:
    response = client.get(page, headers={"Accept": "text/html"})
    assert response.status_code == 200
    html = response.content.decode()
    assert "/openapi.json" in html + client.get("/swagger?script").content.decode()
    assert not re.search(r"""["'(=]\s*(?:https?:)?//""", html)
    policy = response["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assets = re.findall(r"""(?:src|href)="(/[^"]*)\"""", html)
    assert len(assets) == (6 if page == "/swagger" else 2)
    for asset in assets:
        found = client.get(asset)
        assert found.status_code == 200
        if asset.startswith("/static/"):
            assert len(found.content) == int(found["Content-Length"])


def test_a_static_file_can_be_asked_for_in_part_and_again(client: Client) -> None:
    asset = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui.css"
    whole = client.get(asset)
    part = client.get(asset, headers={"Range": "bytes=2-5"})
    assert part.status_code == 206
    assert part.content == whole.content[2:6]
    same = client.get(asset, headers={"If-None-Match": whole["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert client.head(asset).status_code == 200
    error_of(client.get(asset, headers={"Range": "bytes=99999999-"}), 416)
    error_of(client.post(asset), 405, "method_not_allowed")
