"""Tokens by the API: one's own, made and revoked."""

from collections.abc import MutableSequence
from typing import Any

from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from executions.accounts import services
from executions.accounts.api import schema
from executions.accounts.api.serializers import (
    NewTokenSerializer,
    TokenRequestSerializer,
    TokenSerializer,
)
from executions.accounts.authentication import ANONYMOUS
from executions.accounts.models import Token
from executions.api.parsers import StrictJSONParser
from executions.idempotency.api.header import once


class TokenViewSet(ViewSet):
    """Whoever is nobody in particular has no tokens."""

    parser_classes: list[type[BaseParser]] = [StrictJSONParser]
    serializer_class = TokenSerializer

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if request.user.get_username() == ANONYMOUS:
            raise PermissionDenied("anonymous has no tokens; log in")

    @schema.listing
    def list(self, request: Request) -> Response:
        tokens = Token.objects.visible_to(request.user)
        return Response({"results": TokenSerializer(tokens, many=True).data})

    @schema.creation
    def create(self, request: Request) -> Response:
        """With a token, the new one ends no later than that."""
        secrets: MutableSequence[str] = []
        made = once(self, request, lambda: self._make(request, secrets))
        token = Token.objects.visible_to(request.user).filter(pk=made.id).first()
        if token is None:
            raise made.gone()
        # Only the first answer has it: what a repetition could be told isn't kept.
        token.token = secrets[0] if secrets else None  # type: ignore[attr-defined]
        headers = {"Cache-Control": "no-store"}
        return Response(NewTokenSerializer(token).data, status=201, headers=headers)

    def _make(self, request: Request, secrets: MutableSequence[str]) -> str:
        asked = TokenRequestSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        maker = request.auth if isinstance(request.auth, Token) else None
        token, secret = services.create_token(
            user_id=_user_id(request),
            name=asked.validated_data["name"],
            days=asked.validated_data.get("days") or None,
            not_after=maker.expiry if maker else None,
        )
        secrets.append(secret)
        return str(token.pk)

    @schema.revocation
    def destroy(self, request: Request, token_id: int) -> Response:
        if not services.revoke_token(token_id=token_id, owner_id=_user_id(request)):
            raise NotFound(f"There is no token {token_id}.")
        return Response(status=204)


def _user_id(request: Request) -> int:
    return int(request.user.pk)  # type: ignore[arg-type]  # saved, so it has one
