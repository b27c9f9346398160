"""What the API takes and shows of tokens."""

from typing import Any

from rest_framework import serializers

from executions.accounts.services import MAX_DAYS
from executions.api.fields import ClosedSerializer, LimitField, TextField


class TokenRequestSerializer(ClosedSerializer):
    name = TextField(max_bytes=400, help_text="What it is for; at most 100 characters.")
    days = LimitField(
        minimum=1,
        maximum=MAX_DAYS,
        required=False,
        allow_null=True,
        help_text="Until it ends; 0 or null: 90, or as long as the token that asks for it.",
    )


class TokenSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    created_at = serializers.DateTimeField(source="created")
    expires_at = serializers.DateTimeField(source="expiry", allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="To the minute.")


class NewTokenSerializer(TokenSerializer):
    token = serializers.CharField(
        allow_null=True,
        help_text="Shown here and never again; null for a repeated `Idempotency-Key`.",
    )


class TokensSerializer(serializers.Serializer[Any]):
    results = TokenSerializer(many=True)
