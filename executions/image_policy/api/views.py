"""/api/v1/images/ and /api/v1/image-rules/: for whom an operator has given the permissions."""

import uuid
from typing import Any, ClassVar

from django.db import IntegrityError, transaction
from django.http import Http404
from django.urls import reverse
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from executions.actor import Actor
from executions.idempotency.api.header import once
from executions.image_policy import prefetches
from executions.image_policy.api import schema
from executions.image_policy.api.serializers import (
    ImageListSerializer,
    PrefetchListSerializer,
    PrefetchRequestSerializer,
    PrefetchSerializer,
    RuleListSerializer,
    RuleRequestSerializer,
    RuleSerializer,
)
from executions.image_policy.errors import PrefetchEnded
from executions.image_policy.models import CachedImage, Prefetch, Rule

MOST_LISTED = 1000


class Permitted(BasePermission):
    """The permission that the view names for the action."""

    def has_permission(self, request: Request, view: Any) -> bool:
        wanted = view.wanted.get(view.action)
        return wanted is None or request.user.has_perm(f"image_policy.{wanted}")


class _ViewSet(ViewSet):
    permission_classes = [IsAuthenticated, Permitted]
    wanted: ClassVar[dict[str, str]] = {}


class ImageViewSet(_ViewSet):
    serializer_class = ImageListSerializer
    wanted = {"index": "view_cachedimage"}

    @schema.list_images
    def index(self, request: Request) -> Response:  # noqa: ARG002
        images = CachedImage.objects.order_by("state", "-last_used")[:MOST_LISTED]
        return Response(ImageListSerializer({"images": images}).data)


class PrefetchViewSet(_ViewSet):
    serializer_class = PrefetchSerializer
    wanted = {
        "index": "view_prefetch",
        "retrieve": "view_prefetch",
        "create": "add_prefetch",
        "destroy": "cancel_prefetch",
    }

    @schema.list_prefetches
    def index(self, request: Request) -> Response:  # noqa: ARG002
        newest = Prefetch.objects.order_by("-requested_at")[:MOST_LISTED]
        return Response(PrefetchListSerializer({"prefetches": newest}).data)

    @schema.create_prefetch
    def create(self, request: Request) -> Response:
        made = once(self, request, lambda: self._request(request))
        prefetch = Prefetch.objects.filter(pk=made.id).first()
        if prefetch is None:
            raise made.gone()
        address = reverse("image-prefetch", args=[prefetch.pk])
        shown = PrefetchSerializer(prefetch).data
        return Response(shown, status=202, headers={"Location": address})

    def _request(self, request: Request) -> str:
        asked = PrefetchRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        image: str = asked.validated_data["image"]
        return str(prefetches.request(actor=Actor.of(request), image=image).pk)

    @schema.retrieve_prefetch
    def retrieve(self, request: Request, prefetch_id: uuid.UUID) -> Response:  # noqa: ARG002
        return Response(PrefetchSerializer(_prefetch(prefetch_id)).data)

    @schema.cancel_prefetch
    def destroy(self, request: Request, prefetch_id: uuid.UUID) -> Response:
        if not prefetches.cancel(actor=Actor.of(request), prefetch_id=prefetch_id):
            raise PrefetchEnded(f"the prefetch has ended already: {_prefetch(prefetch_id).state}")
        return Response(status=204)


class RuleViewSet(_ViewSet):
    serializer_class = RuleSerializer
    wanted = {"index": "view_rule", "create": "add_rule", "destroy": "delete_rule"}

    @schema.list_rules
    def index(self, request: Request) -> Response:  # noqa: ARG002
        rules = Rule.objects.select_related("user", "group")[:MOST_LISTED]
        return Response(RuleListSerializer({"rules": rules}).data)

    @schema.create_rule
    def create(self, request: Request) -> Response:
        made = once(self, request, lambda: self._make(request))
        rule = Rule.objects.filter(pk=made.id).first()
        if rule is None:
            raise made.gone()
        return Response(RuleSerializer(rule).data, status=201)

    def _make(self, request: Request) -> str:
        rule = RuleRequestSerializer(data=request.data).rule()
        try:
            with transaction.atomic():
                rule.save(force_insert=True)
        except IntegrityError:  # somebody else's of the same name, a moment ago
            raise ValidationError({"name": ["There is a rule of that name."]}) from None
        return str(rule.pk)

    @schema.delete_rule
    def destroy(self, request: Request, rule_id: int) -> Response:  # noqa: ARG002
        rule = Rule.objects.filter(pk=rule_id).first()
        if rule is None:
            raise Http404
        rule.delete()
        return Response(status=204)


def _prefetch(prefetch_id: uuid.UUID) -> Prefetch:
    found = Prefetch.objects.filter(pk=prefetch_id).first()
    if found is None:
        raise Http404
    return found
