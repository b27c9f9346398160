"""Callbacks of an execution, and the secret that they are signed with."""

from typing import cast

from django.http import Http404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from executions import audit
from executions.actor import Actor
from executions.callbacks import signing
from executions.callbacks.api import schema
from executions.callbacks.api.serializers import CallbackListSerializer, CallbackSecretSerializer
from executions.callbacks.models import Delivery
from executions.models import Execution

PRIVATE = {"Cache-Control": "no-store"}


def execution_for(request: Request, exec_id: str) -> Execution:
    """One's own, or anybody's for who may see all, which the audit log then tells. Or Http404."""
    execution = Execution.objects.visible_to(request.user).filter(exec_id=exec_id).first()
    if execution is None and request.user.has_perm("executions.view_all"):
        execution = Execution.objects.filter(exec_id=exec_id).first()
    if execution is None:
        raise Http404
    if execution.owner_id != request.user.pk:
        audit.record(
            Actor.of(request),
            audit.Verb.RUN_VIEWED,
            "executions.execution",
            exec_id,
            owner_id=execution.owner_id,
        )
    return execution


class CallbackViewSet(ViewSet):
    serializer_class = CallbackListSerializer

    @schema.list_callbacks
    def list(self, request: Request, exec_id: str) -> Response:
        deliveries = Delivery.objects.of_execution(execution_for(request, exec_id))
        return Response(CallbackListSerializer({"callbacks": deliveries}).data)


class CallbackSecretViewSet(ViewSet):
    serializer_class = CallbackSecretSerializer

    @schema.get_secret
    def retrieve(self, request: Request) -> Response:
        return Response(
            {"secret": signing.secret_of(user_id=cast("int", request.user.pk))}, headers=PRIVATE
        )

    @schema.rotate_secret
    def rotate(self, request: Request) -> Response:
        actor = Actor.of(request)
        return Response({"secret": signing.rotate(actor=actor)}, headers=PRIVATE)
