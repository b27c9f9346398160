"""What the OpenAPI document says of receipts."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema

from executions.api.schema import EXEC_ID, failure
from executions.receipts.api.serializers import ReceiptKeySerializer, ReceiptSerializer

_HELLO: dict[str, Any] = {"sha256": "58" * 32, "size": 6}
_NOTHING = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0}
_LIMITS = {
    "cpu_cores": 1, "memory_mb": 256, "pids_limit": 64, "wall_clock_secs": 30, "nofile": 256,
}  # fmt: skip
RECEIPT: dict[str, Any] = {
    "receipt": {
        "format": "boxer-receipt/1",
        "exec_id": EXEC_ID,
        "image": {"requested": "busybox", "digest": "sha256:" + "5b" * 32},
        "runtime": {"runsc_version": "release-20250319.0", "platform": "systrap"},
        "cmd": ["echo", "hello"],
        "env": ["API_TOKEN=***"],
        "cwd": "/",
        "network": "none",
        "labels": {},
        "limits": _LIMITS,
        "inputs": [],
        "stdin": None,
        "stdout": _HELLO,
        "stderr": _NOTHING,
        "outputs": [],
        "left_out": [],
        "end": {
            "status": "finished", "outcome": "exited", "exit_code": 0, "signal": None, "error": "",
            "error_code": "",
        },
        "usage": {"wall_ms": 12, "cpu_ms": 9, "max_memory_bytes": 1048576},
        "times": {"started_at": "2030-01-01T12:00:00Z", "finished_at": "2030-01-01T12:00:01Z"},
        "request": {
            "image": "docker.io/library/busybox@sha256:" + "5b" * 32,
            "cmd": ["echo", "hello"], "env": ["API_TOKEN=***"], "cwd": "/", "files": [],
            "limits": _LIMITS, "network": "none", "persist": False,
        },
    },
    "signature": {"algorithm": "Ed25519", "key": "9f86d081884c7d65", "value": "3kRw…=="},
}  # fmt: skip

get_receipt = extend_schema(
    operation_id="getReceipt",
    tags=["execution"],
    summary="A signed receipt of an execution that has ended",
    description=(
        "Digest, runtime, limits, command, hashes of what went in and what came out, end, usage "
        "and times; `request` is a body for POST /api/v1/executions/ (and for POST /run) that runs "
        "the same on the digest that ran; put in what is masked. Signed by this installation's key."
    ),
    responses={
        200: OpenApiResponse(
            ReceiptSerializer,
            description="The receipt.",
            examples=[OpenApiExample("receipt", value=RECEIPT)],
        ),
        404: failure("There is none.", {"error": "Not found.", "code": "not_found"}),
        409: failure(
            "It hasn't ended.",
            {
                "error": "the execution is running; it has a receipt when it has ended",
                "code": "not_ended",
                "exec_id": EXEC_ID,
            },
        ),
    },
)

get_key = extend_schema(
    operation_id="getReceiptKey",
    tags=["execution"],
    summary="The public key that receipts are signed with",
    description="Keep it: whoever has it verifies receipts without asking Boxer.",
    responses={
        200: OpenApiResponse(
            ReceiptKeySerializer,
            description="The key.",
            examples=[
                OpenApiExample(
                    "key",
                    value={
                        "algorithm": "Ed25519",
                        "key": "9f86d081884c7d65",
                        "public_key": "-----BEGIN PUBLIC KEY-----\n…\n-----END PUBLIC KEY-----\n",
                    },
                )
            ],
        )
    },
)
