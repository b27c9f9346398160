"""Receipts, and the key to verify them with."""

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from executions.callbacks.api.views import execution_for
from executions.receipts import keys, services
from executions.receipts.api import schema
from executions.receipts.api.serializers import ReceiptKeySerializer, ReceiptSerializer


class ReceiptViewSet(ViewSet):
    serializer_class = ReceiptSerializer

    @schema.get_receipt
    def retrieve(self, request: Request, exec_id: str) -> Response:
        return Response(services.issue(execution=execution_for(request, exec_id)))


class ReceiptKeyViewSet(ViewSet):
    serializer_class = ReceiptKeySerializer

    @schema.get_key
    def retrieve(self, request: Request) -> Response:  # noqa: ARG002
        key = keys.public_key()
        told = {
            "algorithm": services.ALGORITHM,
            "key": keys.key_id(key),
            "public_key": keys.pem(key),
        }
        return Response(told)
